"""Whether the values of a CT are Hounsfield units: what is wrong, and the offset that would fix it.

In HU, air is -1000, fat about -100 and other soft tissue 0 to 100. Each check asks for what no
CT in HU has, so that padding of any value, metal, and volumes cropped to the body pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 250_000
"""About so many voxels of a regular subset are looked at."""
_FEWEST = 4096
"""Smaller volumes are not judged."""
_LOW, _HIGH = -4096, 4096
"""Range of the histogram in HU; values outside count as its ends."""


def doubts(hu: NDArray[Any]) -> tuple[str, ...]:
    """Say why values are probably not HU.

    Parameters
    ----------
    hu
        (z, y, x), as read.

    Returns
    -------
    Nothing, or one sentence for :attr:`Geometry.notes`.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 9, (20, 40, 40))
    >>> noise[:, :20] += 40
    >>> noise[:, 20:] -= 1000
    >>> doubts(noise), doubts(noise + 1024)
    ((), ('values lie about 1024 too high for HU, where air is -1000; subtract 1024 from them',))
    """
    if hu.size < _FEWEST:
        return ()
    step = max(1, round((hu.size / _SAMPLE) ** (1 / 3)))
    values = hu[::step, ::step, ::step].ravel()
    low, high = float(values.min()), float(values.max())
    if low == high:
        return ()
    scale = f"values from {low:.4g} to {high:.4g} are no HU, where air is -1000 and water 0"
    if high - low < 20 or (low >= 0 and high <= 255):
        return (f"{scale}; export the CT itself",)
    counts, constant = _histogram(values)
    offset = _offset(counts, constant)
    if offset is not None:
        verb, place = ("subtract", "from") if offset < 0 else ("add", "to")
        return (
            f"values lie about {abs(offset)} too {'high' if offset < 0 else 'low'} for HU, where "
            f"air is -1000; {verb} {abs(offset)} {place} them",
        )
    if constant.get(0, 0.0) > 0.1:
        return (
            f"{constant[0]:.0%} of the voxels are exactly 0 HU, which is water; "
            "fill what is outside with -1000",
        )
    if low >= 0 and float(np.quantile(values, 0.99)) > 300:
        return (f"{scale}; apply the rescale of the original",)
    return ()


def _histogram(values: NDArray[Any]) -> tuple[NDArray[np.float64], dict[int, float]]:
    """Shares of whole HU without constant fillings, and the shares of those fillings.

    Padding is one value far more frequent than those beside it; measured air has noise.
    """
    whole = np.clip(np.rint(values), _LOW, _HIGH).astype(np.int64) - _LOW
    counts = np.bincount(whole, minlength=_HIGH - _LOW + 1) / values.size
    beside = np.convolve(counts, [1, 1, 1, 0, 1, 1, 1], mode="same") / 6
    spikes = np.flatnonzero((counts > 0.01) & (counts > 5 * beside))
    constant = {int(n) + _LOW: float(counts[n]) for n in spikes}
    counts[spikes] = 0
    return counts, constant


def _offset(counts: NDArray[np.float64], constant: Mapping[int, float]) -> int | None:
    """Offset that would make shifted values HU; None where they are not shifted."""

    def share(low: int, high: int) -> float:
        return float(counts[low - _LOW : high - _LOW].sum())

    # Shifted up, soft tissue lies about 1000, narrow as no bone is, and nothing where air belongs.
    tissue = share(850, 1150)
    if share(-1500, -300) < 0.005 and tissue > 0.05 and tissue > 2 * share(1150, 1450):
        # All air became 0 where its noise falls off from there.
        clipped = 0 in constant and share(1, 4) > share(7, 10)
        return _usual(0 if clipped else _air(counts, -100, 60), -1)
    # Shifted down, it lies about -1000, air below everything, and nothing where tissue belongs.
    if share(_LOW, -1500) > 0.05 and share(-1300, -700) > 0.05 and share(-200, 200) < 0.01:
        return _usual(_air(counts, -2200, -1900), 1)
    return None


def _air(counts: NDArray[np.float64], low: int, high: int) -> int | None:
    """Where the air of shifted values lies; None if there is none between the limits."""
    part = np.convolve(counts, np.full(9, 1 / 9), mode="same")[low - _LOW : high - _LOW]
    return low + int(part.argmax()) if part.sum() > 0.01 else None


def _usual(air: int | None, sign: int) -> int:
    """Offset, of the two that files are shifted by: 1000, or 1024 as most scanners store CT.

    Air itself lies between -1024 and -940 HU, so its place tells little more than which of them.
    """
    return sign * (1000 if air is not None and abs(-1000 - air - 1000 * sign) <= 6 else 1024)
