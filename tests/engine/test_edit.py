"""Edits of a mask, in millimetres, whatever the mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from napari_diffseg.engine.edit import (
    Edit,
    fill_holes,
    grow,
    keep_largest,
    remove_islands,
    replaced,
    shrink,
    smooth,
)

masks = arrays(bool, array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9))
mm = st.floats(0.1, 6)
steps = st.floats(0.5, 3)


def spacing_of(mask, data):
    return tuple(data.draw(steps) for _ in range(mask.ndim))


@settings(max_examples=60, deadline=None)
@given(mask=masks, amount=mm, data=st.data())
def test_growing_and_shrinking_are_nested_and_mirror_each_other(mask, amount, data):
    spacing = spacing_of(mask, data)
    large, small = grow(mask, spacing, amount), shrink(mask, spacing, amount)
    assert (large | ~mask).all()
    assert (mask | ~small).all()
    if mask.any() and not mask.all():
        # What is outside grows by what the inside loses.
        assert np.array_equal(~small, grow(~mask, spacing, amount))
        near = ndimage.distance_transform_edt(~mask, sampling=spacing) <= amount
        assert np.array_equal(large, near)
    assert not grow(np.zeros_like(mask), spacing, amount).any()


@settings(max_examples=60, deadline=None)
@given(mask=masks, data=st.data())
def test_holes_are_filled_and_nothing_is_lost(mask, data):
    filled = fill_holes(mask)
    assert (filled | ~mask).all()
    assert np.array_equal(fill_holes(filled), filled)
    outside = np.pad(~filled, 1, constant_values=True)
    assert ndimage.label(outside)[1] == 1  # all that is empty can be reached from outside


@settings(max_examples=60, deadline=None)
@given(mask=masks, smallest=st.floats(0, 60), data=st.data())
def test_pieces_stay_whole_or_go(mask, smallest, data):
    spacing = spacing_of(mask, data)
    kept = remove_islands(mask, spacing, smallest)
    pieces, count = ndimage.label(mask)
    for n in range(1, count + 1):
        piece = pieces == n
        size = piece.sum() * np.prod(spacing)
        assert kept[piece].all() if size >= smallest else not kept[piece].any()
    largest = keep_largest(mask)
    assert ndimage.label(largest)[1] == min(count, 1)
    assert largest.sum() == max(np.bincount(pieces.ravel())[1:], default=0)


def test_smoothing_takes_spikes_off_and_keeps_straight_edges():
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    spiked = mask.copy()
    spiked[20, 20:30] = True
    spiked[10, 15] = False
    smoothed = smooth(spiked, (1.0, 1.0), 2.0)
    assert smoothed[10, 15]
    assert not smoothed[:, 22:].any()
    assert np.array_equal(smoothed[:12], mask[:12])
    assert np.array_equal(smooth(mask, (1.0, 1.0), 3.0), mask)


def test_amounts_are_millimetres():
    mask = np.zeros((5, 21, 21), bool)
    mask[2, 10, 10] = True
    ball = grow(mask, (5.0, 1.0, 0.5), 5.0)
    assert [np.flatnonzero(ball.any(axis=tuple({0, 1, 2} - {a}))).tolist() for a in range(3)] == [
        [1, 2, 3],
        list(range(5, 16)),
        list(range(21)),
    ]


@settings(max_examples=60, deadline=None)
@given(
    labels=arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 255])),
    wanted=arrays(bool, (6, 7)),
)
def test_a_label_takes_only_free_pixels(labels, wanted):
    after = replaced(labels, 1, wanted)
    others = (labels != 0) & (labels != 1)
    assert np.array_equal(after[others], labels[others])
    assert np.array_equal(after == 1, wanted & ~others)
    assert (after[~others & ~wanted] == 0).all()


@pytest.mark.parametrize(
    "kind", ["fill holes", "keep largest", "remove islands", "smooth", "grow", "shrink"]
)
def test_every_edit_has_a_name(kind):
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    mask[4, 4] = mask[0, 0] = False
    mask[0, 8] = True
    after = Edit(kind, 1.5)(mask, (1.0, 1.0))
    assert after.shape == mask.shape
    assert after.dtype == bool
    assert not np.array_equal(after, mask)
