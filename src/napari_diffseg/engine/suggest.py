"""Which slice to paint next, and why: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_ERROR = 0.2
"""Expected of a slice that looks perfect."""

_SOFT_TISSUE = (-20, 200)  # HU of organs, vessels and muscles


@dataclass(frozen=True)
class Suggestion:
    """A slice worth painting.

    Attributes
    ----------
    z
        Slice index, inferior to superior.
    reason
        One sentence that says why.
    """

    z: int
    reason: str


def distance_to_painted(painted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Slices from each slice ``(z,)`` to the nearest painted one; infinite when none is.

    Examples
    --------
    >>> distance_to_painted(np.array([False, True, False, False])).tolist()
    [1.0, 0.0, 1.0, 2.0]
    """
    z = np.arange(len(painted))
    marked = np.flatnonzero(painted)
    if not len(marked):
        return np.full(len(painted), np.inf)
    nearest: NDArray[np.float64] = np.abs(z[:, None] - marked).min(axis=1).astype(np.float64)
    return nearest


def slice_confidence(
    prediction: NDArray[np.uint8], confidence: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Mean confidence of each slice, in percent ``(z,)``.

    Only pixels count that are predicted as a structure, or where the network was unsure; the
    certain background around the body would hide everything else.

    Parameters
    ----------
    prediction
        Label ids ``(z, y, x)``, uint8.
    confidence
        Percent ``(z, y, x)``, uint8.
    """
    means = np.full(len(prediction), 100.0)
    for z, (mask, percent) in enumerate(zip(prediction, confidence, strict=True)):
        counted = percent[(mask > 0) | (percent < 50)]
        if counted.size:
            means[z] = counted.mean()
    return means


def slice_change(prediction: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much each slice differs from its neighbours, 0 to 1 ``(z,)``.

    It is the share of the predicted pixels of both slices that do not carry the same label (one
    minus their Dice), and the larger of the two neighbours counts.
    """
    steps = np.zeros(len(prediction) + 1)
    for z in range(1, len(prediction)):
        a, b = prediction[z - 1], prediction[z]
        total = np.count_nonzero(a) + np.count_nonzero(b)
        if total:
            steps[z] = 1 - 2 * np.count_nonzero((a == b) & (a > 0)) / total
    return np.maximum(steps[:-1], steps[1:])


def soft_tissue_share(hu: NDArray[Any]) -> NDArray[np.float64]:
    """Share of each slice that is soft tissue, 0 to 1 ``(z,)``.

    Where the painted slices show nothing, so that nothing can be predicted, it says where
    structures are more likely.

    Parameters
    ----------
    hu
        The CT ``(z, y, x)``; every few pixels of it will do.
    """
    low, high = _SOFT_TISSUE
    return np.array([np.mean((plane > low) & (plane < high)) for plane in hu])


def likely_empty(painted: NDArray[np.bool_], shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Slices that lie between painted ones without structures ``(z,)``.

    What a model predicts there is not asked for: far from structures that it has seen it errs most.

    Parameters
    ----------
    painted
        Slices that are painted or accepted ``(z,)``.
    shown
        Those of them on which a structure is painted ``(z,)``.

    Examples
    --------
    >>> painted = np.array([0, 1, 0, 1, 0, 1, 0], bool)
    >>> likely_empty(painted, np.array([0, 0, 0, 0, 0, 1, 0], bool)).astype(int).tolist()
    [1, 1, 1, 1, 0, 0, 0]
    """
    marked = np.flatnonzero(painted)
    if not len(marked):
        return np.zeros(len(painted), bool)
    z, last = np.arange(len(painted)), len(marked) - 1
    above = np.searchsorted(marked, z)
    below = np.searchsorted(marked, z, side="right") - 1
    near: NDArray[np.bool_] = (
        shown[marked[above.clip(0, last)]] | shown[marked[below.clip(0, last)]]
    )
    return ~near


def structure_share(
    prediction: NDArray[np.uint8], labels: Sequence[int], elsewhere: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How much of the structures each slice shows, 1 on the mean of all slices ``(z,)``.

    Structures count alike, large or small, as they do in the mean Dice. One that is predicted
    nowhere may be anywhere.

    Parameters
    ----------
    prediction
        Label ids ``(z, y, x)``; every few pixels of each slice will do.
    labels
        Ids of the structures that are looked for.
    elsewhere
        Where to expect those that are predicted nowhere ``(z,)``, in any unit:
        :func:`soft_tissue_share`.

    Examples
    --------
    >>> prediction = np.array([[[0, 0]], [[1, 0]], [[1, 2]], [[1, 1]]], np.uint8)
    >>> structure_share(prediction, [1, 2], np.ones(4)).tolist()
    [0.0, 0.5, 2.5, 1.0]
    """
    spread = elsewhere / elsewhere.sum()
    counts = np.array([np.bincount(plane.ravel(), minlength=256) for plane in prediction])
    seen = [counts[:, label] for label in labels]
    shares = [count / count.sum() if count.any() else spread for count in seen]
    total: NDArray[np.float64] = sum(shares, np.zeros(len(prediction)))
    return total / total.mean() if total.any() else np.ones(len(prediction))


def suggest(
    painted: NDArray[np.bool_],
    confidence: NDArray[np.float64] | None = None,
    change: NDArray[np.float64] | None = None,
    n: int = 1,
    reach: float = 8.0,
    weight: NDArray[np.float64] | None = None,
) -> list[Suggestion]:
    """Choose the slices whose paint should help most.

    A painted slice is taken to help its neighbours, the less the farther they are. The error
    expected at each slice (low confidence, a jump from its neighbours) that nothing near covers
    yet is what can be gained; the slice that covers most of it comes first, then the one that
    covers most of the rest, so that suggestions lie apart.

    Parameters
    ----------
    painted
        Slices that are painted or accepted ``(z,)``.
    confidence
        Mean confidence in percent ``(z,)`` of :func:`slice_confidence`, ``None`` without a
        prediction.
    change
        Change from the neighbours, 0 to 1 ``(z,)``, of :func:`slice_change`.
    n
        Suggestions wanted; fewer are returned when fewer slices are unpainted.
    reach
        Slices after which a painted slice's help has fallen to 1/e.
    weight
        How likely an error on each slice is ``(z,)``, in any unit; alike by default.

    Examples
    --------
    >>> [suggestion.z for suggestion in suggest(np.zeros(9, bool), n=3)]
    [4, 1, 7]
    """
    count = len(painted)
    z = np.arange(count)
    doubt = np.zeros(count) if confidence is None else 1 - confidence / 100
    jump = np.zeros(count) if change is None else change
    predicted = confidence is not None or change is not None
    error = MIN_ERROR + doubt + jump / 2 if predicted else np.ones(count)
    if weight is not None:
        error = error * weight
    helps = np.exp(-np.abs(z[:, None] - z) / reach)
    taken = painted.copy()
    cover = helps[:, painted].max(axis=1, initial=0)
    chosen: list[Suggestion] = []
    while len(chosen) < n and not taken.all():
        gain = (error[:, None] * np.maximum(helps - cover[:, None], 0)).sum(axis=0)
        gain[taken] = -1
        best = int(gain.argmax())
        chosen.append(Suggestion(best, _reason(best, taken, doubt, jump, reach, predicted)))
        taken[best] = True
        cover = np.maximum(cover, helps[:, best])
    return chosen


def _reason(
    z: int,
    painted: NDArray[np.bool_],
    doubt: NDArray[np.float64],
    jump: NDArray[np.float64],
    reach: float,
    predicted: bool,
) -> str:
    distance = distance_to_painted(painted)[z]
    if not np.isfinite(distance):
        most = (
            "most errors are expected near it" if predicted else "it stands for most of the volume"
        )
        return f"Slice {z}: nothing is painted yet, and {most}"
    apart = f"({int(distance)} slice{'s' if distance > 1 else ''})"
    # Each on a scale where 1 is a strong reason.
    strength = {"far": distance / (2 * reach), "doubt": doubt[z] / 0.4, "jump": jump[z] / 0.6}
    strongest = max(strength, key=lambda key: strength[key])
    if strongest == "doubt":
        return f"Slice {z}: confidence is low ({100 - 100 * doubt[z]:.0f} %)"
    if strongest == "jump":
        return f"Slice {z}: the prediction jumps between neighbours ({100 * jump[z]:.0f} % differs)"
    return f"Slice {z}: far from any painted slice {apart}"
