"""Near-duplicate slices between volumes, by the distance of their thumbnails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_SIDE = 16
_CHUNK = 1024


@dataclass(frozen=True)
class Pair:
    """Two volumes that share slices.

    Attributes
    ----------
    first, second
        Their positions in the list.
    slices
        Slices of the second that look like one of the first.
    """

    first: int
    second: int
    slices: int


def thumbnails(slices: NDArray[np.int16]) -> NDArray[np.float32]:
    """Shrink slices ``(n, grid, grid)`` in HU to ``(n, 256)``, the window mapped to [0, 1]."""
    whole = np.empty((len(slices), _SIDE * _SIDE), np.float32)
    for index, plane in enumerate(slices):
        image = torch.from_numpy(np.clip(plane.astype(np.float32), -1024, 1000))[None, None]
        small = torch.nn.functional.adaptive_avg_pool2d(image, _SIDE)
        whole[index] = (small.numpy().ravel() + 1024) / 2024
    return whole


def near_duplicates(volumes: Sequence[NDArray[Any]], limit: float) -> list[Pair]:
    """Pairs of volumes with slices whose thumbnails differ by less than ``limit`` (RMS).

    Slices of one volume are not compared: neighbours are always alike. Nor are empty ones. All
    pairs of slices are compared by matrix products in blocks, so memory is bounded and time
    quadratic; 10^5 slices take about a minute.
    """
    if not volumes:
        return []
    flat = torch.from_numpy(np.concatenate(volumes))
    owner = np.repeat(np.arange(len(volumes)), [len(v) for v in volumes])
    empty = flat.std(dim=1).numpy() < limit
    # Centring loses nothing and keeps the difference of squares below well conditioned.
    flat = flat - flat.mean(dim=0)
    norms = flat.square().sum(dim=1)
    norms[torch.from_numpy(empty)] = float("inf")
    matched: set[tuple[int, int]] = set()
    for a in range(0, len(flat), _CHUNK):
        for b in range(a, len(flat), _CHUNK):
            products = flat[a : a + _CHUNK] @ flat[b : b + _CHUNK].T
            squared = norms[a : a + _CHUNK, None] + norms[None, b : b + _CHUNK] - 2 * products
            rows, columns = (squared < limit**2 * flat.shape[1]).nonzero(as_tuple=True)
            first, second = rows.numpy() + a, columns.numpy() + b
            apart = owner[first] < owner[second]
            matched.update(zip(owner[first[apart]].tolist(), second[apart].tolist(), strict=True))
    counts = Counter((first, int(owner[second])) for first, second in matched)
    return [Pair(first, second, n) for (first, second), n in sorted(counts.items())]
