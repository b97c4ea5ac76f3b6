"""Label propagation: what painted slices tell of the unpainted ones between them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_diffseg.engine.registration import Motion
from napari_diffseg.network.losses import UNKNOWN

_LEAK = 0.05  # share of every label that is given up per slice travelled
_REACH = 3.0  # slices; how fast the nearer painted slice outweighs the farther one, at least
_SHARE = 0.2  # the same as a share of the gap: in a wide one neither is near


def _warp(x: Tensor, displacement: NDArray[np.float16]) -> Tensor:
    rows, columns = x.shape[-2:]
    d = torch.from_numpy(displacement.astype(np.float32))
    y = (torch.arange(rows)[:, None] + d[0]) * (2 / max(rows - 1, 1)) - 1
    c = (torch.arange(columns) + d[1]) * (2 / max(columns - 1, 1)) - 1
    where = torch.stack([c, y], dim=-1)[None]
    return F.grid_sample(
        x[None], where, mode="bilinear", padding_mode="border", align_corners=True
    )[0]


class Prior:
    """Label probabilities that travelled from the painted slices.

    Each step along the volume gives up a share of what is known, so trust fades with distance.
    Only the stretch between two painted slices is held, in 8 bits.

    Parameters
    ----------
    motion
        Displacements between neighbouring slices.
    sources
        Class maps ``(rows, columns)`` int64 of the painted slices, by slice.
    classes
        Number of classes, background included.
    complete
        Gives the class probabilities of a source with pixels that are
        ``UNKNOWN``, when they are first needed.
    """

    def __init__(
        self,
        motion: Motion,
        sources: Mapping[int, Tensor],
        classes: int,
        complete: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.motion, self.sources, self.classes = motion, dict(sorted(sources.items())), classes
        self._complete = complete
        self._completed: dict[int, Tensor] = {}
        self._held: OrderedDict[tuple[int, int], dict[int, Tensor]] = OrderedDict()

    def distance(self, z: int) -> int:
        """Slices from ``z`` to the nearest source."""
        return min(abs(z - source) for source in self.sources)

    def at(self, z: int) -> Tensor:
        """Class probabilities ``(classes, rows, columns)`` of slice ``z``."""
        if z in self.sources:
            return self._source(z)
        ends = list(self.sources)
        below = max((s for s in ends if s < z), default=-1)
        above = min((s for s in ends if s > z), default=-1)
        stretch = self._held.get((below, above))
        if stretch is None:
            stretch = self._held[below, above] = self._travel(below, above)
            while len(self._held) > 2:
                self._held.popitem(last=False)
        return stretch[z].float() / 255

    def completes(self, z: int) -> bool:
        """Whether slice ``z`` is a source with pixels that had to be completed."""
        return z in self.sources and bool((self.sources[z] == UNKNOWN).any())

    def _source(self, z: int) -> Tensor:
        if self._complete is None or not self.completes(z):
            return F.one_hot(self.sources[z], self.classes).movedim(-1, 0).float()
        if z not in self._completed:
            self._completed[z] = (self._complete(z) * 255).round().byte()
        return self._completed[z].float() / 255

    def _travel(self, below: int, above: int) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        last = len(self.motion.up)
        if below >= 0:
            p = self._source(below)
            for z in range(below + 1, above if above >= 0 else last + 1):
                p = (1 - _LEAK) * _warp(p, self.motion.down[z - 1]) + _LEAK / self.classes
                found[z] = (p * 255).round().byte()
        if above >= 0:
            p = self._source(above)
            reach = max(_REACH, _SHARE * (above - below))
            for z in range(above - 1, below, -1):
                p = (1 - _LEAK) * _warp(p, self.motion.up[z]) + _LEAK / self.classes
                merged = p
                if below >= 0:
                    nearer = np.exp((above - z - (z - below)) / reach)
                    merged = (p + nearer * found[z].float() / 255) / (1 + nearer)
                found[z] = (merged * 255).round().byte()
        return found
