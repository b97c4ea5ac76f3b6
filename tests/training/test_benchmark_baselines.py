"""The learning-free baselines on shapes whose true continuation is known."""

from __future__ import annotations

import numpy as np
import pytest

from diffseg_training.benchmark.baselines import (
    BaselineError,
    nearest_copy,
    random_walker,
    shape_interpolation,
)
from diffseg_training.benchmark.registration import registration
from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume

BASELINES = {
    "nearest-copy": nearest_copy,
    "shape-interpolation": shape_interpolation,
    "random-walker": random_walker,
    "registration": registration,
}


def _volume(hu: np.ndarray, z_mm: float = 2.0) -> Volume:
    affine = np.diag([1.0, 1.0, z_mm, 1.0])
    geometry = Geometry.from_affine(affine, hu.shape[::-1])
    return Volume(hu.astype(np.int16), geometry, "test")


def _drifting_discs(depth: int = 9, side: int = 64) -> tuple[Volume, np.ndarray]:
    """Two discs that move and grow from slice to slice, bright on dark fat."""
    y, x = np.mgrid[:side, :side]
    mask = np.zeros((depth, side, side), np.uint8)
    for z in range(depth):
        mask[z][(y - 18 - z) ** 2 + (x - 20) ** 2 < (7 + 0.3 * z) ** 2] = 1
        mask[z][(y - 44) ** 2 + (x - 46 + z) ** 2 < 8**2] = 2
    noise = np.random.default_rng(0).normal(0, 8, mask.shape)
    return _volume(np.choose(mask, (-100, 60, 180)) + noise), mask


def _dice(a: np.ndarray, b: np.ndarray, label: int) -> float:
    return float(
        2 * ((a == label) & (b == label)).sum() / ((a == label).sum() + (b == label).sum())
    )


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("nearest-copy", 0.7),
        ("shape-interpolation", 0.9),
        ("random-walker", 0.9),
        ("registration", 0.9),
    ],
)
def test_follows_moving_shapes_and_keeps_paint(name: str, floor: float) -> None:
    volume, truth = _drifting_discs()
    painted = {0: truth[0], 8: truth[8]}
    mask = BASELINES[name](volume, painted)
    assert mask.dtype == np.uint8
    assert mask.shape == truth.shape
    for z, paint in painted.items():
        np.testing.assert_array_equal(mask[z], paint)
    assert min(_dice(mask[1:8], truth[1:8], label) for label in (1, 2)) > floor


def test_registration_follows_the_image_beyond_the_last_painted_slice() -> None:
    volume, truth = _drifting_discs()
    copy = nearest_copy(volume, {0: truth[0]})
    carried = registration(volume, {0: truth[0]})
    assert _dice(carried[8], truth[8], 1) > _dice(copy[8], truth[8], 1) + 0.2


def test_nearest_copy_takes_the_nearer_slice() -> None:
    volume, truth = _drifting_discs()
    mask = nearest_copy(volume, {1: truth[1], 7: truth[7]})
    np.testing.assert_array_equal(mask[3], truth[1])
    np.testing.assert_array_equal(mask[4], truth[1])
    np.testing.assert_array_equal(mask[5], truth[7])
    np.testing.assert_array_equal(mask[8], truth[7])


def test_shape_interpolation_ends_halfway_where_a_label_vanishes() -> None:
    volume, truth = _drifting_discs()
    only_second = np.where(truth[8] == 2, 2, 0).astype(np.uint8)
    mask = shape_interpolation(volume, {0: truth[0], 8: only_second})
    areas = [(mask[z] == 1).sum() for z in range(9)]
    assert areas == sorted(areas, reverse=True)
    assert areas[2] > 0
    assert areas[5] == 0


def test_random_walker_fills_between_scribbles() -> None:
    volume, truth = _drifting_discs(depth=3)
    scribbles = np.zeros_like(truth[1])
    scribbles[18:21, 18:22] = 1
    scribbles[44, 42:48] = 2
    scribbles[4, 4:60] = BACKGROUND
    scribbles[32, 2:40] = BACKGROUND
    mask = random_walker(volume, [PaintedSlice(1, scribbles, full=False)])
    assert BACKGROUND not in mask
    assert min(_dice(mask, truth, label) for label in (1, 2)) > 0.9


def test_random_walker_thins_a_large_volume_in_plane() -> None:
    volume, truth = _drifting_discs()
    mask = random_walker(volume, {0: truth[0], 8: truth[8]}, voxels=9_000)
    assert min(_dice(mask[1:8], truth[1:8], label) for label in (1, 2)) > 0.8


@pytest.mark.parametrize("name", list(BASELINES))
def test_all_slices_painted_or_one_label_only_is_no_error(name: str) -> None:
    volume, truth = _drifting_discs(depth=3)
    np.testing.assert_array_equal(BASELINES[name](volume, dict(enumerate(truth))), truth)
    empty = BASELINES[name](volume, {1: np.zeros_like(truth[1])})
    assert not empty.any()


@pytest.mark.parametrize("painted", [{}, {9: np.zeros((64, 64), np.uint8)}, {0: np.zeros((3, 3))}])
def test_useless_paint_is_a_named_error(painted: dict[int, np.ndarray]) -> None:
    volume, _ = _drifting_discs()
    with pytest.raises(BaselineError, match="paint"):
        registration(volume, painted)
