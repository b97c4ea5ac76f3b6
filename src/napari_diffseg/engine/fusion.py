"""Labels propagated from transverse slices, fused with those of the planes that cross them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.engine.crossing import FADE_MM, Crossing
from napari_diffseg.engine.propagation import PropagatedLabels
from napari_diffseg.engine.registration import Registration
from napari_diffseg.network.losses import UNKNOWN

_MIN_WEIGHT = 1e-6  # of the transverse slices, so that their labels stand where no plane reaches


class FusedLabels(PropagatedLabels):
    """Labels propagated from transverse slices and from planes that cross them.

    For each class, either counts by the distance to the nearest plane or slice that shows it.

    Parameters
    ----------
    registration, sources, classes, complete
        As for :class:`PropagatedLabels`; there may be no source.
    crossing
        What the planes say.
    """

    def __init__(
        self,
        registration: Registration,
        sources: Mapping[int, Tensor],
        classes: int,
        complete: Callable[[int], Tensor] | None,
        crossing: Crossing,
    ) -> None:
        super().__init__(registration, sources, classes, complete)
        self._crossing = crossing
        self._shown = {
            z: torch.bincount(source[source != UNKNOWN], minlength=classes) > 0
            for z, source in self.sources.items()
        }
        self.helps = self._helps()

    def distance(self, z: int) -> int:
        """Slices from ``z`` to the nearest source; 1 where only planes are painted."""
        return super().distance(z) if self.sources else 1

    def seeds(self, z: int) -> Tensor | None:
        """Painted pixels of planes on slice ``z``; ``None`` where the slice is painted itself."""
        return None if z in self.sources else self._crossing.seeds[z].long()

    def at(self, z: int) -> Tensor:
        """Class probabilities ``(classes, rows, columns)`` of slice ``z``."""
        if z in self.sources:
            return super().at(z)
        if not self.sources:
            own = torch.full((self.classes, *self._crossing.seeds.shape[1:]), 1 / self.classes)
        else:
            own = super().at(z)
        return self._fused(z, own, list(self.sources)) if self.helps else own

    def _fused(self, z: int, own: Tensor, sources: list[int]) -> Tensor:
        """Fuse what transverse ``sources`` give slice ``z`` with what planes give it."""
        weights = torch.full((self.classes,), _MIN_WEIGHT)
        for source in sources:
            near = math.exp(-abs(z - source) * self._crossing.spacing / FADE_MM)
            weights = weights.maximum(self._shown[source] * near)
        total, weight = weights[:, None, None] * own, weights[:, None, None]
        for labels in self._crossing.propagated:
            p, near_by = labels.at(z, (own.shape[1], own.shape[2]))
            total, weight = total + near_by * p, weight + near_by
        fused = total / weight
        return fused / fused.sum(dim=0)

    def _helps(self) -> bool:
        """Whether planes improve slices painted in full that are left out; of one, nobody knows."""
        full = {z: source for z, source in self.sources.items() if not (source == UNKNOWN).any()}
        if len(full) < 2 or not self._crossing.propagated:
            return True
        alone, joint = 0.0, 0.0
        for z, truth in full.items():
            rest = {at: source for at, source in full.items() if at != z}
            own = PropagatedLabels(self.registration, rest, self.classes).at(z)
            alone += _overlap(own, truth, self.classes)
            joint += _overlap(self._fused(z, own, list(rest)), truth, self.classes)
        return joint >= alone


def _overlap(p: Tensor, truth: Tensor, classes: int) -> float:
    """Sum of the Dice of the structures on a slice."""
    a, b = (F.one_hot(x.flatten(), classes).float() for x in (p.argmax(dim=0), truth))
    total = (a.sum(dim=0) + b.sum(dim=0))[1:]
    return float((2 * (a * b).sum(dim=0)[1:] / total.clamp(min=1)).sum())
