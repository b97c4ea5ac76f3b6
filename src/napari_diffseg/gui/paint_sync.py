"""What the user says of the slices: strokes, slice states, acceptance, corrections, locks.

Stands between the paint layer and the session's truth; the prediction layer's corrections pass
here, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui.layers import VolumeLayers, checksum
from napari_diffseg.gui.strokes import StrokeWatcher, keep_locked
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.session import Session


class Truth(QObject):
    """Forwards what happens in the layers to the session, and shows what the session says.

    Signals: ``changed(z)`` when a slice's truth changed; ``corrected(z)`` when its prediction was
    corrected by hand; ``labelled`` when a stroke brought a label of its own; ``failed(error)``.

    Parameters
    ----------
    session
        The session.
    layers
        The volume's layers; :meth:`watch` follows them.
    current
        Gives the slice that the panel works on.
    view
        Gives the transverse slice in view, ``None`` where another plane is shown.
    """

    changed = Signal(int)
    corrected = Signal(int)
    labelled = Signal()
    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        layers: VolumeLayers,
        current: Callable[[], int],
        view: Callable[[], int | None],
    ) -> None:
        super().__init__()
        self.session, self.layers = session, layers
        self._current, self._view = current, view
        self.locked: set[int] = set()
        self.fresh_state = SliceState.PAINTED
        self.since_round: set[int] = set()
        self._present: dict[int, frozenset[int]] = {}
        self._undone: dict[int, tuple[int, SliceState]] = {}  # paint that an undo may bring back
        self._strokes: StrokeWatcher | None = None
        self._corrections: StrokeWatcher | None = None
        self._watched: tuple[object, object] = (None, None)
        for z in np.flatnonzero(session.states):
            self._note_present(int(z))

    def watch(self) -> None:
        """Follow the paint and prediction layers that are there now."""
        paint, prediction = self.layers.paint, self.layers.prediction
        if paint is None or prediction is None:
            return
        if paint is not self._watched[0]:
            if self._strokes is not None:
                self._strokes.close()
            self._strokes = StrokeWatcher(paint, self._painted, self._view, self._stroke)
        if prediction is not self._watched[1]:
            if self._corrections is not None:
                self._corrections.close()
            self._corrections = StrokeWatcher(
                prediction, self.layers.corrected, self._view, self._correction
            )
        self._watched = paint, prediction

    def flush(self) -> None:
        """Bring every stroke into the session now."""
        for watcher in (self._strokes, self._corrections):
            if watcher is not None:
                watcher.flush()

    def close(self) -> None:
        """Bring every stroke into the session and look no more."""
        self.flush()
        for watcher in (self._strokes, self._corrections):
            if watcher is not None:
                watcher.close()
        self._strokes = self._corrections = None

    # -- what is on the slices --------------------------------------------------------------

    def present_names(self) -> dict[int, str]:
        """Names of the labels painted on each slice."""
        names = {label.id: label.name for label in self.session.labels}
        return {
            z: ", ".join(names[i] for i in sorted(ids) if i in names)
            for z, ids in self._present.items()
        }

    def slices_per_label(self) -> Counter[int]:
        """Count the painted slices of each label."""
        return Counter(i for ids in self._present.values() for i in ids)

    def takes_scribbles(self, z: int) -> bool:
        """Whether the next stroke on a slice is a scribble."""
        state = self.session.states[z]
        fresh = state == SliceState.UNPAINTED and self.fresh_state == SliceState.SCRIBBLED
        return bool(fresh or state == SliceState.SCRIBBLED)

    # -- what the user does -----------------------------------------------------------------

    def set_state(self, state: SliceState) -> None:
        """Say how the slice in view is painted; fresh slices will be taken the same way."""
        z = self._current()
        self.fresh_state = state
        self.session.set_state(z, state)
        self._note(z)

    def clear_slice(self) -> None:
        """Take the paint off the slice in view; Ctrl+Z brings it back."""
        z = self._current()
        self._remember(z)
        self.session.clear_slice(z)
        self._show(z)
        self._note(z)

    def accept(self) -> None:
        """Take the prediction of the slice in view as truth; scribbles on it win."""
        self.flush()
        s, z = self.session, self._current()
        merged = np.where(s.paint[z] != 0, s.paint[z] % BACKGROUND, s.prediction[z])
        if not np.array_equal(merged, s.prediction[z]):
            s.edit_prediction(z, merged)
            self.layers.show_slice(z, merged, s.confidence[z])
            self.layers.redraw_prediction()
        s.accept(z)
        self._show(z)
        self._note(z)

    def _painted(self, z: int) -> bool:
        paint = self.layers.paint
        return paint is not None and not np.array_equal(paint.data[z], self.session.paint[z])

    def _stroke(self, z: int, in_view: bool) -> None:
        s, paint = self.session, self.layers.paint
        if paint is None:
            return
        after = paint.data[z]
        if keep_locked(s.paint[z], after, self.locked):
            paint.refresh(thumbnail=False, extent=False, highlight=False)
            if np.array_equal(s.paint[z], after):
                return
        labels = len(s.labels)
        try:
            s.set_slice(z, after, self._state_after(z, after, in_view))
        except SessionError as error:
            self.failed.emit(error)
            return
        if len(s.labels) != labels:
            self.labelled.emit()
        self._note(z)

    def _state_after(self, z: int, after: NDArray[np.uint8], in_view: bool) -> SliceState | None:
        """Say how a slice is painted after a stroke; ``None`` is as before.

        A stroke in a coronal or sagittal plane, or a brush that reaches into other slices, touches
        many slices with a few pixels each. It never makes one of them painted in full.
        """
        s = self.session
        if not after.any():
            self._remember(z)
            return SliceState.UNPAINTED
        if s.states[z] != SliceState.UNPAINTED:
            return None
        if in_view:
            return self.fresh_state
        paint, state = self._undone.get(z, (-1, SliceState.SCRIBBLED))
        back = paint == checksum(after)
        return state if back else SliceState.SCRIBBLED

    def _remember(self, z: int) -> None:
        """Note what is about to go from a slice: an undo brings it back as what it was."""
        s = self.session
        if s.states[z] != SliceState.UNPAINTED:
            full = s.states[z] >= SliceState.PAINTED
            state = SliceState.PAINTED if full else SliceState.SCRIBBLED
            self._undone[z] = checksum(s.paint[z]), state

    def _correction(self, z: int, in_view: bool) -> None:
        s, prediction = self.session, self.layers.prediction
        if prediction is None:
            return
        if not s.predicted[z] and z not in s.edited and z not in self.layers.previewed:
            prediction.data[z] = s.prediction[z]
            self.layers.note_shown(z)
            self.layers.redraw_prediction()
            self.failed.emit(SessionError(f"slice {z} has no prediction; paint in the paint layer"))
            return
        s.edit_prediction(z, prediction.data[z])
        self.layers.note_shown(z)
        self.corrected.emit(z)

    def _show(self, z: int) -> None:
        paint = self.layers.paint
        if paint is None or self._strokes is None:
            return
        where = np.nonzero(paint.data[z] != self.session.paint[z])
        if len(where[0]):
            # Through napari's own door, so that Ctrl+Z takes it back.
            index = (np.full(len(where[0]), z), *where)
            with self._strokes.looking_away():
                paint.data_setitem(index, self.session.paint[z][where])

    def _note(self, z: int) -> None:
        self.since_round.add(z)
        self._note_present(z)
        self.changed.emit(z)

    def _note_present(self, z: int) -> None:
        counts = np.bincount(self.session.paint[z].ravel(), minlength=256)
        self._present[z] = frozenset(np.flatnonzero(counts).tolist()) - {0, BACKGROUND}
