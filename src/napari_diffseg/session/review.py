"""What a round has brought: what changed, where labels fight, what another slice is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.rounds import StoredPrediction
from napari_diffseg.session.session import Session

_UNSURE = 70  # percent; below it the model does not count as sure of a pixel
_LEARNING = 0.6
"""Errors fall with this power of the number of painted slices.

From the in-volume benchmark, four to sixteen slices on two volumes: 0.57 to 0.65.
"""

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Change:
    """How much of a slice the newest prediction labels otherwise than the one before."""

    z: int
    mm2: float


@dataclass(frozen=True)
class Fight:
    """Two labels that touch where the model is sure of neither.

    Attributes
    ----------
    labels
        Their ids, ascending.
    mm2
        Area of the unsure border.
    z
        Slice with most of it.
    """

    labels: tuple[int, int]
    mm2: float
    z: int


@dataclass(frozen=True)
class RoundReview:
    """What :func:`review_round` found.

    Attributes
    ----------
    number
        Of the round.
    changed
        Slices that changed since the round before, the most changed first.
    fights
        The longest unsure border first.
    quality
        Leave-one-out Dice by label id; empty where it was not measured.
    worth
        Points of mean Dice that another painted slice should bring, ``None`` where the quality
        was not measured.
    """

    number: int
    changed: tuple[Change, ...]
    fights: tuple[Fight, ...]
    quality: dict[int, float]
    worth: float | None


def review_round(session: Session) -> RoundReview:
    """Compare the newest round with the one before, and look for what it is unsure of.

    Takes a while on a large volume, and may run in a worker thread.

    Raises
    ------
    SessionError
        If nothing is predicted yet.
    """
    made = session.trainer.round
    if made is None or not session.prediction.round_of.any():
        raise SessionError("there is no round to review yet; train and predict first")
    spacing = session.volume.geometry.spacing
    mask, confidence = session.prediction.mask.copy(), session.prediction.confidence.copy()
    quality = dict(made.quality)
    return RoundReview(
        made.number,
        changed_slices(mask, _before(session, made.number), spacing),
        fighting_labels(mask, confidence, spacing),
        quality,
        worth_of_a_slice(list(quality.values()), len(made.slices)) if quality else None,
    )


def _before(session: Session, number: int) -> StoredPrediction | None:
    """Return the newest stored prediction of an earlier round."""
    for made in reversed([one for one in session.rounds.all if one.number < number]):
        try:
            stored = session.rounds.prediction(made.number)
        except SessionError:  # damaged, or deleted to make room
            continue
        if stored is not None:
            return stored
    return None


def changed_slices(
    mask: Mask, before: StoredPrediction | None, spacing: Sequence[float]
) -> tuple[Change, ...]:
    """Measure how much of each slice ``mask`` ``(z, y, x)`` labels otherwise than before.

    Slices without a change are left out; ``spacing`` ``(z, y, x)`` is in mm.
    """
    if before is None:
        return ()
    pixel = float(spacing[1] * spacing[2])
    counts = {
        int(z): int(np.count_nonzero(mask[z] != plane))
        for z, plane in zip(before.slices, before.mask, strict=True)
    }
    found = [Change(z, count * pixel) for z, count in counts.items() if count]
    return tuple(sorted(found, key=lambda one: -one.mm2))


def fighting_labels(mask: Mask, confidence: Mask, spacing: Sequence[float]) -> tuple[Fight, ...]:
    """Find pairs of labels that touch where the model is less than 70 % sure on both sides.

    Parameters
    ----------
    mask, confidence
        Label ids and percent ``(z, y, x)``.
    spacing
        ``(z, y, x)`` in mm.
    """
    sides = (spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1])
    unsure = (confidence < _UNSURE) & (mask > 0)
    area: Counter[tuple[int, int]] = Counter()
    on: dict[tuple[int, int], Counter[int]] = {}
    for axis, side in enumerate(sides):
        here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        there = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        touching = unsure[here] & unsure[there] & (mask[here] != mask[there])
        z = np.nonzero(touching)[0]
        one, other = mask[here][touching], mask[there][touching]
        pairs = np.stack([np.minimum(one, other), np.maximum(one, other), z], axis=1)
        for (a, b, at), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
            pair = (int(a), int(b))
            area[pair] += float(count * side)  # type: ignore[assignment]
            on.setdefault(pair, Counter())[int(at)] += int(count)
    return tuple(
        Fight(pair, float(mm2), on[pair].most_common(1)[0][0]) for pair, mm2 in area.most_common()
    )


def worth_of_a_slice(quality: Sequence[float], painted: int) -> float:
    """Estimate the points of mean Dice (0 to 100) that another painted slice brings.

    Parameters
    ----------
    quality
        Leave-one-out Dice of the labels, each from 0 to 1.
    painted
        Painted slices.

    Notes
    -----
    What is left to 1 falls with a power of the number of slices; it was measured with one slice
    less. It is an estimate for a slice that is chosen as well as the others were.

    Examples
    --------
    >>> round(worth_of_a_slice([0.7, 0.8], 4), 1)
    2.6
    """
    without = 1 - float(np.mean(quality))
    now: float = without * (max(painted - 1, 1) / painted) ** _LEARNING
    left: float = (painted / (painted + 1)) ** _LEARNING
    return 100 * now * (1 - left)


def worth_text(points: float) -> str:
    """Say what another slice is worth."""
    about = f"about {points:.0f} points" if points >= 1.5 else "about 1 point"
    if points < 0.75:
        about = "less than 1 point"
    return f"Another slice is worth {about} of Dice."
