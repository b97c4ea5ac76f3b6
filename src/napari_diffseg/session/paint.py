"""What the user has painted: label ids, the state of each slice, and the rules that guard them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.io.labels import MAX_LABEL, Label, default_colour, unnamed
from napari_diffseg.session.journal import SessionError


class SliceState(IntEnum):
    """What is known of a slice."""

    UNPAINTED = 0
    SCRIBBLED = 1
    PAINTED = 2
    ACCEPTED = 3


class Paint:
    """The truth of one session: labels, paint and slice states.

    Parameters
    ----------
    shape
        Shape of the volume ``(z, y, x)``.
    labels
        The structures to begin with.

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
    """

    def __init__(self, shape: tuple[int, int, int], labels: Iterable[Label] = ()) -> None:
        self.mask: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.states: NDArray[np.uint8] = np.zeros(shape[0], np.uint8)
        self.labels: tuple[Label, ...] = ()
        self.retired: frozenset[int] = frozenset()
        for label in labels:
            self._put(label)

    # Labels

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
        """Add a label with the lowest free id."""
        used = {label.id for label in self.labels} | self.retired
        free = next((i for i in range(1, MAX_LABEL + 1) if i not in used), None)
        if free is None:
            raise SessionError(f"all {MAX_LABEL} label ids are in use; remove a label first")
        return self._put(Label(free, name or unnamed(free), colour or default_colour(free)))

    def name_labels(self, names: dict[int, str]) -> None:
        """Rename the labels with these ids, and add those that are not there yet."""
        before = self.labels
        try:
            # Two labels may swap their names, so all the old ones go first.
            self.labels = tuple(label for label in before if label.id not in names)
            known = {label.id: label for label in before}
            for label_id, name in names.items():
                old = known.get(label_id, Label(label_id, name, default_colour(label_id)))
                self._put(replace(old, name=name))
        except SessionError:
            self.labels = before
            raise

    def recolour_label(self, label_id: int, colour: tuple[int, int, int]) -> None:
        """Give a label another colour: red, green, blue, 0 to 255."""
        if len(colour) != 3 or not all(0 <= part <= 255 for part in colour):
            raise SessionError(f"{colour} is no colour: give red, green and blue from 0 to 255")
        red, green, blue = map(int, colour)
        self._put(replace(self.label(label_id), colour=(red, green, blue)))

    def remove_label(self, label_id: int, retire: bool = False) -> None:
        """Remove a label that is painted nowhere; ``retire`` its id where a model knows it."""
        self.label(label_id)
        slices = self.slices_with(label_id)
        if slices:
            raise SessionError(
                f"{self.label(label_id).name} is painted on {len(slices)} slices "
                f"(the first is {slices[0]}); erase it there first"
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
        before = self.labels
        here = {label.id: label for label in before}
        try:
            for label in labels:
                old = here.get(label.id)
                if old is None or old.name == unnamed(old.id):
                    self._put(label)
                elif unnamed(old.id) != label.name and old.name.lower() != label.name.lower():
                    raise SessionError(
                        f"label {label.id} is {label.name!r} in the model but {old.name!r} here; "
                        "rename it, or start a session without labels"
                    )
        except SessionError:
            self.labels = before
            raise

    def recover_labels(self, labels: list[dict[str, Any]], retired: list[int]) -> None:
        """Put the labels of a journal in the place of all others."""
        self.labels = ()
        for label in labels:
            self._put(Label(label["id"], label["name"], tuple(label["colour"])))
        self.retired = frozenset(retired)

    def slices_with(self, label_id: int) -> list[int]:
        """Slices on which a label is painted."""
        marked = np.flatnonzero(self.states)
        return [int(z) for z in marked if (self.mask[z] == label_id).any()]

    # Slices

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

    def set_slice(self, z: int, mask: ArrayLike, state: SliceState | None = None) -> None:
        """Take a whole slice as painted; see ``Session.set_slice``."""
        z = self.check(z)
        given = np.asarray(mask)
        if given.shape != self.mask.shape[1:]:
            raise SessionError(
                f"a slice of this volume is {self.mask.shape[1:]} pixels (y, x), not {given.shape}"
            )
        plane = given.astype(np.uint8)
        if given.dtype != np.uint8 and not np.array_equal(plane, given):
            raise SessionError(f"slice {z}: label ids must be whole numbers from 0 to 255")
        ids = np.flatnonzero(np.bincount(plane.ravel(), minlength=256))
        painted = ids[-1] > 0
        if state is None:
            state = SliceState(int(self.states[z]))
            if not painted and state != SliceState.SCRIBBLED:
                state = SliceState.UNPAINTED
            elif painted and state == SliceState.UNPAINTED:
                state = SliceState.PAINTED
        if state == SliceState.UNPAINTED and painted:
            raise SessionError(f"slice {z} holds paint, so it cannot be unpainted; clear it")
        known = {label.id for label in self.labels} | {0, BACKGROUND}
        for stranger in set(ids.tolist()) - known:
            self._put(Label(stranger, unnamed(stranger), default_colour(stranger)))
        self.mask[z] = plane
        self.states[z] = state

    def set_state(self, z: int, state: SliceState) -> None:
        """Say how the paint of a slice is meant."""
        z = self.check(z)
        if state == SliceState.ACCEPTED and self.states[z] != SliceState.ACCEPTED:
            raise SessionError(f"slice {z} becomes accepted by accepting its prediction")
        self.set_slice(z, self.mask[z], SliceState(state))

    def accept(self, z: int, prediction: NDArray[np.uint8]) -> None:
        """Take the prediction ``(y, x)`` of a slice as truth, unless paint says otherwise."""
        z = self.check(z)
        known = self.known(z)
        if (self.mask[z] % BACKGROUND != prediction)[known].any():
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
        for z in np.flatnonzero(self.states):
            full = bool(self.states[z] >= SliceState.PAINTED)
            plane = self.mask[z].copy()
            if full:
                plane[plane == BACKGROUND] = 0
            elif not plane.any():
                continue
            taken.append(PaintedSlice(int(z), plane, full))
        return tuple(taken)

    def over(self, prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Lay the paint over a prediction ``(z, y, x)``; returns a new array."""
        merged = prediction.copy()
        for z in np.flatnonzero(self.states):
            known = self.known(int(z))
            merged[z][known] = self.mask[z][known] % BACKGROUND
        return merged
