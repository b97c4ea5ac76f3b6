"""Coronal and sagittal planes that the user has painted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.engine.planes import ARRAY_AXIS, Axis, PaintedPlane, plane_shape, ranked
from napari_diffseg.session.journal import Record, SessionError
from napari_diffseg.session.log import SessionLog
from napari_diffseg.session.states import SliceState

Key = tuple[Axis, int]


@dataclass(frozen=True, eq=False)
class _Known:
    mask: NDArray[np.uint8]
    state: SliceState


class Planes:
    """The planes across the slices on which something is painted, each with a state of its own.

    What is painted on a plane never changes the state of a slice, nor the other way round.

    Parameters
    ----------
    shape
        Shape of the volume ``(z, y, x)``.
    log
        Where changes are journalled.
    introduce
        Gives labels to ids that have none; called before a plane is changed.
    """

    def __init__(
        self, shape: tuple[int, ...], log: SessionLog, introduce: Callable[[Iterable[int]], None]
    ) -> None:
        self.revision = 0
        self._shape, self._log, self._introduce = shape, log, introduce
        self._known: dict[Key, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Key]:
        """Axis and index of the planes that hold paint, coronal ones first."""
        return iter(sorted(self._known))

    def check(self, axis: str, index: int) -> Key:
        """Return axis and index as they are kept.

        Raises
        ------
        SessionError
            If the volume has no such plane.
        """
        for known, array_axis in ARRAY_AXIS.items():
            if axis == known:
                count = self._shape[array_axis]
                if not 0 <= index < count:
                    raise SessionError(
                        f"there is no {axis} plane {index}: the volume has 0 to {count - 1}"
                    )
                return known, int(index)
        raise SessionError(f"there is no axis {axis!r}: use coronal or sagittal")

    def mask(self, axis: str, index: int) -> NDArray[np.uint8]:
        """Copy of the label ids of a plane, ``(z, x)`` coronal or ``(z, y)`` sagittal."""
        key = self.check(axis, index)
        known = self._known.get(key)
        return np.zeros(plane_shape(self._shape, key[0]), np.uint8) if known is None else known.mask

    def state(self, axis: str, index: int) -> SliceState:
        """State of a plane."""
        known = self._known.get(self.check(axis, index))
        return SliceState.UNPAINTED if known is None else known.state

    def set_plane(
        self, axis: str, index: int, mask: ArrayLike, state: SliceState | None = None
    ) -> None:
        """Take a whole plane as painted; call it after each stroke.

        Parameters
        ----------
        axis
            ``coronal`` or ``sagittal``.
        index
            Row ``y`` or column ``x`` of every slice.
        mask
            Label ids ``(z, x)`` or ``(z, y)``; 255 is painted background. Ids that have no label
            get one.
        state
            How the paint is meant. ``None`` keeps the state, and makes a fresh plane scribbled: a
            first stroke is rarely all there is to see. A plane without paint is forgotten unless
            it is ``PAINTED``: there is truly nothing on it.

        Raises
        ------
        SessionError
            If plane, mask or state do not fit.
        """
        key = self.check(axis, index)
        given = np.asarray(mask)
        shape = plane_shape(self._shape, key[0])
        if given.shape != shape:
            raise SessionError(
                f"a {axis} plane of this volume is {shape} pixels, not {given.shape}"
            )
        plane = given.astype(np.uint8)
        if given.dtype != np.uint8 and not np.array_equal(plane, given):
            raise SessionError(f"{axis} plane {index}: label ids must be whole numbers, 0 to 255")
        painted = bool(plane.any())
        with self._log.changing():
            state = self.state(*key) if state is None else SliceState(state)
            if state == SliceState.ACCEPTED:
                raise SessionError("planes are painted in full or scribbled, and never accepted")
            if painted and state == SliceState.UNPAINTED:
                state = SliceState.SCRIBBLED
            if not painted and state == SliceState.SCRIBBLED:
                state = SliceState.UNPAINTED
            self._known.pop(key, None)
            if state != SliceState.UNPAINTED:
                plane = plane.copy()
                plane.flags.writeable = False
                self._known[key] = _Known(plane, state)
            self.revision += 1
            # Last, for it is journalled, which may fail.
            self._introduce(set(np.unique(plane).tolist()) - {0, BACKGROUND})
            self._log.append(self._record(key, plane, state))

    def set_state(self, axis: str, index: int, state: SliceState) -> None:
        """Say whether a plane is painted in full or scribbled."""
        self.set_plane(axis, index, self.mask(axis, index), state)

    def clear_plane(self, axis: str, index: int) -> None:
        """Take the paint off a plane."""
        self.set_plane(axis, index, np.zeros_like(self.mask(axis, index)), SliceState.UNPAINTED)

    def with_label(self, label_id: int) -> list[Key]:
        """Planes on which a label is painted."""
        return [key for key in self if (self._known[key].mask == label_id).any()]

    def painted(self) -> tuple[PaintedPlane, ...]:
        """All planes, as training takes them."""
        with self._log.lock:
            found = []
            for axis, index in self:
                known = self._known[axis, index]
                full = known.state == SliceState.PAINTED
                mask = known.mask
                if full:
                    mask = np.where(mask == BACKGROUND, 0, mask).astype(np.uint8)
                found.append(PaintedPlane(axis, index, mask, full))
            return tuple(found)

    def lay_over(self, masks: NDArray[np.uint8], first: int = 0) -> None:
        """Write what planes say into the masks ``(n, y, x)`` of the slices from ``first`` on."""
        for plane in ranked(self.painted()):
            said = plane.mask[first : first + len(masks)]
            line = masks[:, plane.index] if plane.axis == "coronal" else masks[:, :, plane.index]
            np.copyto(line, said % BACKGROUND, where=plane.full | (said != 0))

    # Journal

    def records(self) -> Iterator[Record]:
        """The whole state, as the shortest journal that leads to it."""
        for key in self:
            known = self._known[key]
            yield self._record(key, known.mask, known.state)

    def recover(self, record: Record) -> None:
        """Make a change that a journal tells of."""
        assert record.mask is not None
        header = record.header
        self.set_plane(
            str(header["axis"]), int(header["index"]), record.mask, SliceState(header["state"])
        )

    def _record(self, key: Key, mask: NDArray[np.uint8], state: SliceState) -> Record:
        header = {"op": "plane", "axis": key[0], "index": key[1], "state": int(state)}
        return Record(header, mask)
