"""Training on painted slices: it learns, it reports, it can be left, it repeats."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from engine_tools import DISC, SHAPE, SPOT, dice, disc_volume, paint, tiny_backbone, volume_of
from torch.optim.optimizer import register_optimizer_step_post_hook

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice, TrainError, class_targets
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.pixel_head import PixelBank
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.network.device import DeviceError, pick_device
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter

_VOLUME, _TRUTH = disc_volume()
_LABELS = (DISC, SPOT)
_QUICK = TrainSettings(iterations=3, device="cpu")


def _steps(
    settings: TrainSettings = _QUICK, painted: tuple[PaintedSlice, ...] | None = None
) -> Iterator[Progress]:
    painted = paint(_TRUTH, 1, 6) if painted is None else painted
    return finetune(_VOLUME, painted, _LABELS, tiny_backbone(), settings)


def _model(progress: list[Progress]) -> Segmenter:
    assert progress[-1].segmenter is not None
    return progress[-1].segmenter


@pytest.fixture
def optimiser_steps() -> Iterator[list[int]]:
    counted = [0]

    def count(*_: object) -> None:
        counted[0] += 1

    handle = register_optimizer_step_post_hook(count)
    yield counted
    handle.remove()


def _learns(device: str) -> None:
    settings = TrainSettings(iterations=90, device=device, grid=40)
    painted = paint(_TRUTH, 1, 6)
    segmenter = _model(list(_steps(settings, painted)))
    found = {one.z: one.mask for one in predict(segmenter, _VOLUME, painted, device=device)}
    unseen = [z for z in range(SHAPE[0]) if z not in (1, 6)]
    mask = np.stack([found[z] for z in unseen])
    assert dice(mask, _TRUTH[unseen], DISC.id) > 0.8
    assert dice(mask, _TRUTH[unseen], SPOT.id) > 0.6


def test_learns_a_disc_from_two_slices() -> None:
    _learns("cpu")


def test_self_training_holds_where_contrast_is_another() -> None:
    volume, truth = disc_volume((24, *SHAPE[1:]), drift=0.2)
    settings = TrainSettings(strategy="linear", iterations=300, device="cpu", grid=48)
    learnt = _model(
        list(finetune(volume, paint(truth, 4, 12, 20), _LABELS, tiny_backbone(), settings))
    )
    enhanced = volume_of(np.where(volume.hu > -500, volume.hu + 100, volume.hu).astype(np.int16))
    found = sorted(predict(learnt, enhanced, device="cpu"), key=lambda one: one.z)
    mask = np.stack([one.mask for one in found])
    assert dice(mask, truth, DISC.id) > 0.96
    assert dice(mask, truth, SPOT.id) > 0.96


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_learns_a_disc_from_two_slices_on_cuda() -> None:
    _learns("cuda")


def test_papers_recipe_lowers_its_loss() -> None:
    settings = TrainSettings("decoder", "paper", iterations=40, device="cpu")
    losses = [one.loss for one in _steps(settings) if one.loss is not None]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def _scribbles(hidden: int) -> tuple[PaintedSlice, ...]:
    """Strokes inside and around the disc; ``hidden`` fills what nobody painted."""
    painted = []
    for z in (1, 6):
        mask = np.zeros(SHAPE[1:], np.uint8)
        mask[17:20, 14:21] = DISC.id
        mask[32:34, 17:19] = SPOT.id
        mask[5:9, 8:30] = BACKGROUND
        mask[26:28, 8:30] = BACKGROUND
        painted.append(PaintedSlice(z, mask, full=bool(hidden)))
    return tuple(painted)


@pytest.mark.parametrize("recipe", ["app", "paper"])
def test_unknown_pixels_are_never_trained(recipe: str) -> None:
    """The image under unknown pixels differs in class only; nothing there may be learnt."""
    settings = TrainSettings("linear", recipe, iterations=40, device="cpu", grid=40)
    scribbled = _model(list(_steps(settings, _scribbles(0))))
    in_full = _model(list(_steps(settings, _scribbles(1))))
    shares, truth = [], disc_volume()[1]
    for segmenter in (scribbled, in_full):
        found = np.stack([one.mask for one in predict(segmenter, _VOLUME, device="cpu")])
        disc = truth == DISC.id
        disc[:, 16:21, 13:22] = False  # what was painted
        shares.append((found[disc] == DISC.id).mean())
    # As background the rest of the disc is held down; as unknown it follows the strokes.
    assert shares[0] > 0.5
    assert shares[0] > shares[1]


def test_pixel_bank_never_samples_unknown_pixels() -> None:
    target = torch.full((1, 12, 10), UNKNOWN)
    target[0, 2, 3:6], target[0, 8, 1:5], target[0, 0, :] = 1, 2, 0
    # One channel holds the class itself, so features and classes can be compared.
    maps = (target[:, None].float(), torch.zeros(1, 3, 6, 5))
    bank = PixelBank()
    bank.add(maps, target, torch.Generator().manual_seed(0), 50, 100, weight=0.5)
    classes, features = torch.cat(bank.classes), torch.cat(bank.features)
    assert set(classes.tolist()) == {0, 1, 2}
    assert torch.equal(features[:, 0].long(), classes)
    assert (classes == 1).sum() == 3
    assert (classes == 2).sum() == 4
    assert set(torch.cat(bank.weights).tolist()) == {0.5}


def test_iterations_are_optimiser_steps(optimiser_steps: list[int]) -> None:
    for recipe in ("paper", "app"):
        for count in (1, 5):
            optimiser_steps[0] = 0
            list(_steps(TrainSettings("linear", recipe, iterations=count, device="cpu")))
            assert optimiser_steps[0] == count, recipe


@pytest.mark.parametrize("recipe", ["paper", "app"])
@pytest.mark.parametrize("strategy", ["linear", "decoder", "scratch"])
def test_progress_tells_all_and_ends_with_the_segmenter(strategy: str, recipe: str) -> None:
    settings = TrainSettings(strategy, recipe, iterations=4, device="cpu")
    seen = list(_steps(settings))
    *before, last = seen
    assert all(one.segmenter is None for one in before)
    assert last.segmenter is not None
    assert not last.segmenter.training
    assert last.segmenter.labels == _LABELS
    assert last.segmenter.config.strategy == strategy
    assert last.remaining == 0
    times = [one.seconds for one in seen]
    assert times == sorted(times)
    assert all(one.stage for one in seen)
    assert all(one.steps is None or 0 <= one.step <= one.steps for one in seen)
    losses = [one.loss for one in seen if one.loss is not None]
    assert len(losses) >= 4
    assert np.isfinite(losses).all()


def test_time_budget_ends_the_training() -> None:
    began = time.perf_counter()
    settings = TrainSettings("decoder", "paper", seconds=0.5, device="cpu")
    seen = list(_steps(settings))
    assert 0.5 <= time.perf_counter() - began < 20
    left = [one.remaining for one in seen if one.remaining is not None]
    assert left == sorted(left, reverse=True)
    assert seen[-1].segmenter is not None


@pytest.mark.parametrize("recipe", ["paper", "app"])
def test_may_be_closed_at_any_yield(recipe: str) -> None:
    settings = TrainSettings("decoder", recipe, iterations=3, device="cpu")
    total = len(list(_steps(settings)))
    assert total > 4
    for stop in range(1, total, max(1, total // 4)):
        steps = _steps(settings)
        for _ in range(stop):
            next(steps)
        steps.close()
        assert next(steps, None) is None
    assert _model(list(_steps(settings))).labels == _LABELS


@pytest.mark.parametrize("recipe", ["paper", "app"])
def test_same_seed_gives_the_same_model_and_another_seed_another(recipe: str) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        settings = TrainSettings("decoder", recipe, iterations=6, device="cpu", seed=seed)
        torch.rand(seed + 1)  # what ran before must not matter
        return _model(list(_steps(settings))).state_dict()

    first, again, other = trained(3), trained(3), trained(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_running_out_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    decode = Segmenter.decode

    def scarce(self: Segmenter, features):  # type: ignore[no-untyped-def]
        sizes.append(len(features.bottleneck))
        if len(sizes) == 2:
            raise torch.OutOfMemoryError("no room")
        return decode(self, features)

    monkeypatch.setattr(Segmenter, "decode", scarce)
    seen = list(_steps(TrainSettings("decoder", "paper", iterations=4, device="cpu")))
    assert sizes == [4, 4, 2, 2, 2]
    notes = [one.note for one in seen if one.note]
    assert len(notes) == 1
    assert "memory" in notes[0]
    assert "2 slices" in notes[0]
    assert seen[-1].segmenter is not None


def test_too_little_memory_for_one_slice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Segmenter, "decode", full)
    with pytest.raises(DeviceError, match="the GPU ran out of memory, even with one slice"):
        list(_steps(TrainSettings("decoder", "paper", iterations=4, device="cpu")))


def test_too_little_main_memory_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        torch.empty(2**55)  # torch raises a RuntimeError

    monkeypatch.setattr(Segmenter, "decode", full)
    with pytest.raises(MemoryError, match="allocate memory"):
        list(_steps(TrainSettings("decoder", "paper", iterations=4, device="cpu")))


def test_goes_on_from_a_trained_model() -> None:
    first = _model(list(_steps(TrainSettings("linear", "paper", iterations=30, device="cpu"))))
    more = TrainSettings("linear", "paper", iterations=3, device="cpu")
    again = [
        one.loss
        for one in finetune(_VOLUME, paint(_TRUTH, 1, 6), _LABELS, first, more)
        if one.loss is not None
    ]
    fresh = [one.loss for one in _steps(more) if one.loss is not None]
    assert np.mean(again) < np.mean(fresh)


def test_class_targets_of_full_and_scribbled_slices() -> None:
    mask = np.array([[0, DISC.id], [SPOT.id, BACKGROUND]], np.uint8)
    classes = class_targets([PaintedSlice(0, mask), PaintedSlice(4, mask, full=False)], _LABELS)
    assert classes.tolist() == [[[0, 1], [2, 0]], [[UNKNOWN, 1], [2, 0]]]


def _plane(value: int) -> np.ndarray:
    return np.full(SHAPE[1:], value, np.uint8)


@pytest.mark.parametrize(
    ("painted", "said"),
    [
        ((), "no slice is painted: paint"),
        ((PaintedSlice(2, _plane(9)),), "slice 2 holds id 9, which has no label"),
        ((PaintedSlice(2, _plane(0)),), "only background is painted: paint"),
        ((PaintedSlice(2, _plane(0), False),), "only background is painted: paint"),
        ((PaintedSlice(2, _plane(BACKGROUND), False),), "only background is painted: paint"),
    ],
)
def test_nothing_to_learn_from(painted: tuple[PaintedSlice, ...], said: str) -> None:
    with pytest.raises(TrainError, match=said):
        next(_steps(painted=painted))


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestep": -1},
        {"timestep": 1001},
        {"iterations": 0},
        {"seconds": 0.0},
        {"seconds": np.inf},
    ],
)
def test_settings_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(TrainError):
        TrainSettings(**wrong)  # type: ignore[arg-type]


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(DeviceError, match="no abacus device"):
        pick_device("abacus")


def test_every_slice_painted_leaves_nothing_to_label() -> None:
    seen = list(_steps(painted=paint(_TRUTH, *range(SHAPE[0]))))
    assert seen[-1].segmenter is not None


def test_feature_extraction_goes_on_with_fewer_slices_when_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode, calls = Segmenter.encode, []

    def scarce(self: Segmenter, x: torch.Tensor):  # type: ignore[no-untyped-def]
        calls.append(len(x))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room")
        return encode(self, x)

    monkeypatch.setattr(Segmenter, "encode", scarce)
    seen = list(_steps())
    assert calls[:3] == [2, 1, 1]
    assert sum("memory" in one.note for one in seen) == 1
    assert seen[-1].segmenter is not None


@pytest.mark.parametrize(
    ("slice_", "says"),
    [
        (PaintedSlice(40, _TRUTH[1]), "slice 40"),
        (PaintedSlice(1, np.ones((9, 9), np.uint8)), "pixels"),
    ],
)
def test_paint_of_another_volume_is_refused(slice_: PaintedSlice, says: str) -> None:
    with pytest.raises(TrainError, match=says):
        list(_steps(painted=(slice_,)))


@pytest.mark.parametrize("grid", [-5, 1, 5000])
def test_senseless_grid_is_refused(grid: int) -> None:
    with pytest.raises(TrainError, match="grid"):
        TrainSettings(grid=grid)


def test_apps_recipe_trains_what_the_strategy_says() -> None:
    start = tiny_backbone()
    seen = list(finetune(_VOLUME, paint(_TRUTH, 1, 6), _LABELS, start, _eight("decoder")))
    assert sum(one.loss is not None for one in seen) == 8
    assert not _same(start.unet.decoder, _model(seen).unet.decoder)
    assert _same(start.unet.encoder, _model(seen).unet.encoder)
    linear = list(finetune(_VOLUME, paint(_TRUTH, 1, 6), _LABELS, start, _eight("linear")))
    assert sum(one.loss is not None for one in linear) == 8
    assert _same(start.unet.decoder, _model(linear).unet.decoder)


def _eight(strategy: Literal["decoder", "linear"]) -> TrainSettings:
    return TrainSettings(strategy, iterations=8, device="cpu")


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
