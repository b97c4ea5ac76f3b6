"""The methods that learn, on a small volume: they learn, keep their budget, and repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from diffseg_training.benchmark import nnunet, ours
from diffseg_training.benchmark.ddpmseg import PixelFeatures, ddpm_seg
from diffseg_training.benchmark.forests import backbone_forest, handmade_forest
from diffseg_training.benchmark.grids import square_grid, task_intensity, training_pairs
from diffseg_training.benchmark.methods import METHODS, MethodError, Options, find_method
from diffseg_training.benchmark.networks import NETWORKS, ImageNetInput, NetworkError
from diffseg_training.benchmark.supervised import augmented, share_left, train_network
from diffseg_training.benchmark.tasks import BenchmarkTask, Example, LearningBudget
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.predict import predict
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, Intensity, save_backbone
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.network.unet import UNet, UNetConfig

LABELS = (Label(3, "disc", (255, 0, 0)), Label(7, "square", (0, 0, 255)))
SMOKED = ("attention-unet", "unetr", "swin-unetr")


def _made(budget: LearningBudget, full: bool = True) -> tuple[BenchmarkTask, np.ndarray]:
    """A body in air with a bright disc and a brighter square; slices 1 and 5 are painted."""
    y, x = np.mgrid[:40, :48]
    mask = np.zeros((7, 40, 48), np.uint8)
    for z in range(7):
        mask[z][(y - 14 - z) ** 2 + (x - 14) ** 2 < 36] = 3
    mask[:, 20:32, 28:38] = 7
    hu = np.select([mask == 3, mask == 7], [150, 300], 0) + np.random.default_rng(0).normal(
        0, 6, mask.shape
    )
    outside = np.ones(mask.shape, bool)
    outside[:, 4:-4, 4:-4] = False
    hu[outside] = -1000
    geometry = Geometry.from_affine(np.diag([-2.0, -2.0, 3.0, 1.0]), (48, 40, 7))
    volume = Volume(hu.astype(np.int16), geometry, "made")
    painted = tuple(PaintedSlice(z, mask[z], full) for z in (1, 5))
    return BenchmarkTask(LABELS, (Example(volume, painted),), (volume,), budget, 0, "cpu"), mask


def _dice(mask: np.ndarray, truth: np.ndarray) -> float:
    scores = [
        2 * ((mask == v) & (truth == v)).sum() / ((mask == v).sum() + (truth == v).sum())
        for v in (3, 7)
    ]
    return float(min(scores))


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = UNetConfig(image_size=32, widths=(8, 16), blocks=1, attention=(), head_channels=8)
    path = tmp_path / "tiny.safetensors"
    intensity = Intensity((-200.0, 400.0), (-1.0, 1.0))
    save_backbone(path, Backbone("tiny", UNet(config), intensity))
    return path


def test_the_forest_on_handmade_features_learns() -> None:
    task, truth = _made(LearningBudget())
    outcome = handmade_forest(task, side=48)
    assert outcome.masks[0].dtype == np.uint8
    assert set(np.unique(outcome.masks[0])) <= {0, 3, 7}
    assert _dice(outcome.masks[0], truth) > 0.85
    np.testing.assert_array_equal(outcome.masks[0], handmade_forest(task, side=48).masks[0])


def test_the_forest_on_a_backbone_learns(backbone: Path) -> None:
    task, truth = _made(LearningBudget())
    assert _dice(backbone_forest(task, backbone, side=48).masks[0], truth) > 0.7


def test_ddpm_seg_learns_and_shares_its_steps(backbone: Path) -> None:
    task, truth = _made(LearningBudget(iterations=150))
    outcome = ddpm_seg(task, backbone, side=48, voters=2)
    assert outcome.steps == 300
    assert _dice(outcome.masks[0], truth) > 0.6


def test_ddpm_seg_features_of_a_pixel_do_not_depend_on_other_pixels(backbone: Path) -> None:
    from napari_diffseg.network.backbone import load_backbone

    features = PixelFeatures(load_backbone(backbone), torch.device("cpu"), seed=0)
    image = torch.rand(1, 1, 32, 32)
    pixels = torch.cartesian_prod(torch.arange(32), torch.arange(32))
    everything = torch.cat(list(features(image, pixels)))
    few = torch.cat(list(features(image, pixels[[5, 700]])))
    torch.testing.assert_close(few, everything[[5, 700]])
    # The finest of the maps is read at pixel centres: no interpolation blurs it.
    assert everything.shape == (
        1024,
        3 * sum(features.unet.decoder_channels[b] for b in features.blocks),
    )


@pytest.mark.parametrize("name", SMOKED)
def test_monai_rivals_run_two_steps(name: str) -> None:
    task, _ = _made(LearningBudget(iterations=2))
    outcome = train_network(task, name, side=64)
    assert outcome.steps == 2
    assert outcome.masks[0].shape == task.test[0].hu.shape
    assert "random weights" in outcome.note


def test_a_rival_learns() -> None:
    torch.manual_seed(0)
    task, truth = _made(LearningBudget(iterations=120))
    assert _dice(train_network(task, "attention-unet", side=32).masks[0], truth) > 0.5


def test_our_recipes_run_on_the_same_task(backbone: Path) -> None:
    task, _ = _made(LearningBudget(iterations=2))
    for name in ("ours", "decoder@100", "decoder-m", "linear", "scratch"):
        outcome = find_method(name).run(task, Options(backbone=backbone))
        assert outcome.masks[0].shape == task.test[0].hu.shape
        assert "tiny" in outcome.note


@pytest.mark.parametrize(
    ("name", "hidden", "timestep"),
    [("linear", 128, 0), ("linear-m", 256, 0), ("decoder-l@300", 256, 300), ("scratch", 128, 0)],
)
def test_names_choose_the_width_of_the_head_and_the_timestep(
    name: str, hidden: int, timestep: int, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Segmenter] = []

    def follow(segmenter: Segmenter, *arguments: object, **more: object) -> Iterator[object]:
        trained.append(segmenter)
        return predict(segmenter, *arguments, **more)

    monkeypatch.setattr(ours, "predict", follow)
    task, _ = _made(LearningBudget(iterations=1))
    find_method(name).run(task, Options(backbone=backbone))
    assert [(one.config.hidden, one.config.timestep) for one in trained] == [(hidden, timestep)]
    assert find_method(name).large == ("-l" in name)


def test_nnunet_gets_what_scribbles_leave_open_as_its_ignore_label(tmp_path: Path) -> None:
    task, truth = _made(LearningBudget(iterations=1), full=False)
    nnunet.write_raw(task, tmp_path)
    raw = tmp_path / "raw" / nnunet.DATASET
    about = json.loads((raw / "dataset.json").read_text())
    assert about["labels"]["ignore"] == 3
    first = np.asarray(nib.load(raw / "labelsTr" / "case00000.nii.gz").dataobj).T[0]
    np.testing.assert_array_equal(first == 3, truth[1] == 0)
    np.testing.assert_array_equal(first == 2, truth[1] == 7)


def test_method_names() -> None:
    assert find_method("linear@300").title.endswith("t = 300")
    for wrong in ("nothing", "nearest-copy@3", "decoder@x"):
        with pytest.raises(MethodError, match="no method"):
            find_method(wrong)
    assert set(NETWORKS) < set(METHODS)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import importlib.util

    def absent(name: str, *rest: object) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(NetworkError, match="make benchmark-env"):
        NETWORKS["unetplusplus"].build(3, 64, True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(nnunet.NnunetError, match="make benchmark-env"):
        nnunet.nnunet_2d(_made(LearningBudget(iterations=1))[0])


def test_nnunet_raw_data_has_one_case_a_painted_slice(tmp_path: Path) -> None:
    task, truth = _made(LearningBudget(iterations=1))
    nnunet.write_raw(task, tmp_path)
    raw = tmp_path / "raw" / nnunet.DATASET
    about = json.loads((raw / "dataset.json").read_text())
    assert about["numTraining"] == 2
    assert sorted(about["labels"].values()) == [0, 1, 2]
    stored = np.asarray(nib.load(raw / "labelsTr" / "case00001.nii.gz").dataobj).T
    np.testing.assert_array_equal(stored[0] == 2, truth[5] == 7)
    image = nib.load(raw / "imagesTr" / "case00001_0000.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T[0], task.test[0].hu[5])
    assert image.header.get_zooms() == (2.0, 2.0, 3.0)
    assert len(list((tmp_path / "test").iterdir())) == 1


def test_augmentation_moves_image_and_classes_together() -> None:
    classes = torch.zeros(4, 64, 64, dtype=torch.long)
    classes[:, 20:44, 24:40] = 1
    x, y = augmented(classes[:, None] * 2.0 - 1, classes, torch.Generator().manual_seed(0))
    assert set(y.unique().tolist()) <= {0, 1, UNKNOWN}
    bright = x[:, 0] > 0
    known = y != UNKNOWN
    assert ((bright == (y == 1)) | ~known).float().mean() > 0.97
    assert not torch.equal(y, classes)


def test_scribbles_leave_the_rest_unknown() -> None:
    task, _ = _made(LearningBudget(), full=False)
    intensity = task_intensity(task)
    assert intensity.hu[0] > 100
    _, classes = training_pairs(task, 32, intensity)
    inside = classes[:, 8:24, 4:28]  # the grid is square, the slice is not: air is added
    assert set(inside.unique().tolist()) == {1, 2, UNKNOWN}
    grid = square_grid(task.test[0], 32, intensity)
    assert grid.size == (32, 32)


def test_budgets() -> None:
    assert share_left(LearningBudget(iterations=10), 4, 99.0) == pytest.approx(0.6)
    assert share_left(LearningBudget(seconds=10), 4, 4.0) == pytest.approx(0.6)
    assert share_left(LearningBudget(seconds=10), 4, 11.0) == 0
    assert share_left(LearningBudget(seconds=10), 0, 11.0) > 0
    with pytest.raises(ValueError, match="needs a budget"):
        share_left(LearningBudget(), 0, 0.0)


def test_imagenet_input_is_scaled_as_imagenet_is() -> None:
    seen = []
    network = torch.nn.Identity()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ImageNetInput(network)(torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(
        seen[0][0, :, 0, 0], torch.tensor([0.0655, 0.1964, 0.4178]), atol=1e-3, rtol=0
    )
