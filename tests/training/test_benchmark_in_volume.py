"""The in-volume protocols beside painting in full, and what rows say of confidence and seconds."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from diffseg_training.benchmark import machine
from diffseg_training.benchmark.calibration import calibration_error, errors_found, tallied
from diffseg_training.benchmark.learning_rates import LearningRates, LearningRatesError
from diffseg_training.benchmark.methods import Options, find_method
from diffseg_training.benchmark.protocols import Split, cross_volume, in_volume, presence, scribbles
from diffseg_training.benchmark.scribbles import scribbled
from diffseg_training.benchmark.tables import gains
from diffseg_training.benchmark.tasks import LearningBudget, Scan, make_task
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, Intensity, save_backbone
from napari_diffseg.network.unet import UNet, UNetConfig

LABELS = (Label(3, "disc", (255, 0, 0)), Label(7, "square", (0, 0, 255)))


def _scan(name: str, seed: int) -> Scan:
    y, x = np.mgrid[:48, :48]
    mask = np.zeros((8, 48, 48), np.uint8)
    for z in range(8):
        mask[z][(y - 14 - z) ** 2 + (x - 16) ** 2 < 50] = 3
    mask[2:, 26:40, 28:40] = 7
    noise = np.random.default_rng(seed).normal(0, 6, mask.shape)
    hu = np.select([mask == 3, mask == 7], [150, 300], 0) + noise
    geometry = Geometry.from_affine(np.diag([-2.0, -2.0, 3.0, 1.0]), (48, 48, 8))
    return Scan(Volume(hu.astype(np.int16), geometry, name), mask, name)


@pytest.fixture
def scans() -> dict[str, Scan]:
    return {"a": _scan("a", 0), "b": _scan("b", 1)}


@pytest.fixture
def present(scans: dict[str, Scan]) -> dict[str, np.ndarray]:
    return {name: presence(scan.reference, [3, 7]) for name, scan in scans.items()}


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = UNetConfig(image_size=32, widths=(8, 16), blocks=1, attention=(), head_channels=8)
    path = tmp_path / "tiny.safetensors"
    save_backbone(path, Backbone("tiny", UNet(config), Intensity((-200.0, 400.0), (-1.0, 1.0))))
    return path


def test_scribbles_cover_a_twentieth_in_connected_strokes_inside_their_label() -> None:
    y, x = np.mgrid[:120, :160]
    mask = np.zeros((120, 160), np.uint8)
    mask[(y - 50) ** 2 + (x - 60) ** 2 < 900] = 3
    mask[90:93, 100:104] = 7  # a small one is scribbled on too
    mask[100:110, 20:40] = 9  # not asked for: background
    drawn = scribbled(mask, [3, 7], z=4)
    assert np.mean(drawn > 0) == pytest.approx(0.05, abs=0.003)
    assert set(np.unique(drawn)) == {0, 3, 7, 255}
    assert (mask[drawn == 3] == 3).all()
    assert (mask[drawn == 7] == 7).all()
    assert set(np.unique(mask[drawn == 255])) <= {0, 9}
    assert (drawn == 7).sum() == 4
    count = ndimage.label(drawn == 3, np.ones((3, 3)))[1]
    assert (drawn == 3).sum() / count > 15  # strokes, not dots
    np.testing.assert_array_equal(drawn, scribbled(mask, [3, 7], z=4))
    assert (drawn != scribbled(mask, [3, 7], z=5)).any()


def test_scribbles_are_what_a_method_is_given(
    scans: dict[str, Scan], present: dict[str, np.ndarray]
) -> None:
    split = scribbles("a", present["a"], 2)
    assert split.digest != in_volume("a", present["a"], 2).digest
    assert split.test == in_volume("a", present["a"], 2).test
    task = make_task(split, scans, LABELS, LearningBudget(iterations=1), 0)
    for one in task.train[0].painted:
        assert not one.full
        assert (one.mask == 255).any()
        assert np.mean(one.mask == 0) > 0.9


def test_a_model_of_another_volume_is_the_start(
    scans: dict[str, Scan], present: dict[str, np.ndarray], backbone: Path
) -> None:
    split = cross_volume("a", present["a"], 1, "b", present["b"], None)
    assert split.start[0].slices == tuple(range(8))
    assert split.painted == 1
    assert cross_volume("a", present["a"], 1, "b", present["b"], 2).digest != split.digest
    task = make_task(split, scans, LABELS, LearningBudget(iterations=40), 0, "cpu")
    assert [len(example.painted) for example in task.start] == [8]
    options = Options(backbone=backbone)
    outcome = find_method("linear").run(task, options)
    assert outcome.steps == 40  # those of the first model do not count
    fresh = make_task(
        in_volume("a", present["a"], 1), scans, LABELS, LearningBudget(iterations=40), 0
    )
    found = [
        _right(one.masks[0], scans) for one in (find_method("linear").run(fresh, options), outcome)
    ]
    assert found[1] > found[0]


def test_ours_says_where_its_seconds_went_and_how_sure_it_is(
    scans: dict[str, Scan], present: dict[str, np.ndarray], backbone: Path
) -> None:
    task = make_task(
        in_volume("a", present["a"], 2), scans, LABELS, LearningBudget(iterations=8), 0, "cpu"
    )
    outcome = find_method("ours").run(task, Options(backbone=backbone))
    assert outcome.steps == sum(stage["steps"] for stage in outcome.stages.values()) == 8
    assert outcome.stages["registering slices"]["steps"] == 0  # pairs of slices are no steps
    assert outcome.stages["registering slices"]["seconds"] > 0
    assert outcome.fit_seconds == pytest.approx(
        sum(stage["seconds"] for stage in outcome.stages.values())
    )
    assert outcome.confidence is not None
    assert outcome.confidence[0].shape == outcome.masks[0].shape
    assert outcome.confidence[0].max() <= 100


def test_calibration_by_hand() -> None:
    # Ten pixels at 50 %, five of them wrong; ninety at 100 %, nine of them wrong.
    sure = np.repeat([50, 100], [10, 90]).astype(np.uint8)
    truth = np.zeros(100, np.uint8)
    mask = np.zeros(100, np.uint8)
    mask[:5] = mask[-9:] = 1
    tally = tallied(mask, truth, sure)
    assert calibration_error(tally) == pytest.approx(0.9 * 0.1)
    assert errors_found(tally) == pytest.approx(5 / 14)
    # Where all are equally sure, the least sure tenth holds a tenth of the errors.
    assert errors_found(tallied(mask, truth, np.full(100, 90, np.uint8))) == pytest.approx(0.1)
    assert errors_found(tallied(truth, truth, sure)) is None


def test_only_methods_that_can_do_a_protocol_are_asked() -> None:
    assert find_method("random-walker").does("scribbles")
    assert not find_method("registration").does("scribbles")
    assert find_method("ours").does("cross-volume")
    assert not find_method("scratch").does("cross-volume")
    assert not find_method("nearest-copy").does("cross-patient")


def test_gains_compare_the_same_paint_seed_and_budget() -> None:
    row = {
        "method": "ours", "protocol": "in-volume", "test": ["a"], "painted": {"a": [3]},
        "slices": 1, "seed": 0, "budget": 60.0, "dice": 0.5, "start": {},
    }  # fmt: skip
    other = {**row, "protocol": "cross-volume", "start": {"b": [1, 2, 3]}, "dice": 0.56}
    text = gains([row, {**row, "seed": 1, "dice": 0.9}, other], str)
    assert "| ours | a | b, 3 slices | 1 | 60 | 0.500 | 0.560 | 6.0 |" in text
    assert gains([row], str) == ""


def test_the_product_is_measured_in_the_networks_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    # A clock that gains a quarter of a second at each look: three products fit in a second.
    ticks = count()
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(ticks) / 4)
    assert machine.product_rate(device, 1.0) == pytest.approx(3 * 2 * 1024**3 / 1e9)
    monkeypatch.setattr(machine, "native_bf16", lambda device: True)
    assert machine.product_precision(device) == torch.bfloat16
    monkeypatch.setattr(machine, "native_bf16", lambda device: False)
    assert machine.product_precision(device) == torch.float32
    assert machine.real_seconds(60, machine.REFERENCE_GFLOPS / 2) == 120


def test_a_split_with_a_start_survives_json(present: dict[str, np.ndarray]) -> None:
    from dataclasses import asdict

    split = cross_volume("a", present["a"], 1, "b", present["b"], 2)
    assert Split.from_json(asdict(split)) == split


def test_rates_come_from_patients_that_are_not_tested(tmp_path: Path) -> None:
    def row(scan: str, rate: float, dice: float) -> dict[str, object]:
        return {"test": [scan], "method": "unetr", "rate": rate, "dice": dice}

    rows = [row("a", 1 / 3, 0.2), row("a", 1.0, 0.4), row("b", 1 / 3, 0.9), row("b", 1.0, 0.5)]
    path = LearningRates.of(rows, {"a": "anna", "b": "bert"}).write(tmp_path / "rates.json")
    rates = LearningRates.read(path)
    assert rates.best("unetr", {"anna"}) == 0.333
    assert rates.best("unetr", {"bert"}) == 1.0
    assert rates.best("unetr", {"cleo"}) == 0.333
    assert rates.best("unetr", {"anna", "bert"}) == 1.0  # nobody is left to learn it from
    assert rates.best("nnunet", ()) == 1.0
    assert "| anna | UNETR | 0.200 | 0.400 |" in rates.table()
    with pytest.raises(LearningRatesError, match="the command rates"):
        LearningRates.read(tmp_path / "none.json")


def _right(mask: np.ndarray, scans: dict[str, Scan]) -> float:
    truth = scans["a"].reference
    return float(np.mean(mask[truth > 0] == truth[truth > 0]))
