"""Slices of a series at their true places, where some between them are missing.

A volume has one distance between all slices. Where a series lacks a slice, spreading the others
evenly would put each of them off by up to half a slice; so the grid keeps a place for the missing
one, and it is filled in from its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OFF = 0.1
"""A slice may lie so far from its place on an even grid, in steps of it."""
_WIDEST = 3
"""A gap may be so many steps wide, which is two slices in a row; more is another part."""


def places(heights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Find the places of slices on the coarsest even grid that has them all.

    Parameters
    ----------
    heights
        (n,) mm along the normal, growing.

    Returns
    -------
    (n,) from 0, growing. It counts through where there is no such grid: if a gap is too wide, more
    than half of the slices would be missing, or the distances have no common step.

    Examples
    --------
    >>> places(np.array([0.0, 2.5, 7.5, 10.0])).tolist()
    [0, 1, 3, 4]
    >>> places(np.array([0.0, 2.5, 5.5, 10.0])).tolist()
    [0, 1, 2, 3]
    """
    through = np.arange(len(heights))
    gaps = np.diff(heights)
    if len(gaps) < 2 or gaps.min() <= 0:
        return through
    steps = np.rint(gaps / gaps.min()).astype(np.int64)
    found = np.concatenate([[0], np.cumsum(steps)])
    even = heights[0] + found * (heights[-1] - heights[0]) / found[-1]
    off = np.abs(heights - even).max() / (heights[-1] - heights[0]) * found[-1]
    if steps.max() > _WIDEST or found[-1] >= 2 * len(heights) or off > _OFF:
        return through
    return found


def unevenness(heights: NDArray[np.float64]) -> float:
    """How far slices at some heights, in order, lie from the grid they are put on, in mm."""
    at = places(heights)
    even = heights[0] + at * (heights[-1] - heights[0]) / max(int(at[-1]), 1)
    return float(np.abs(heights - even).max())


def missing(at: Sequence[int]) -> tuple[int, ...]:
    """Places without a slice.

    Examples
    --------
    >>> missing([0, 1, 3, 6])
    (2, 4, 5)
    """
    return tuple(sorted(set(range(at[-1] + 1)) - set(at)))


def filled(planes: Iterable[NDArray[Any]], at: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Give a plane for every place: those that are there, and weighted means between them.

    Parameters
    ----------
    planes
        Of HU, one for each place of ``at``; whole numbers stay whole.
    """
    before: NDArray[Any] | None = None
    last = -1
    for k, plane in zip(at, planes, strict=True):
        for between in range(last + 1, k):
            assert before is not None
            share = (between - last) / (k - last)
            mean = (1 - share) * before + share * plane
            whole = before.dtype.kind in "iu" and plane.dtype.kind in "iu"
            yield np.rint(mean).astype(np.int64) if whole else mean
        yield plane
        before, last = plane, k
