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

from napari_diffseg.finetune import BACKGROUND
from napari_diffseg.gui.layers import VolumeLayers
from napari_diffseg.gui.strokes import StrokeWatcher, keep_locked
from napari_diffseg.session import Session, SessionError, SliceState


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
        Gives the slice in view.
    """

    changed = Signal(int)
    corrected = Signal(int)
    labelled = Signal()
    failed = Signal(object)

    def __init__(self, session: Session, layers: VolumeLayers, current: Callable[[], int]) -> None:
        super().__init__()
        self.session, self.layers, self._current = session, layers, current
        self.locked: set[int] = set()
        self.fresh_state = SliceState.PAINTED
        self.since_round: set[int] = set()
        self._present: dict[int, frozenset[int]] = {}
        self._watcher: StrokeWatcher | None = None
        self._watched: tuple[object, object] = (None, None)
        for z in np.flatnonzero(session.states):
            self._note_present(int(z))

    def watch(self) -> None:
        """Follow the paint and prediction layers that are there now."""
        paint, prediction = self.layers.paint, self.layers.prediction
        if paint is None or prediction is None:
            return
        if paint is not self._watched[0]:
            if self._watcher is not None:
                self._watcher.close()
            self._watcher = StrokeWatcher(
                paint, lambda: self.session.paint, self._current, self._stroke
            )
        if prediction is not self._watched[1]:
            prediction.events.paint.connect(self._on_correction)
        self._watched = paint, prediction

    def flush(self) -> None:
        """Bring every stroke into the session now."""
        if self._watcher is not None:
            self._watcher.flush()

    def close(self) -> None:
        """Bring every stroke into the session and look no more."""
        if self._watcher is not None:
            self._watcher.flush()
            self._watcher.close()
            self._watcher = None

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
        s.accept(z)
        self._show(z)
        self._note(z)

    def _stroke(self, z: int, after: NDArray[np.uint8]) -> None:
        s, paint = self.session, self.layers.paint
        if keep_locked(s.paint[z], after, self.locked):
            if paint is not None:
                paint.refresh(thumbnail=False, extent=False, highlight=False)
            if np.array_equal(s.paint[z], after):
                return
        if not after.any():
            state: SliceState | None = SliceState.UNPAINTED
        else:
            state = self.fresh_state if s.states[z] == SliceState.UNPAINTED else None
        labels = len(s.labels)
        try:
            s.set_slice(z, after, state)
        except SessionError as error:
            self.failed.emit(error)
            return
        if len(s.labels) != labels:
            self.labelled.emit()
        self._note(z)

    def _on_correction(self, event: object = None) -> None:
        z = self._current()
        try:
            self.session.edit_prediction(z, self.session.prediction[z])
        except SessionError as error:
            self.session.prediction[z] = 0
            self.failed.emit(error)
        else:
            self.corrected.emit(z)

    def _show(self, z: int) -> None:
        paint = self.layers.paint
        if paint is None or self._watcher is None:
            return
        where = np.nonzero(paint.data[z] != self.session.paint[z])
        if len(where[0]):
            # Through napari's own door, so that Ctrl+Z takes it back.
            index = (np.full(len(where[0]), z), *where)
            with self._watcher.looking_away():
                paint.data_setitem(index, self.session.paint[z][where])

    def _note(self, z: int) -> None:
        self.since_round.add(z)
        self._note_present(z)
        self.changed.emit(z)

    def _note_present(self, z: int) -> None:
        counts = np.bincount(self.session.paint[z].ravel(), minlength=256)
        self._present[z] = frozenset(np.flatnonzero(counts).tolist()) - {0, BACKGROUND}
