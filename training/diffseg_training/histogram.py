"""Statistics over any number of voxels in constant memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOW, _HIGH = -32768, 32767


class Histogram:
    """Counts of voxels in bins of 1 HU, so that percentiles are exact to the bin.

    Attributes
    ----------
    counts
        Voxels in each bin, int64 ``(65536,)``; bin 0 is -32768 HU.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_HIGH - _LOW + 1, np.int64)

    def add(self, hu: NDArray[Any]) -> None:
        """Count the voxels of an array of any shape, values in HU."""
        for part in hu.reshape(len(hu), -1):  # slice by slice: bincount needs 8 bytes a voxel
            bins = np.rint(part).clip(_LOW, _HIGH).astype(np.int64) - _LOW
            self.counts += np.bincount(bins, minlength=len(self.counts))

    def merge(self, sparse: NDArray[np.int64]) -> None:
        """Add what :meth:`sparse` returned for another histogram."""
        self.counts[sparse[0]] += sparse[1]

    def sparse(self) -> NDArray[np.int64]:
        """Bins that are not empty and their counts, ``(2, n)``."""
        filled = np.flatnonzero(self.counts)
        return np.stack([filled, self.counts[filled]])

    @property
    def total(self) -> int:
        """Voxels counted."""
        return int(self.counts.sum())

    def percentile(self, q: float) -> float:
        """Percentile ``q`` in HU, as ``numpy.percentile`` defines it (linear interpolation)."""
        position = q / 100 * (self.total - 1)
        cumulative = np.cumsum(self.counts)
        low = int(np.searchsorted(cumulative, np.floor(position), side="right"))
        high = int(np.searchsorted(cumulative, np.ceil(position), side="right"))
        return float(low + (high - low) * (position - np.floor(position)) + _LOW)

    def statistics(self) -> dict[str, float]:
        """Voxels, extremes and the percentiles that arXiv 2402.15216v2 clips to."""
        filled = np.flatnonzero(self.counts)
        return {
            "voxels": self.total,
            "min": float(filled[0] + _LOW),
            "max": float(filled[-1] + _LOW),
            "p0.5": self.percentile(0.5),
            "p99.5": self.percentile(99.5),
        }
