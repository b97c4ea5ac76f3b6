"""What the user does with more than a brush: labels made elsewhere, edits, copies, filled gaps.

What takes long is computed first, as a :class:`Proposal`, also in a thread; :meth:`Tools.put` makes
it true. Everything is journalled slice by slice like a stroke, so that a killed process loses
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.engine.edit import Edit, replaced
from napari_diffseg.engine.neighbours import between, fitted
from napari_diffseg.io.labels import LabelMap
from napari_diffseg.io.volume import Volume
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.log import SessionLog
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.prediction import Prediction
from napari_diffseg.session.rounds import Rounds

Target = Literal["paint", "prediction"]


@dataclass(frozen=True)
class Changes:
    """Slices that were changed, and slices that were left alone because they hold paint."""

    changed: tuple[int, ...]
    left: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Proposal:
    """Slices as they would become, and as they were when this was computed.

    Attributes
    ----------
    target
        Paint or prediction.
    planes, before
        Label ids ``(y, x)`` by slice; only slices that differ.
    modelled
        Whether they are a model's prediction, so that they no longer count as corrected.
    """

    target: Target
    planes: Mapping[int, NDArray[np.uint8]]
    before: Mapping[int, NDArray[np.uint8]]
    modelled: bool = False


class Tools:
    """Changes to paint and prediction that are no strokes.

    Parameters
    ----------
    volume
        The CT.
    paint, prediction, rounds, log
        The other parts of the session.
    """

    def __init__(
        self, volume: Volume, paint: Paint, prediction: Prediction, rounds: Rounds, log: SessionLog
    ) -> None:
        self._volume = volume
        self._paint, self._prediction, self._rounds, self._log = paint, prediction, rounds, log

    def edited(
        self,
        edit: Edit,
        label_id: int,
        target: Target = "paint",
        z: int | None = None,
        locked: Collection[int] = (),
    ) -> Proposal:
        """Edit one label, on one slice or everywhere.

        Everywhere is every painted slice by itself, or the prediction as one volume. The label
        takes free pixels only.

        Raises
        ------
        SessionError
            If there is no such label, it is locked, or it is not there.
        """
        label = self._paint.label(label_id)
        if label_id in locked:
            raise SessionError(f"{label.name} is locked; unlock it first")
        mask = self._mask(target)
        spacing = self._volume.geometry.spacing
        if z is None and target == "prediction":
            with self._log.lock:
                before = mask.copy()
            inside = before == label_id
            wanted = edit(inside, spacing)
            slices = np.flatnonzero((wanted != inside).any(axis=(1, 2))).tolist()
            found = bool(inside.any())
            planes = {k: replaced(before[k], label_id, wanted[k]) for k in slices}
        else:
            at = np.flatnonzero(self._paint.states).tolist() if z is None else [z]
            planes, found = {}, False
            for k in map(self._paint.check, at):
                plane = mask[k].copy()
                inside = plane == label_id
                found |= bool(inside.any())
                planes[k] = replaced(plane, label_id, edit(inside, spacing[1:]))
        if not found:
            where = f"slice {z}" if z is not None else f"the {target}"
            raise SessionError(f"{label.name} is not on {where}")
        return self._proposal(target, planes)

    def copied(
        self,
        z: int,
        source: int,
        target: Target = "paint",
        fit: bool = False,
        locked: Collection[int] = (),
    ) -> Proposal:
        """Copy the labels of another slice, as paint over prediction shows them, to slice ``z``.

        They take free pixels only; locked labels are not copied.

        Parameters
        ----------
        z, source
            Where to, and where from.
        target
            Paint or prediction.
        fit
            Move them to where the same anatomy lies on slice ``z`` (registration).
        locked
            Label ids.

        Raises
        ------
        SessionError
            If there is nothing to copy.
        """
        z, source = self._paint.check(z), self._paint.check(source)
        with self._log.lock:
            known = self._paint.known(source)
            plane = np.where(known, self._paint.mask[source], self._prediction.mask[source])
            here = self._mask(target)[z].copy()
        plane[(plane == BACKGROUND) | np.isin(plane, list(locked))] = 0
        if not plane.any():
            raise SessionError(f"slice {source} holds no label to copy")
        if fit:
            plane = fitted(self._volume, plane, source, z)
        return self._proposal(target, {z: np.where(here == 0, plane, here)})

    def filled(self, z: int | None = None, locked: Collection[int] = ()) -> Proposal:
        """Predict the slices between painted ones from these alone, without training.

        Parameters
        ----------
        z
            The slice whose gap is filled; ``None`` is every gap.
        locked
            Ids of labels that neither gain nor lose.

        Raises
        ------
        SessionError
            If no slice lies between two that are painted in full.
        """
        with self._log.lock:
            full = np.flatnonzero(self._paint.states >= SliceState.PAINTED).tolist()
            if z is not None:
                full = [max((k for k in full if k <= z), default=-1),
                        min((k for k in full if k >= z), default=-1)]  # fmt: skip
            planes = {k: self._paint.mask[k] % BACKGROUND for k in full if k >= 0}
        if len(planes) < 2 or max(planes) - min(planes) < 2:
            raise SessionError("fill between needs a gap between two slices painted in full")
        found = between(self._volume, planes)
        mask = self._mask("prediction")
        for k, plane in found.items():
            kept = np.isin(plane, list(locked)) | np.isin(mask[k], list(locked))
            plane[kept] = mask[k][kept]
        return self._proposal("prediction", found)

    def modelled(self, z: int | None = None) -> Proposal:
        """Give corrected slices their model's prediction back.

        Parameters
        ----------
        z
            The slice; ``None`` is every slice that was corrected and not accepted since.

        Raises
        ------
        SessionError
            If there is nothing to give back, or what was predicted is no longer stored.
        """
        with self._log.lock:
            corrected = self._prediction.edited if z is None else {self._paint.check(z)}
            wanted = corrected & self._prediction.edited
            made = {k: int(self._prediction.round_of[k]) for k in wanted}
        if not wanted:
            raise SessionError(
                "no slice is corrected" if z is None else f"slice {z} is not corrected"
            )
        planes = {}
        for number in sorted(set(made.values()) - {0}):
            stored = self._rounds.prediction(number)
            if stored is not None:
                for k, plane in zip(stored.slices.tolist(), stored.mask, strict=True):
                    if made.get(k) == number:
                        planes[k] = plane
        if not planes:
            raise SessionError("no model has predicted this yet; press Predict all")
        mask = self._prediction.mask
        before = {k: mask[k].copy() for k in sorted(planes)}
        return Proposal("prediction", planes, before, modelled=True)

    def put(self, proposal: Proposal) -> tuple[int, ...]:
        """Make a proposal true; returns the slices that it changed.

        In the prediction they count as corrected by hand, unless they are a model's.

        Raises
        ------
        SessionError
            If one of the slices has changed since it was computed; nothing is put then.
        """
        mask = self._mask(proposal.target)
        with self._log.lock:
            for z, before in proposal.before.items():
                if not np.array_equal(mask[z], before):
                    raise SessionError(f"slice {z} has changed meanwhile; try again")
            for z, plane in proposal.planes.items():
                if proposal.target == "paint":
                    self._paint.set_slice(z, plane)
                elif proposal.modelled:
                    self._prediction.revert(z, plane)
                else:
                    self._prediction.edit(z, plane)
        return tuple(proposal.planes)

    def _mask(self, target: Target) -> NDArray[np.uint8]:
        return self._paint.mask if target == "paint" else self._prediction.mask

    def _proposal(self, target: Target, planes: Mapping[int, NDArray[np.uint8]]) -> Proposal:
        mask = self._mask(target)
        before = {z: mask[z].copy() for z in sorted(planes)}
        changed = [z for z in before if not np.array_equal(before[z], planes[z])]
        return Proposal(target, {z: planes[z] for z in changed}, {z: before[z] for z in changed})

    def bring(
        self,
        labels: LabelMap,
        slices: Collection[int] | None = None,
        target: Target = "paint",
        replace: bool = False,
    ) -> Changes:
        """Take labels that were made elsewhere.

        A label with the name of one that is here becomes that one; others keep their id where it
        is free. As paint, each slice counts as painted in full.

        Parameters
        ----------
        labels
            On the grid of the volume, as :func:`~napari_diffseg.io.volume.read_labels` gives them.
        slices
            Which slices; ``None`` is those that hold a label.
        target
            ``"prediction"`` is something to correct and accept, which later predictions leave
            alone.
        replace
            Replace the paint that is there; otherwise slices that hold paint are left alone.

        Raises
        ------
        SessionError
            If nothing can be taken.
        """
        holding = np.flatnonzero(labels.mask.any(axis=(1, 2))).tolist()
        wanted = holding if slices is None else sorted({self._paint.check(z) for z in slices})
        if not set(wanted) & set(holding):
            raise SessionError(
                f"the chosen slices hold no label; they are on slices {holding[0]} to {holding[-1]}"
                if holding
                else "there are no labels to take; choose another file"
            )
        with self._log.lock:
            painted = {z for z in wanted if self._paint.states[z] != SliceState.UNPAINTED}
            left = set() if replace or target == "prediction" else painted
            taken = [z for z in wanted if z not in left]
            if not taken:
                raise SessionError("every chosen slice holds paint already; nothing was replaced")
            ids = self._paint.adopt_by_name(labels.labels)
            for z in taken:
                plane = ids[labels.mask[z]]
                if target == "paint":
                    self._paint.set_slice(z, plane, SliceState.PAINTED)
                else:
                    self._prediction.edit(z, plane)
        return Changes(tuple(taken), tuple(sorted(left)))
