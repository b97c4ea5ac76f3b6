"""Which coronal or sagittal plane to paint next, and whether it is worth more than a slice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.crossing import FADE_MM
from napari_diffseg.engine.planes import ARRAY_AXIS, Axis
from napari_diffseg.engine.suggest import MIN_ERROR

_MIN_GAP_MM = 50.0
"""Where painted slices are closer, another slice was worth more: see decision 0005."""

_MIN_SLICES = 4
"""With fewer, what is predicted says too little of where a plane would cross structures."""


@dataclass(frozen=True)
class PlaneSuggestion:
    """A plane worth painting.

    Attributes
    ----------
    axis
        ``coronal`` or ``sagittal``.
    index
        Row ``y`` or column ``x`` of every slice.
    reason
        One sentence that says why.
    """

    axis: Axis
    index: int
    reason: str


def expected_error(
    prediction: NDArray[np.uint8], confidence: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Error expected where there is a structure or the model is unsure, ``(z, y, x)``.

    Parameters
    ----------
    prediction
        Label ids ``(z, y, x)``.
    confidence
        Percent ``(z, y, x)``.
    """
    error = MIN_ERROR + 1 - confidence.astype(np.float32) / 100
    return np.where((prediction > 0) | (confidence < 50), error, np.float32(0))


def suggest_plane(
    error: NDArray[np.float32],
    painted: NDArray[np.bool_],
    planes: Iterable[tuple[Axis, int]],
    spacing: tuple[float, float, float],
    reach_mm: float,
    step: int = 1,
) -> PlaneSuggestion | None:
    """Choose the plane whose paint should help most, if it helps more than any slice.

    Painted slices and planes are taken to help the points around them, the less the farther they
    are; slices, coronal and sagittal planes each take their share of the error away.

    Parameters
    ----------
    error
        Of :func:`expected_error`, thinned by `step` in y and x.
    painted
        Slices that are painted or accepted ``(z,)``.
    planes
        Axis and index of the planes that are painted.
    spacing
        Of the whole volume in mm ``(z, y, x)``.
    reach_mm
        Distance along z at which a painted slice's help has fallen to 1/e.
    step
        See `error`.

    Examples
    --------
    >>> error = np.zeros((60, 20, 20), np.float32)
    >>> error[:, 8:12] = 0.5  # a structure along the whole patient
    >>> ends = np.isin(np.arange(60), (0, 1, 58, 59))
    >>> suggest_plane(error, ends, [], (5.0, 5.0, 5.0), 25.0).axis
    'coronal'
    >>> every_third = np.arange(60) % 3 == 0
    >>> suggest_plane(error, every_third, [], (5.0, 5.0, 5.0), 25.0) is None
    True
    """
    gap = _widest_gap(error, painted)
    if np.count_nonzero(painted) < _MIN_SLICES or gap * spacing[0] < _MIN_GAP_MM:
        return None
    thinned = (spacing[0], spacing[1] * step, spacing[2] * step)
    helps = [
        _helps(count, mm, reach)
        for count, mm, reach in zip(error.shape, thinned, (reach_mm, FADE_MM, FADE_MM), strict=True)
    ]
    covered = [np.zeros(count, np.float32) for count in error.shape]
    covered[0] = helps[0][:, painted].max(axis=1, initial=0)
    for axis, index in planes:
        along = ARRAY_AXIS[axis]
        place = min(index // step, error.shape[along] - 1)
        covered[along] = np.maximum(covered[along], helps[along][place])
    gains = [_gains(error, covered, along, helps[along]) for along in range(3)]
    best: dict[Axis, float] = {axis: gains[along].max() for axis, along in ARRAY_AXIS.items()}
    axis = max(best, key=lambda one: best[one])
    if best[axis] <= gains[0].max(initial=0):
        return None
    index = int(gains[ARRAY_AXIS[axis]].argmax()) * step + step // 2
    reason = f"{axis} {index} crosses gaps of up to {gap} slices"
    return PlaneSuggestion(axis, index, reason[0].upper() + reason[1:])


def _widest_gap(error: NDArray[np.float32], painted: NDArray[np.bool_]) -> int:
    """Most slices in a row that show a structure and are not painted."""
    gaps = error.any(axis=(1, 2)) & ~painted
    edges = np.flatnonzero(np.diff(np.r_[False, gaps, False]))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _helps(count: int, spacing: float, reach: float) -> NDArray[np.float32]:
    """How much each of `count` places helps each other one, 1 to 0."""
    at = np.arange(count) * spacing
    return np.exp(-np.abs(at[:, None] - at) / reach).astype(np.float32)


def _gains(
    error: NDArray[np.float32],
    covered: Sequence[NDArray[np.float32]],
    along: int,
    helps: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Error that paint at each place along an axis would take away from what the others leave."""
    left = error
    for axis in {0, 1, 2} - {along}:
        left = left * (1 - np.expand_dims(covered[axis], tuple({0, 1, 2} - {axis})))
    line = left.sum(axis=tuple({0, 1, 2} - {along}))
    gains: NDArray[np.float32] = (line * np.maximum(helps - covered[along], 0)).sum(axis=1)
    return gains
