"""Label propagation: painted labels, warped from slice to slice along the volume."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_diffseg.engine.registration import Registration
from napari_diffseg.network.losses import UNKNOWN

_LOSS_PER_SLICE = 0.05  # share of every label that is given up with each slice
_MIN_REACH = 3.0  # slices over which the nearer painted slice outweighs the farther one, at least
_REACH_PER_GAP = 0.2  # the same as a share of the gap: in a wide one neither is near


class PropagatedLabels:
    """Class probabilities that painted slices give the slices around them.

    Each step along the volume gives up a share of what is known, so trust fades with distance.
    Only two gaps between painted slices are held, in 8 bits.

    Parameters
    ----------
    registration
        Displacements between neighbouring slices.
    sources
        Class maps ``(rows, columns)`` int64 of the painted slices, by slice.
    classes
        Number of classes, background included.
    complete
        Gives the class probabilities of a source with ``UNKNOWN`` pixels, when they are first
        needed.

    Attributes
    ----------
    alone
        Whether a single slice is all that the head beside it has learnt from.
    """

    def __init__(
        self,
        registration: Registration,
        sources: Mapping[int, Tensor],
        classes: int,
        complete: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.registration, self.classes = registration, classes
        self.sources = dict(sorted(sources.items()))
        self.alone = len(self.sources) == 1
        self._complete = complete
        self._completed: dict[int, Tensor] = {}
        self._gaps: OrderedDict[tuple[int, int], dict[int, Tensor]] = OrderedDict()

    def distance(self, z: int) -> int:
        """Slices from ``z`` to the nearest source."""
        return min(abs(z - source) for source in self.sources)

    def at(self, z: int) -> Tensor:
        """Class probabilities ``(classes, rows, columns)`` of slice ``z``."""
        if z in self.sources:
            return self._source(z)
        below = max((s for s in self.sources if s < z), default=-1)
        above = min((s for s in self.sources if s > z), default=-1)
        gap = self._gaps.get((below, above))
        if gap is None:
            gap = self._gaps[below, above] = self._propagate(below, above)
            while len(self._gaps) > 2:
                self._gaps.popitem(last=False)
        return gap[z].float() / 255

    def seeds(self, z: int) -> Tensor | None:
        """Class indices ``(rows, columns)`` of what is known of a slice that is no source."""
        return None

    def completes(self, z: int) -> bool:
        """Whether slice ``z`` is a source with pixels that had to be completed."""
        return z in self.sources and bool((self.sources[z] == UNKNOWN).any())

    def _source(self, z: int) -> Tensor:
        if self._complete is None or not self.completes(z):
            return F.one_hot(self.sources[z], self.classes).movedim(-1, 0).float()
        if z not in self._completed:
            self._completed[z] = (self._complete(z) * 255).round().byte()
        return self._completed[z].float() / 255

    def _propagate(self, below: int, above: int) -> dict[int, Tensor]:
        """Fill the gap between two sources (-1 where there is none), in 8 bits by slice."""
        found: dict[int, Tensor] = {}
        first, last = below + 1, above if above >= 0 else len(self.registration.up) + 1
        if below >= 0:
            p = self._source(below)  # (classes, rows, columns)
            for z in range(first, last):
                p = self._faded(_warp(p, self.registration.down[z - 1]))
                found[z] = (p * 255).round().byte()
        if above >= 0:
            p = self._source(above)
            reach = max(_MIN_REACH, _REACH_PER_GAP * (above - below))
            for z in reversed(range(first, last)):
                p = self._faded(_warp(p, self.registration.up[z]))
                merged = p
                if below >= 0:
                    weight = math.exp((above - z - (z - below)) / reach)  # of what came from below
                    merged = (p + weight * found[z].float() / 255) / (1 + weight)
                found[z] = (merged * 255).round().byte()
        return found

    def _faded(self, p: Tensor) -> Tensor:
        return (1 - _LOSS_PER_SLICE) * p + _LOSS_PER_SLICE / self.classes


def _warp(x: Tensor, displacement: NDArray[np.float16]) -> Tensor:
    """Take maps ``(C, rows, columns)`` at the points that the displacement leads to."""
    rows, columns = x.shape[-2:]
    d = torch.from_numpy(displacement.astype(np.float32))
    y = (torch.arange(rows)[:, None] + d[0]) * (2 / max(rows - 1, 1)) - 1
    c = (torch.arange(columns) + d[1]) * (2 / max(columns - 1, 1)) - 1
    where = torch.stack([c, y], dim=-1)[None]
    return F.grid_sample(
        x[None], where, mode="bilinear", padding_mode="border", align_corners=True
    )[0]
