"""Coronal and sagittal planes: where they lie, and what is learnt and propagated from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_tools import DISC, INTENSITY, SPOT, dice, disc_volume, paint, tiny_backbone, volume_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice, TrainError
from napari_diffseg.engine.crossing import (
    RegistrationAcross,
    crossing_of,
    on_grid,
    register_planes,
    seeds_on_grid,
    sources_on_grid,
)
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.fusion import FusedLabels
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.planes import (
    ARRAY_AXIS,
    Axis,
    PaintedPlane,
    crossed,
    crossed_slices,
    with_planes,
)
from napari_diffseg.engine.predict import posterior, predict
from napari_diffseg.engine.progress import Progress, result_of
from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.losses import UNKNOWN

_QUICK = TrainSettings(iterations=10, device="cpu", grid=40)
_VOLUME, _TRUTH = disc_volume((16, 48, 40))
_LABELS = (DISC, SPOT)
axes: st.SearchStrategy[Axis] = st.sampled_from(["coronal", "sagittal"])


def _plane(truth: NDArray[np.uint8], axis: Axis, index: int, full: bool = True) -> PaintedPlane:
    return PaintedPlane(axis, index, np.take(truth, index, ARRAY_AXIS[axis]), full)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_plane_says_of_each_slice_what_the_volume_holds(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    truth = np.random.default_rng(0).integers(0, 4, shape).astype(np.uint8)
    truth[truth == 3] = BACKGROUND
    planes = []
    for axis in data.draw(st.lists(axes, min_size=1, max_size=4)):
        index = data.draw(st.integers(0, shape[ARRAY_AXIS[axis]] - 1))
        planes.append(_plane(truth, axis, index, data.draw(st.booleans())))
    known = np.zeros(shape, bool)
    for plane in planes:
        where = (slice(None),) * ARRAY_AXIS[plane.axis] + (plane.index,)
        known[where] |= (truth[where] != 0) | plane.full
    for z in range(shape[0]):
        found = crossed(planes, z, shape)
        np.testing.assert_array_equal(found != 0, known[z])
        np.testing.assert_array_equal(found[known[z]] % BACKGROUND, truth[z][known[z]] % BACKGROUND)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_planes_flip_with_the_volume(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(2, 9)] * 3))
    truth = np.random.default_rng(1).integers(0, 3, shape).astype(np.uint8)
    axis, flipped = data.draw(axes), data.draw(st.integers(0, 2))
    index = data.draw(st.integers(0, shape[ARRAY_AXIS[axis]] - 1))
    other = shape[flipped] - 1 - index if flipped == ARRAY_AXIS[axis] else index
    one, two = _plane(truth, axis, index), _plane(np.flip(truth, flipped), axis, other)
    whole, turned = (
        np.stack([crossed([plane], z, shape) for z in range(shape[0])]) for plane in (one, two)
    )
    np.testing.assert_array_equal(np.flip(whole, flipped), turned)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_plane_on_the_grid_is_the_nearest_row_of_every_slice(data: st.DataObject) -> None:
    """Whatever the pixels' size, and whether the grid is finer or coarser than they are."""
    spacing = data.draw(st.tuples(*[st.sampled_from([0.8, 2.0, 5.0])] * 3))
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(20, 70), st.integers(20, 70)))
    hu = np.zeros(shape, np.int16)
    volume = volume_of(hu, spacing)
    grid = SliceGrid.of(volume, data.draw(st.sampled_from([32, 48])), 4, INTENSITY)
    truth = np.random.default_rng(2).choice([0, DISC.id, SPOT.id], shape).astype(np.uint8)
    axis = data.draw(axes)
    index = data.draw(st.integers(0, shape[ARRAY_AXIS[axis]] - 1))
    plane = _plane(truth, axis, index)
    place = on_grid(grid, axis, index)
    assert place is not None
    low, high = grid.box[:2] if axis == "coronal" else grid.box[2:]
    centre = low + (place + 0.5) * (high - low) / grid.size[ARRAY_AXIS[axis] - 1]
    pixel = (high - low) / grid.size[ARRAY_AXIS[axis] - 1]
    assert abs(centre - index - 0.5) <= max(pixel, 1) / 2 + 1e-9
    (source,) = sources_on_grid(grid, [plane], _LABELS)[axis].values()
    assert source.shape == (shape[0], grid.size[2 - ARRAY_AXIS[axis]])
    seeds = seeds_on_grid(grid, [plane], _LABELS, shape)
    assert seeds.shape == (shape[0], *grid.size)
    line = (seeds[:, place] if axis == "coronal" else seeds[:, :, place]).long()
    assert torch.equal(line, source)
    assert (seeds != UNKNOWN).sum() == source.numel()
    start = grid.box[2] if axis == "coronal" else grid.box[0]
    across = np.take(truth, index, ARRAY_AXIS[axis])
    n, width = source.shape[1], (grid.box[3] - start if axis == "coronal" else grid.box[1] - start)
    for column in range(n):
        at = start + int((column + 0.5) * width / n)
        known = across[:, at] if 0 <= at < across.shape[1] else np.zeros(shape[0])
        np.testing.assert_array_equal(source[:, column] > 0, known > 0)


def _still(volume: Volume, grid: SliceGrid) -> Registration:
    nothing = np.zeros((len(volume.hu) - 1, 2, *grid.size), np.float16)
    return Registration(nothing, nothing.copy())


def _fused(planes: list[PaintedPlane], slices: dict[int, NDArray[np.uint8]]) -> FusedLabels:
    grid = SliceGrid((0, 48, 0, 40), (48, 40), (48, 40), INTENSITY)
    registration = result_of(register_planes(_VOLUME, grid, planes, _still(_VOLUME, grid)))
    crossing = crossing_of(_VOLUME, grid, planes, _LABELS, registration)
    assert crossing is not None
    classes = np.zeros(256, np.int64)
    classes[[DISC.id, SPOT.id]] = 1, 2
    sources = {z: torch.from_numpy(classes[mask]) for z, mask in slices.items()}
    return FusedLabels(registration, sources, 3, None, crossing)


@pytest.mark.parametrize(("axis", "index"), [("coronal", 18), ("sagittal", 20)])
def test_labels_are_propagated_from_a_plane_alone(axis: Axis, index: int) -> None:
    fused = _fused([_plane(_TRUTH, axis, index)], {})
    mask = np.stack([fused.at(z).argmax(dim=0).numpy() for z in range(16)]).astype(np.uint8)
    near = (slice(None),) * ARRAY_AXIS[axis] + (slice(index - 3, index + 4),)
    assert dice(mask[near], (_TRUTH[near] == DISC.id).astype(np.uint8), 1) > 0.85
    assert fused.distance(5) == 1


def test_a_class_no_slice_shows_comes_from_the_plane() -> None:
    without = {0: np.where(_TRUTH[0] == SPOT.id, 0, _TRUTH[0])}
    fused = _fused([_plane(_TRUTH, "coronal", 33)], without)
    assert (fused.at(9).argmax(dim=0).numpy()[33] == 2).sum() == 5


def test_planes_that_contradict_the_slices_are_not_propagated() -> None:
    wrong = replace(_plane(_TRUTH, "coronal", 18), mask=np.full((16, 40), SPOT.id, np.uint8))
    slices = {z: _TRUTH[z] for z in (1, 14)}
    fused = _fused([wrong], slices)
    assert not fused.helps
    assert _fused([_plane(_TRUTH, "coronal", 18)], slices).helps
    alone = fused.at(8)
    assert alone.argmax(dim=0)[18, 2] == 0


def test_scribbled_slices_are_fused_but_judge_nothing() -> None:
    scribbled = torch.full((48, 40), UNKNOWN)
    scribbled[18, 18:22] = 1
    grid = SliceGrid((0, 48, 0, 40), (48, 40), (48, 40), INTENSITY)
    plane = _plane(_TRUTH, "coronal", 18)
    registration = result_of(register_planes(_VOLUME, grid, [plane], _still(_VOLUME, grid)))
    crossing = crossing_of(_VOLUME, grid, [plane], _LABELS, registration)
    assert crossing is not None
    full = torch.from_numpy((_TRUTH[2] == DISC.id).astype(np.int64))
    half = torch.full((3, 48, 40), 1 / 3)
    fused = FusedLabels(registration, {2: full, 3: full, 9: scribbled}, 3, lambda z: half, crossing)
    assert fused.helps
    assert fused.at(7).shape == (3, 48, 40)


def test_painted_rows_are_kept_and_their_neighbours_follow() -> None:
    fused = _fused([_plane(_TRUTH, "coronal", 18)], {0: np.zeros((48, 40), np.uint8)})
    image = torch.zeros(48, 40)
    logits = torch.zeros(3, 48, 40)
    logits[0] = 6.0  # the head has never seen a structure
    p = posterior(logits, fused, 8, image)
    truth = torch.from_numpy((_TRUTH[8, 18] == DISC.id).astype(np.int64))
    assert torch.equal(p.argmax(dim=0)[18], truth)
    assert torch.equal(posterior(logits, fused, 8, None).argmax(dim=0)[18], truth)
    far = logits.softmax(dim=0)[1, 40, 5]
    assert p[1, 19, 21] > 2 * far


def _last(planes: list[PaintedPlane], painted: tuple[PaintedSlice, ...]) -> Progress:
    *_, last = finetune(_VOLUME, painted, _LABELS, tiny_backbone(), _QUICK, planes=planes)
    return last


def test_training_takes_planes_and_prediction_keeps_them() -> None:
    planes = [_plane(_TRUTH, "coronal", 18), _plane(_TRUTH, "sagittal", 20)]
    last = _last(planes, paint(_TRUTH, 1))
    assert isinstance(last.registration, RegistrationAcross)
    assert set(last.registration.across) == {"coronal", "sagittal"}
    assert last.segmenter is not None
    plain = Registration(last.registration.up, last.registration.down)
    for known in (last.registration, plain):  # the latter as a saved session has it
        found = predict(
            last.segmenter, _VOLUME, paint(_TRUTH, 1), registration=known, planes=planes
        )
        mask = np.stack([one.mask for one in sorted(found, key=lambda one: one.z)])
        assert dice(mask[:, 18], _TRUTH[:, 18], DISC.id) > 0.8


def test_training_takes_planes_alone_and_scribbles_on_them() -> None:
    mask = np.take(_TRUTH, 18, 1).copy()
    mask[:, :6] = BACKGROUND
    scribbled = PaintedPlane("coronal", 18, mask, full=False)
    for planes in ([_plane(_TRUTH, "sagittal", 20)], [scribbled]):
        last = _last(planes, ())
        assert last.segmenter is not None
        found = next(
            predict(last.segmenter, _VOLUME, registration=last.registration, planes=planes)
        )
        assert found.mask.shape == (48, 40)


def test_slices_to_learn_from_are_spread_and_hold_structures() -> None:
    truth = np.zeros((40, 12, 12), np.uint8)
    truth[10:30, 4:8, 4:8] = 1
    taken = crossed_slices([_plane(truth, "coronal", 5)], truth.shape, 5, without=[10])
    assert [slice_.z for slice_ in taken] == [11, 15, 20, 25, 29]
    assert not any(slice_.full for slice_ in taken)
    assert (taken[0].mask[5] != 0).all()
    assert (np.delete(taken[0].mask, 5, axis=0) == 0).all()


def test_scribbles_on_a_plane_only_are_what_the_plane_says() -> None:
    plane = _plane(_TRUTH, "coronal", 18)
    on_plane, beside = np.zeros((2, 48, 40), np.uint8)
    on_plane[18, 18:22] = DISC.id
    beside[30, 18:22] = SPOT.id
    slices = [
        PaintedSlice(2, _TRUTH[2]),
        PaintedSlice(4, on_plane, False),
        PaintedSlice(6, beside, False),
    ]
    joined = with_planes(slices, [plane], _TRUTH.shape)
    assert [slice_.z for slice_ in joined] == [2, 6]
    assert (joined[1].mask[18] != 0).all()
    np.testing.assert_array_equal(joined[1].mask[30], beside[30])
    assert with_planes(slices, [], _TRUTH.shape) == tuple(slices)


@pytest.mark.parametrize(
    ("plane", "said"),
    [
        (PaintedPlane("coronal", 48, np.ones((16, 40), np.uint8)), "planes end at 47"),
        (PaintedPlane("sagittal", 3, np.ones((16, 40), np.uint8)), "the volume has \\(16, 48\\)"),
    ],
)
def test_planes_that_do_not_fit_are_refused(plane: PaintedPlane, said: str) -> None:
    with pytest.raises(TrainError, match=said):
        _last([plane], paint(_TRUTH, 1))
