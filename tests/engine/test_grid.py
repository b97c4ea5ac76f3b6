"""Native slices and the model grid: there, back, and around the body."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine_tools import INTENSITY, volume_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.engine.grid import SliceGrid, body_box
from napari_diffseg.network.losses import UNKNOWN


def _blobs(shape: tuple[int, int], seed: int, sigma: float) -> NDArray[np.uint8]:
    """Smooth random class maps of 4 classes."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(4)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def _and_back(grid: SliceGrid, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    hot = F.one_hot(grid.target(classes[None])[0], 4).movedim(-1, 0).float()
    return grid.native(hot)[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    rows=st.sampled_from([32, 48, 64]),
    columns=st.sampled_from([32, 48, 64]),
    margin=st.integers(-6, 6),
)
def test_there_and_back_moves_borders_by_no_more_than_the_grids_resolution(
    seed: int, height: int, width: int, rows: int, columns: int, margin: int
) -> None:
    box = (margin, height - margin, margin // 2, width - margin // 2)
    grid = SliceGrid(box, (height, width), (rows, columns), INTENSITY)
    classes = _blobs((height, width), seed, 3.0)
    back = _and_back(grid, classes)
    # Pixels farther from every border than one grid step (and one native pixel) must agree.
    step = max((box[1] - box[0]) / rows, (box[3] - box[2]) / columns, 1.0)
    reach = int(np.ceil(step)) + 1
    size = 2 * reach + 1
    # Beyond the slice all is background, so the slice's own edge is a border too.
    largest = ndimage.maximum_filter(classes, size, mode="constant", cval=0)
    flat = largest == ndimage.minimum_filter(classes, size, mode="constant", cval=0)
    y0, y1, x0, x1 = box
    inside = np.zeros_like(flat)
    inside[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
    assert np.array_equal(back[flat & inside], classes[flat & inside])
    assert not back[~inside].any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), height=st.integers(8, 40), width=st.integers(8, 40))
def test_exact_where_the_grid_is_the_native_box(seed: int, height: int, width: int) -> None:
    box = (2, height - 1, 1, width - 2)
    grid = SliceGrid(box, (height, width), (box[1] - box[0], box[3] - box[2]), INTENSITY)
    classes = np.random.default_rng(seed).integers(0, 4, (height, width), dtype=np.uint8)
    inside = np.s_[box[0] : box[1], box[2] : box[3]]
    assert np.array_equal(_and_back(grid, classes)[inside], classes[inside])
    hu = np.random.default_rng(seed).integers(-1000, 1000, (1, height, width))
    expected = INTENSITY.to_model(hu[0][inside])
    assert np.allclose(grid.image(hu)[0, 0].numpy(), expected, atol=1e-6)


def test_box_beyond_the_slice_is_filled_with_air_and_comes_back_cropped() -> None:
    grid = SliceGrid((-5, 25, -3, 27), (20, 24), (30, 30), INTENSITY)
    classes = np.full((20, 24), 2, np.uint8)
    assert np.array_equal(_and_back(grid, classes), classes)
    target = grid.target(classes[None])[0].numpy()
    assert (target[5:25, 3:27] == 2).all()
    assert target.sum() == 2 * classes.size  # nothing is painted beyond the slice
    image = grid.image(np.full((1, 20, 24), 500, np.int16))[0, 0].numpy()
    assert image[:5].max() == -1
    assert np.allclose(image[5:25, 3:27], 0.5)


def test_outside_the_box_is_certain_background() -> None:
    grid = SliceGrid((4, 12, 6, 18), (20, 24), (16, 24), INTENSITY)
    scores = torch.zeros(3, 16, 24)
    scores[1], scores[2] = 0.3, 0.7
    winner, probability = grid.native(scores)
    assert (winner[4:12, 6:18] == 2).all()
    assert np.allclose(probability[4:12, 6:18], 0.7)
    assert winner.sum() == 2 * 8 * 12
    probability[4:12, 6:18] = 1
    assert (probability == 1).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(1, 14), sharpness=st.sampled_from([0, 1, 20]))
def test_the_winner_is_the_likeliest_class_of_all(seed: int, classes: int, sharpness: int) -> None:
    grid = SliceGrid((0, 37, 0, 41), (37, 41), (12, 16), INTENSITY)
    generator = torch.Generator().manual_seed(seed)
    scores = (sharpness * torch.randn(classes, 12, 16, generator=generator)).softmax(dim=0)
    winner, probability = grid.native(scores)
    fine = torch.nn.functional.interpolate(scores[None], (37, 41), mode="bilinear")[0].numpy()
    assert np.allclose(probability, fine.max(axis=0))
    # Where two are as likely, either may win.
    assert np.allclose(np.take_along_axis(fine, winner[None].astype(int), 0)[0], fine.max(axis=0))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), columns=st.sampled_from([16, 32, 96]))
def test_thin_strokes_are_not_lost_on_a_coarse_grid(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    classes = np.full((2, 80, 90), UNKNOWN, np.uint8)
    stroke = int(rng.integers(10, 70))
    classes[0, stroke, 12:80], classes[1, 12:70, stroke] = 1, 2
    grid = SliceGrid((5, 75, 4, 86), (80, 90), (columns, columns), INTENSITY)
    target = grid.target(classes)
    assert set(target.unique().tolist()) == {1, 2, UNKNOWN}
    # Each runs on without a hole, one or two grid pixels wide.
    assert (target[0] == 1).any(dim=0).sum() >= round(68 / 82 * columns) - 1
    assert (target[1] == 2).any(dim=1).sum() >= round(58 / 70 * columns) - 1
    assert max((target[0] == 1).sum(dim=0).max(), (target[1] == 2).sum(dim=1).max()) <= 2


def _scan(*, table: bool = False, body: bool = True, shape=(6, 200, 256)) -> NDArray[np.int16]:
    hu = np.full(shape, -1000, np.int16)
    y, x = np.mgrid[: shape[1], : shape[2]]
    if body:
        hu[:, ((y - 90) / 60) ** 2 + ((x - 120) / 80) ** 2 < 1] = 30
        hu[:, np.hypot(y - 85, x - 90) < 25] = -850  # a lung
    if table:
        hu[:, 170:176, 20:240] = 200
    return hu


@pytest.mark.parametrize("table", [False, True])
def test_body_box_holds_the_body_and_not_the_table(table: bool) -> None:
    y0, y1, x0, x1 = body_box(_scan(table=table))
    assert 22 <= y0 <= 31
    assert 150 <= y1 <= 158
    assert 32 <= x0 <= 41
    assert 200 <= x1 <= 208


def test_body_box_is_the_whole_slice_where_there_is_only_air() -> None:
    assert body_box(_scan(body=False)) == (0, 200, 0, 256)


def test_body_box_of_a_body_that_fills_the_slice_stays_inside_it() -> None:
    assert body_box(np.full((2, 40, 30), 20, np.int16)) == (0, 40, 0, 30)


@settings(max_examples=40, deadline=None)
@given(
    dy=st.floats(0.5, 2.5),
    dx=st.floats(0.5, 2.5),
    columns=st.sampled_from([96, 128, 192]),
    multiple=st.sampled_from([4, 8, 16]),
)
def test_grid_pixels_are_square_in_mm(dy: float, dx: float, columns: int, multiple: int) -> None:
    volume = volume_of(_scan(), (3.0, dy, dx))
    grid = SliceGrid.of(volume, columns, multiple, INTENSITY)
    y0, y1, x0, x1 = grid.box
    high, wide = (y1 - y0) * dy / grid.size[0], (x1 - x0) * dx / grid.size[1]
    # Boxes end on whole native pixels, grids on whole multiples.
    tolerance = 0.02 + 0.1 * multiple / min(grid.size) + 1 / min(y1 - y0, x1 - x0)
    assert high / wide == pytest.approx(1, abs=tolerance)
    assert grid.size[0] % multiple == grid.size[1] % multiple == 0
    assert columns <= max(grid.size) + 0.1 * multiple
    by0, by1, bx0, bx1 = body_box(volume.hu)
    assert y0 <= by0
    assert y1 >= by1
    assert x0 <= bx0
    assert x1 >= bx1
