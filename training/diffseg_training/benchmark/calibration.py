"""Calibration error of the confidence, and the errors among the least confident pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffseg_training.benchmark.tasks import Mask

_BINS = 15
_LEAST = 0.1


def tallied(mask: Mask, truth: Mask, confidence: Mask) -> NDArray[np.int64]:
    """Count pixels and errors at each percent of confidence.

    Parameters
    ----------
    mask, truth
        Predicted and true labels, of any one shape.
    confidence
        Probability of the predicted label in percent.

    Returns
    -------
    ndarray
        ``(101, 2)``: pixels, and those of them that are wrong. Tallies of scans add up.
    """
    level = confidence.ravel()
    pixels = np.bincount(level, minlength=101)
    errors = np.bincount(level[(mask != truth).ravel()], minlength=101)
    return np.stack([pixels, errors], axis=1).astype(np.int64)


def calibration_error(tally: NDArray[np.int64]) -> float:
    """Return the expected calibration error, with fifteen bins of equal width.

    Notes
    -----
    Guo et al., "On calibration of modern neural networks", ICML 2017, eq. 5.
    """
    levels = np.arange(101)
    total = 0.0
    for members in np.array_split(levels, _BINS):
        pixels, errors = tally[members].sum(axis=0)
        if pixels:
            confident = (tally[members, 0] * members).sum() / pixels / 100
            total += pixels * abs(confident - (1 - errors / pixels))
    return float(total / tally[:, 0].sum())


def errors_found(tally: NDArray[np.int64], share: float = _LEAST) -> float | None:
    """Share of the errors that the least confident `share` of the pixels holds.

    Of pixels that are equally confident, the part that belongs to the least confident ones holds
    its part of the errors. ``None`` where there are no errors.
    """
    left, found = share * tally[:, 0].sum(), 0.0
    for pixels, errors in tally:
        taken = min(1.0, left / pixels) if pixels else 0.0
        found += taken * errors
        left -= taken * pixels
    return float(found / tally[:, 1].sum()) if tally[:, 1].any() else None


def calibration(tallies: Sequence[tuple[str, NDArray[np.int64]]]) -> dict[str, float | None]:
    """Both figures for each named tally, as fields of a row."""
    figures: dict[str, float | None] = {}
    for name, tally in tallies:
        figures[f"calibration_error_{name}"] = calibration_error(tally)
        figures[f"errors_in_least_confident_tenth_{name}"] = errors_found(tally)
    return figures
