"""Registration of neighbouring slices, and labels propagated along it."""

from __future__ import annotations

import gc
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from engine_tools import DISC, INTENSITY, dice, disc_volume, volume_of
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.propagation import PropagatedLabels
from napari_diffseg.engine.registration import (
    Registration,
    displacement,
    register,
    soft_tissue,
)
from napari_diffseg.network.losses import UNKNOWN


def _registered(hu: NDArray[np.int16]) -> tuple[SliceGrid, Registration, list[int]]:
    volume = volume_of(hu)
    shape = hu.shape[1], hu.shape[2]
    grid = SliceGrid((0, shape[0], 0, shape[1]), shape, shape, INTENSITY)
    steps = register(volume, grid)
    done = []
    while True:
        try:
            done.append(next(steps))
        except StopIteration as stop:
            return grid, stop.value, done


def test_displacements_are_those_of_simpleitk() -> None:
    rng = np.random.default_rng(0)
    planes = ndimage.gaussian_filter(rng.normal(size=(3, 48, 40)), (0, 4, 4))
    image = torch.from_numpy(planes / np.abs(planes).max()).float()
    # A slice and a distorted copy of it, and two that are not alike.
    y, x = np.mgrid[:48, :40]
    where = [y + 2 * np.sin(x / 9), x + 1.5 * np.cos(y / 7)]
    distorted = ndimage.map_coordinates(image[0].numpy(), where, order=1, mode="nearest")
    moving = torch.stack([torch.from_numpy(distorted), image[2]])
    found = displacement(image[:2], moving)
    assert found.shape == (2, 2, 48, 40)
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(15)
    demons.SetStandardDeviations(0.7)
    for one, (fixed, moved) in enumerate(zip(image[:2], moving, strict=True)):
        field = demons.Execute(*(sitk.GetImageFromArray(i.numpy()) for i in (fixed, moved)))
        wanted = np.moveaxis(sitk.GetArrayFromImage(field)[..., ::-1], -1, 0)
        assert np.abs(wanted).max() > 1
        off = np.abs(found[one].numpy() - wanted)
        # Edges are treated another way, which a few pixels beside them feel.
        assert np.median(off) < 1e-3
        assert np.quantile(off[:, 8:-8, 8:-8], 0.95) < 0.01
        assert torch.equal(displacement(image[one], moving[one]), found[one])


def test_the_last_few_pairs_are_registered_too() -> None:
    planes = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(12, 32, 32)), (2, 3, 3))
    grid, registration, done = _registered((2000 * planes / planes.max()).astype(np.int16))
    assert done[-1] == 11
    assert done == sorted(done)
    image = soft_tissue(grid, (2000 * planes / planes.max()).astype(np.int16))
    for z in (0, 7, 8, 10):
        assert np.allclose(registration.up[z], displacement(image[z], image[z + 1]), atol=0.01)
        assert np.allclose(registration.down[z], displacement(image[z + 1], image[z]), atol=0.01)


def _still(count: int, rows: int, columns: int) -> Registration:
    nothing = np.zeros((count - 1, 2, rows, columns), np.float16)
    return Registration(nothing, nothing.copy())


@pytest.mark.parametrize("shift", [(0, 2), (2, 0), (-1, 2)])
def test_known_shift_is_recovered_within_a_pixel(shift: tuple[int, int]) -> None:
    y, x = np.mgrid[:64, :64]
    disc = np.where(np.hypot(y - 30, x - 32) < 14, 180.0, -60.0)
    plane = ndimage.gaussian_filter(disc, 1.5)
    hu = np.stack([plane, np.roll(plane, shift, (0, 1))]).astype(np.int16)
    _, registration, done = _registered(hu)
    assert done == [1]
    # Along a straight edge only the part across it can be seen, so compare around the whole rim.
    rim = np.abs(np.hypot(y - 30, x - 32) - 14) < 2
    ry, rx = (y - 30)[rim] / 14, (x - 32)[rim] / 14
    seen = registration.up[0, 0][rim] * ry + registration.up[0, 1][rim] * rx
    expected = shift[0] * ry + shift[1] * rx
    assert np.abs(seen - expected).mean() < 0.6
    assert np.abs(seen - expected).max() < 2
    back = registration.down[0].astype(np.float32)
    rim = np.roll(rim, shift, (0, 1))
    ry = np.roll((y - 30) / 14, shift, (0, 1))[rim]
    rx = np.roll((x - 32) / 14, shift, (0, 1))[rim]
    assert (
        np.abs(back[0][rim] * ry + back[1][rim] * rx + shift[0] * ry + shift[1] * rx).mean() < 0.6
    )


def test_equal_slices_do_not_move() -> None:
    volume, _ = disc_volume(drift=0)
    _, registration, done = _registered(np.repeat(volume.hu[:1], 4, axis=0))
    assert done == [3]
    assert np.abs(registration.up).max() < 0.05
    assert np.abs(registration.down).max() < 0.05


def test_labels_are_propagated_along_a_slanted_cylinder() -> None:
    _, truth = disc_volume((9, 48, 40), drift=1.0)
    hu = np.where(truth == DISC.id, 180, 0).astype(np.int16)
    classes = (truth == DISC.id).astype(np.uint8)
    _, registration, _ = _registered(hu)
    sources = {z: torch.from_numpy(classes[z].astype(np.int64)) for z in (0, 8)}
    propagated = PropagatedLabels(registration, sources, 2)
    for z in range(2, 7):
        propagated_mask = propagated.at(z).argmax(dim=0).numpy().astype(np.uint8)
        nearest = classes[0 if z < 4 else 8]
        assert dice(propagated_mask, classes[z], 1) > dice(nearest, classes[z], 1) + 0.05
        assert dice(propagated_mask, classes[z], 1) > 0.85


def _bar(rows: int = 16, columns: int = 12) -> torch.Tensor:
    source = torch.zeros(rows, columns, dtype=torch.long)
    source[4:10, 3:8] = 1
    source[12:, :] = 2
    return source


@pytest.mark.parametrize("source", [0, 3, 6])
def test_one_source_reaches_both_ends_and_fades(source: int) -> None:
    propagated = PropagatedLabels(_still(7, 16, 12), {source: _bar()}, 3)
    trust = []
    for z in sorted(range(7), key=lambda z: abs(z - source)):
        p = propagated.at(z)
        assert p.shape == (3, 16, 12)
        assert torch.equal(p.argmax(dim=0), _bar())
        torch.testing.assert_close(p.sum(dim=0), torch.ones(16, 12), atol=0.02, rtol=0)
        trust.append((abs(z - source), float(p.amax(dim=0).mean())))
        assert propagated.distance(z) == abs(z - source)
    assert trust[0][1] == 1
    for (near, more), (far, less) in pairwise(trust):
        assert more > less if near < far else more == pytest.approx(less, abs=1e-3)


def test_nearer_source_outweighs_the_farther_one() -> None:
    empty = torch.zeros(16, 12, dtype=torch.long)
    propagated = PropagatedLabels(_still(10, 16, 12), {0: _bar(), 9: empty}, 3)
    inside = [float(propagated.at(z)[1, 5, 5]) for z in range(10)]
    assert inside == sorted(inside, reverse=True)
    assert inside[1] > 0.7
    assert inside[8] < 0.3


def test_order_of_asking_does_not_matter() -> None:
    sources = {9: _bar(), 2: _bar().flip(0), 5: _bar().flip(1)}
    registration = _still(12, 16, 12)
    forwards = PropagatedLabels(registration, sources, 3)
    first = [forwards.at(z) for z in range(12)]
    backwards = PropagatedLabels(registration, dict(sorted(sources.items())), 3)
    for z in reversed(range(12)):
        assert torch.equal(backwards.at(z), first[z])


def test_a_source_with_unknown_pixels_is_completed_once() -> None:
    partly, asked = _bar(), []
    partly[0] = UNKNOWN

    def complete(z: int) -> torch.Tensor:
        asked.append(z)
        return torch.stack([torch.full((16, 12), share) for share in (0.2, 0.8, 0.0)])

    propagated = PropagatedLabels(_still(10, 16, 12), {2: _bar(), 7: partly}, 3, complete)
    assert [z for z in range(10) if propagated.completes(z)] == [7]
    assert torch.equal(propagated.at(2).argmax(dim=0), _bar())
    assert asked == []
    for z in (9, 7, 4, 7):
        propagated.at(z)
    assert asked == [7]
    assert (propagated.at(8).argmax(dim=0) == 1).all()


def test_no_more_than_two_stretches_are_held() -> None:
    shape = (3, 17, 13)  # found in no other test
    sources = {z: torch.zeros(17, 13, dtype=torch.long) for z in (0, 5, 10, 15, 20)}
    propagated = PropagatedLabels(_still(21, 17, 13), sources, 3)
    for z in range(21):
        propagated.at(z)
    tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == shape]
    held = sum(o.dtype == torch.uint8 for o in tensors)
    assert 0 < held <= 2 * 4  # four slices lie between two sources


def test_one_slice_has_no_registration() -> None:
    volume, _ = disc_volume((1, 48, 40))
    _, registration, done = _registered(volume.hu)
    assert done == []
    assert registration.up.shape[0] == 0


def test_registration_may_be_left_early() -> None:
    volume = volume_of(np.repeat(disc_volume()[0].hu, 3, axis=0))
    grid = SliceGrid((0, 48, 0, 40), (48, 40), (48, 40), INTENSITY)
    steps = register(volume, grid)
    assert 0 < next(steps) < len(volume.hu) - 1
    steps.close()
