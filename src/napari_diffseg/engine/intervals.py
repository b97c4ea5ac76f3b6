"""Confidence intervals of means over patients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 1 << 22  # figures drawn at once


@dataclass(frozen=True)
class Interval:
    """A mean over cases, with its confidence interval.

    Attributes
    ----------
    mean
        NaN without a case.
    low, high
        Ends of the interval; NaN with fewer than two cases.
    cases
        How many have the figure.
    """

    mean: float
    low: float
    high: float
    cases: int


def bootstrap(
    values: Iterable[float], resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Mean and percentile bootstrap interval (Efron and Tibshirani, 1993, section 13.3).

    Parameters
    ----------
    values
        One figure for each patient; NaN is left out.
    resamples
        How often as many patients are drawn with replacement.
    seed
        Of the draws.
    level
        Of confidence.

    Returns
    -------
    Interval
        Percentiles of the means that were drawn.

    Examples
    --------
    >>> bootstrap([0.8, 0.9, math.nan])
    Interval(mean=0.85..., low=0.8, high=0.9, cases=2)
    >>> bootstrap([0.8]).low
    nan
    """
    known = np.array([value for value in values if not math.isnan(value)])
    count = len(known)
    if not count:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(known.mean())
    if count < 2:
        return Interval(mean, math.nan, math.nan, count)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, _BLOCK // count)
    for first in range(0, resamples, block):
        part = means[first : first + block]
        part[:] = known[generator.integers(0, count, (len(part), count))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), count)
