"""What the user has painted: labels, label ids, slice states, and the rules that guard them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.planes import PaintedPlane
from napari_diffseg.io.labels import (
    MAX_LABEL,
    Label,
    default_colour,
    labels_from_json,
    load_names,
    unnamed,
)
from napari_diffseg.session.journal import Record, SessionError
from napari_diffseg.session.log import SessionLog
from napari_diffseg.session.planes import Planes
from napari_diffseg.session.states import SliceState as SliceState


class Snapshot(NamedTuple):
    """Copies of what is painted, and the :attr:`Paint.revision` that they are."""

    slices: tuple[PaintedSlice, ...]
    planes: tuple[PaintedPlane, ...]
    revision: int


class Paint:
    """What is known for certain of one volume: labels, paint and slice states.

    Parameters
    ----------
    shape
        Shape of the volume ``(z, y, x)``.
    labels
        The structures to begin with.
    log
        Where changes are journalled.

    Attributes
    ----------
    mask
        uint8 ``(z, y, x)``: label ids, 0 where nothing is painted, 255 painted background.
    states
        uint8 ``(z,)``, values of :class:`SliceState`.
    labels
        Sorted by id.
    retired
        Ids of removed labels that a trained model may still know; they are not given again.
    planes
        Coronal and sagittal planes that are painted.
    """

    def __init__(self, shape: tuple[int, ...], labels: Iterable[Label], log: SessionLog) -> None:
        self.mask: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.states: NDArray[np.uint8] = np.zeros(shape[0], np.uint8)
        self.labels: tuple[Label, ...] = ()
        self.retired: frozenset[int] = frozenset()
        self._revision = 0
        self._log = log
        self.planes = Planes(shape, log, self._introduce)
        for label in labels:
            self._put(label)

    # Labels

    @contextmanager
    def _relabelling(self) -> Iterator[dict[int, Label]]:
        """Journal what the block does to the labels, or undo it where a label is refused.

        Yields the labels by id.
        """
        with self._log.changing():
            before = self.labels
            try:
                yield {label.id: label for label in before}
            except SessionError:
                self.labels = before
                raise
            if self.labels != before:
                self._log.append(self._labels_record())

    def _put(self, label: Label) -> Label:
        if not 1 <= label.id <= MAX_LABEL:
            raise SessionError(f"label id {label.id} is outside 1 to {MAX_LABEL}; choose another")
        name = label.name.strip()
        if not name:
            raise SessionError("a label needs a name; type one")
        others = {other.id: other for other in self.labels if other.id != label.id}
        if name in (other.name for other in others.values()):
            raise SessionError(f"there is already a label {name!r}; choose another name")
        others[label.id] = replace(label, name=name)
        self.labels = tuple(others[key] for key in sorted(others))
        return others[label.id]

    def label(self, label_id: int) -> Label:
        """Return the label with this id.

        Raises
        ------
        SessionError
            If there is none.
        """
        for label in self.labels:
            if label.id == label_id:
                return label
        raise SessionError(f"there is no label with id {label_id}; add it first")

    def add_label(
        self, name: str | None = None, colour: tuple[int, int, int] | None = None
    ) -> Label:
        """Add a structure with the lowest free id."""
        with self._relabelling() as known:
            used = {*known, *self.retired}
            free = next((i for i in range(1, MAX_LABEL + 1) if i not in used), None)
            if free is None:
                raise SessionError(f"all {MAX_LABEL} label ids are in use; remove a label first")
            return self._put(Label(free, name or unnamed(free), colour or default_colour(free)))

    def rename_label(self, label_id: int, name: str) -> None:
        """Give a structure another name."""
        with self._relabelling():
            self._put(replace(self.label(label_id), name=name))

    def recolour_label(self, label_id: int, colour: tuple[int, int, int]) -> None:
        """Give a structure another colour: red, green, blue, 0 to 255."""
        if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
            raise SessionError(f"{colour} is no colour: give red, green and blue from 0 to 255")
        red, green, blue = map(int, colour)
        with self._relabelling():
            self._put(replace(self.label(label_id), colour=(red, green, blue)))

    def import_names(self, path: Path | str) -> None:
        """Name structures from a JSON file; those that are not there yet are added."""
        names = load_names(path)
        with self._relabelling() as known:
            # Two labels may swap their names, so all the old ones go first.
            self.labels = tuple(label for label in self.labels if label.id not in names)
            for label_id, name in names.items():
                old = known.get(label_id, Label(label_id, name, default_colour(label_id)))
                self._put(replace(old, name=name))

    def drop_label(self, label_id: int, retire: bool) -> None:
        """Remove a label that is painted nowhere; ``retire`` its id where a model knows it.

        :meth:`Session.remove_label` removes it from the prediction, too.
        """
        with self._relabelling():
            name, slices = self.label(label_id).name, self.slices_with(label_id)
            planes = self.planes.with_label(label_id)
            if slices:
                raise SessionError(
                    f"{name} is painted on {len(slices)} slices "
                    f"(the first is {slices[0]}); erase it there first"
                )
            if planes:
                axis, index = planes[0]
                raise SessionError(
                    f"{name} is painted on {len(planes)} coronal or sagittal planes "
                    f"(the first is {axis} {index}); erase it there first"
                )
            self.labels = tuple(label for label in self.labels if label.id != label_id)
            if retire:
                self.retired |= {label_id}

    def adopt(self, labels: Iterable[Label]) -> None:
        """Add the labels of a model, unless they contradict those that are here.

        Raises
        ------
        SessionError
            If an id or a name means something else here.
        """
        with self._relabelling() as here:
            for label in labels:
                old = here.get(label.id)
                if old is None or old.name == unnamed(old.id):
                    self._put(label)
                elif unnamed(old.id) != label.name and old.name.lower() != label.name.lower():
                    raise SessionError(
                        f"label {label.id} is {label.name!r} in the model but {old.name!r} here; "
                        "rename it, or start a session without labels"
                    )

    def adopt_by_name(self, labels: Iterable[Label]) -> NDArray[np.uint8]:
        """Add the labels of another patient that have no namesake here, capitals aside.

        Returns
        -------
        Table ``(256,)`` from their ids to those of this session.
        """
        table = np.zeros(256, np.uint8)
        for label in labels:
            here = {one.name.strip().lower(): one.id for one in self.labels}
            known = here.get(label.name.strip().lower())
            nameless = label.name.strip() in ("", unnamed(label.id))
            taken = label.id in here.values()
            if known is not None:
                table[label.id] = known
            elif nameless and taken:  # as in a NIfTI file, which holds no names
                table[label.id] = label.id
            elif not taken and label.id not in self.retired:
                self.adopt([label])
                table[label.id] = label.id
            else:
                name = None if nameless else label.name
                table[label.id] = self.add_label(name, label.colour).id
        return table

    def recover_labels(self, labels: list[dict[str, Any]], retired: list[int]) -> None:
        """Put the labels of a journal in the place of all others."""
        known, gone = labels_from_json(labels), frozenset(map(int, retired))
        before, self.labels = self.labels, ()
        try:
            for label in known:
                self._put(label)
        except SessionError:
            self.labels = before
            raise
        self.retired = gone

    def slices_with(self, label_id: int) -> list[int]:
        """Slices on which a label is painted."""
        marked = np.flatnonzero(self.states)
        return [int(z) for z in marked if (self.mask[z] == label_id).any()]

    def _introduce(self, ids: Iterable[int]) -> None:
        """Give labels to ids that have none."""
        with self._relabelling() as known:
            for stranger in set(ids) - {*known, 0, BACKGROUND}:
                self._put(Label(stranger, unnamed(stranger), default_colour(stranger)))

    # Slices

    @property
    def revision(self) -> int:
        """Grows with every change of a slice or a plane."""
        return self._revision + self.planes.revision

    def check(self, z: int) -> int:
        """Return ``z`` as an int.

        Raises
        ------
        SessionError
            If the volume has no such slice.
        """
        if not 0 <= z < len(self.states):
            raise SessionError(f"there is no slice {z}: the volume has 0 to {len(self.states) - 1}")
        return int(z)

    def state(self, z: int) -> SliceState:
        """State of one slice."""
        return SliceState(int(self.states[self.check(z)]))

    def set_slice(self, z: int, mask: ArrayLike, state: SliceState | None = None) -> None:
        """Take a whole slice as painted; call it after each stroke.

        Parameters
        ----------
        z
            Slice index.
        mask
            Label ids ``(y, x)``; may be the very memory of :attr:`mask`. Ids that have no label
            get one.
        state
            How the paint is meant. ``None`` keeps the state, and makes a fresh slice painted in
            full. A slice that holds no paint any more (an undone stroke) becomes unpainted,
            unless it is scribbled: a slice on which there is truly nothing needs
            ``SliceState.PAINTED``.

        Raises
        ------
        SessionError
            If slice or mask do not fit the volume.
        """
        z = self.check(z)
        given = np.asarray(mask)
        if given.shape != self.mask.shape[1:]:
            raise SessionError(
                f"a slice of this volume is {self.mask.shape[1:]} pixels (y, x), not {given.shape}"
            )
        plane = given.astype(np.uint8)
        if given.dtype != np.uint8 and not np.array_equal(plane, given):
            raise SessionError(f"slice {z}: label ids must be whole numbers from 0 to 255")
        ids = np.flatnonzero(np.bincount(plane.ravel(), minlength=256)).tolist()
        painted = ids[-1] > 0
        with self._log.changing():
            if state is None:
                state = self.state(z)
                if not painted and state != SliceState.SCRIBBLED:
                    state = SliceState.UNPAINTED
                elif painted and state == SliceState.UNPAINTED:
                    state = SliceState.PAINTED
            if state == SliceState.UNPAINTED and painted:
                raise SessionError(f"slice {z} holds paint, so it cannot be unpainted; clear it")
            self.mask[z] = plane
            self.states[z] = state
            self._revision += 1
            self._introduce(ids)  # last, for it is journalled, which may fail
            self._log.append(self._slice_record(z))

    def set_state(self, z: int, state: SliceState) -> None:
        """Say whether a slice is painted in full or scribbled.

        Raises
        ------
        SessionError
            If the slice holds paint and is called unpainted, or was not accepted.
        """
        z = self.check(z)
        if state == SliceState.ACCEPTED and self.states[z] != SliceState.ACCEPTED:
            raise SessionError(f"slice {z} becomes accepted by accepting its prediction")
        self.set_slice(z, self.mask[z], SliceState(state))

    def clear_slice(self, z: int) -> None:
        """Take the paint off a slice."""
        self.set_slice(z, np.zeros(self.mask.shape[1:], np.uint8), SliceState.UNPAINTED)

    def accept(self, z: int, prediction: NDArray[np.uint8]) -> None:
        """Take this prediction ``(y, x)`` of a slice as paint, unless paint says otherwise.

        :meth:`Session.accept` does so with the session's own prediction.
        """
        prediction = prediction.copy()
        self.planes.lay_over(prediction[None], z)
        if (self.mask[z] % BACKGROUND != prediction)[self.known(z)].any():
            raise SessionError(
                f"slice {z} holds paint that differs from the prediction; "
                "paint is never overwritten, so clear the slice first"
            )
        if self.states[z] != SliceState.PAINTED:
            self.set_slice(z, prediction, SliceState.ACCEPTED)

    def known(self, z: int) -> NDArray[np.bool_]:
        """Pixels ``(y, x)`` of a slice whose truth is known."""
        if self.states[z] >= SliceState.PAINTED:
            return np.ones(self.mask.shape[1:], bool)
        return np.asarray(self.mask[z] != 0)

    def painted(self) -> tuple[PaintedSlice, ...]:
        """Copies of all painted slices, as training takes them."""
        taken = []
        with self._log.lock:
            for z in np.flatnonzero(self.states):
                full = bool(self.states[z] >= SliceState.PAINTED)
                plane = self.mask[z].copy()
                if full:
                    plane[plane == BACKGROUND] = 0
                elif not plane.any():
                    continue
                taken.append(PaintedSlice(int(z), plane, full))
        return tuple(taken)

    def snapshot(self) -> Snapshot:
        """Copies of all painted slices and planes, and the revision that they are."""
        with self._log.lock:
            return Snapshot(self.painted(), self.planes.painted(), self.revision)

    def over(self, prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Lay the paint over a prediction ``(z, y, x)``; returns a new array."""
        with self._log.lock:
            merged = prediction.copy()
            self.planes.lay_over(merged)
            for z in np.flatnonzero(self.states).tolist():
                known = self.known(z)
                merged[z][known] = self.mask[z][known] % BACKGROUND
        return merged

    # Journal

    def records(self) -> Iterator[Record]:
        """The whole state, as the shortest journal that leads to it."""
        yield self._labels_record()
        for z in np.flatnonzero(self.states):
            yield self._slice_record(int(z))
        yield from self.planes.records()

    def _labels_record(self) -> Record:
        labels = [asdict(label) for label in self.labels]
        return Record({"op": "labels", "labels": labels, "retired": sorted(self.retired)})

    def _slice_record(self, z: int) -> Record:
        return Record({"op": "slice", "z": z, "state": int(self.states[z])}, self.mask[z])
