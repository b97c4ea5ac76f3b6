"""Corrected slices: what a model got wrong on them, and whether the next one does so again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.session.rounds import Round, StoredPrediction

CORRECTED_WEIGHT = 3.0
"""How often as much as another painted slice a corrected one counts."""

CONTINUE_SECONDS = 8.0
"""Longest learning of a *Continue* after few corrections, where time is limited at all."""

_FEW = 3  # corrected slices that are learnt from so quickly
_NEIGHBOURS = 2  # slices on each side that are looked at for the same mistake
_SHARE = 0.5  # of a mistake's pixels that are still there, for it to count as the same
_MIN_MM2 = 100.0  # area of a mistake that is worth a sentence
_EDGE_MM = 1.4  # half the width of what is too narrow to be more than an edge that has moved

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Repeated:
    """A mistake that was corrected on one slice and is still there on another one.

    Attributes
    ----------
    z
        Slice that shows it.
    corrected
        Slice on which it was corrected.
    label, truth
        Id that it shows, and the id that the correction gave; 0 is background.
    mm2
        Area.
    """

    z: int
    corrected: int
    label: int
    truth: int
    mm2: float

    @property
    def reason(self) -> str:
        """Why to look at the slice."""
        return f"Slice {self.z}: repeats what you corrected on slice {self.corrected}"


@dataclass(frozen=True, eq=False)
class Corrections:
    """What the painter has corrected since a round.

    Attributes
    ----------
    slices
        Slices painted in full since the round that its model had predicted otherwise, ascending.
    earlier
        Slices that were corrected before it.
    """

    slices: tuple[int, ...] = ()
    earlier: tuple[int, ...] = ()
    _truth: Mapping[int, Mask] | None = None
    _was: Mapping[int, Mask] | None = None  # the round's prediction, of their neighbours, too

    @classmethod
    def since(
        cls, made: Round | None, stored: StoredPrediction | None, painted: Sequence[PaintedSlice]
    ) -> Corrections:
        """Find the corrections.

        Parameters
        ----------
        made
            The round; ``None`` where nothing was trained yet.
        stored
            What its model predicted.
        painted
            What is painted now.
        """
        if made is None:
            return cls()
        full = {slice_.z: slice_.mask for slice_ in painted if slice_.full}
        earlier = tuple(z for z in made.corrected if z in full)
        if stored is None:
            return cls(earlier=earlier)
        was = dict(zip(stored.slices.tolist(), stored.mask, strict=True))
        learnt = set(made.slices)
        found = tuple(
            z
            for z, mask in sorted(full.items())
            if z not in learnt and z in was and (was[z] != mask).any()
        )
        near = {z + n for z in found for n in range(-_NEIGHBOURS, _NEIGHBOURS + 1)}
        return cls(
            found,
            earlier,
            {z: full[z] for z in found},
            {z: was[z] for z in sorted(near) if z in was},
        )

    @property
    def all(self) -> tuple[int, ...]:
        """All corrected slices, ascending."""
        return tuple(sorted({*self.slices, *self.earlier}))

    def weighted(self, painted: Sequence[PaintedSlice]) -> tuple[PaintedSlice, ...]:
        """Let corrected slices count more."""
        mine = set(self.all)
        return tuple(
            replace(slice_, weight=CORRECTED_WEIGHT) if slice_.z in mine else slice_
            for slice_ in painted
        )

    def quick(self, settings: TrainSettings) -> TrainSettings:
        """Shorten the learning where a model goes on after few corrections."""
        few = 0 < len(self.slices) <= _FEW and settings.iterations is None
        if not few or settings.seconds is None:
            return settings
        return replace(settings, seconds=min(settings.seconds, CONTINUE_SECONDS))

    def repeated(
        self, prediction: Mask, left_alone: NDArray[np.bool_], pixel: tuple[float, float]
    ) -> tuple[Repeated, ...]:
        """Find mistakes that the next prediction repeats beside the slice they were corrected on.

        Parameters
        ----------
        prediction
            The next prediction ``(z, y, x)``.
        left_alone
            Slices ``(z,)`` on which nobody asks for it: painted, or corrected by hand.
        pixel
            Size of a pixel ``(y, x)`` in mm.

        Returns
        -------
        Each slice once, with the largest mistake on it; the largest one first.

        Notes
        -----
        The mistake on a neighbour are the pixels that had the wrong label of the corrected slice
        there, too, without what is only a thin rim, for edges move from slice to slice. It is
        repeated where at least half of it is left.
        """
        if self._truth is None or self._was is None:
            return ()
        found: dict[int, Repeated] = {}
        thin, mm2 = round(_EDGE_MM / min(pixel)), pixel[0] * pixel[1]
        for corrected, truth in self._truth.items():
            before = self._was[corrected]
            for z in range(corrected - _NEIGHBOURS, corrected + _NEIGHBOURS + 1):
                if z == corrected or z not in self._was or left_alone[z]:
                    continue
                same = (before != truth) & (self._was[z] == before)
                if thin:
                    same = ndimage.binary_opening(same, iterations=thin)
                still = same & (prediction[z] == before)
                area = float(np.count_nonzero(still) * mm2)
                if area < max(_MIN_MM2, _SHARE * np.count_nonzero(same) * mm2):
                    continue
                if z not in found or area > found[z].mm2:
                    label, right = _most(before[still]), _most(truth[still])
                    found[z] = Repeated(z, corrected, label, right, area)
        return tuple(sorted(found.values(), key=lambda one: -one.mm2))


def _most(values: Mask) -> int:
    return int(np.bincount(values).argmax())


def sentence(repeated: Sequence[Repeated], names: Mapping[int, str]) -> str:
    """Say in one sentence which slices repeat a mistake; empty where none does."""
    if not repeated:
        return ""
    first = repeated[0]
    what = f"{names.get(first.label, 'background')} for {names.get(first.truth, 'background')}"
    others = sorted({one.z for one in repeated[1:]})
    more = f" (also {', '.join(map(str, others))})" if others else ""
    return f"Slice {first.z}{more} repeats what you corrected on slice {first.corrected}: {what}."
