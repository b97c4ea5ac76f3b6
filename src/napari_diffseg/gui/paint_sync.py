"""Strokes, slice states, acceptance, corrections and locks: from the layers to the session.

Stands between the paint layer and the session's paint; corrections of the prediction layer pass
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


class PaintSync(QObject):
    """Passes on what happens in the layers to the session, and shows what the session says.

    ``current()`` gives the slice that the panel works on, ``view()`` the transverse slice in view,
    ``None`` where another plane is shown.
    """

    changed = Signal(int)  # the slice whose paint or state changed
    corrected = Signal(int)  # the slice whose prediction was corrected by hand
    labelled = Signal()  # a stroke brought a label of its own
    failed = Signal(object)  # the error

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
        self._watchers: dict[Callable[[int, bool], None], StrokeWatcher] = {}
        for z in np.flatnonzero(session.paint.states):
            self._note_present(int(z))

    def watch(self) -> None:
        """Follow the paint and prediction layers that are there now."""
        paint, prediction = self.layers.paint, self.layers.prediction
        for layer, differs, stroke in (
            (paint, self._painted, self._stroke),
            (prediction, self.layers.corrected, self._correction),
        ):
            watcher = self._watchers.get(stroke)
            if layer is not None and (watcher is None or watcher.layer is not layer):
                if watcher is not None:
                    watcher.close()
                self._watchers[stroke] = StrokeWatcher(layer, differs, self._view, stroke)

    def flush(self) -> None:
        """Bring every stroke into the session now."""
        for watcher in self._watchers.values():
            watcher.flush()

    def close(self) -> None:
        """Bring every stroke into the session and look no more."""
        self.flush()
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()

    # -- what is on the slices --------------------------------------------------------------

    def present_names(self) -> dict[int, str]:
        """Names of the labels painted on each slice."""
        names = {label.id: label.name for label in self.session.paint.labels}
        return {
            z: ", ".join(names[i] for i in sorted(ids) if i in names)
            for z, ids in self._present.items()
        }

    def slices_per_label(self) -> Counter[int]:
        """Count the painted slices of each label."""
        return Counter(i for ids in self._present.values() for i in ids)

    def takes_scribbles(self, z: int) -> bool:
        """Whether the next stroke on a slice is a scribble."""
        state = self.session.paint.states[z]
        fresh = state == SliceState.UNPAINTED and self.fresh_state == SliceState.SCRIBBLED
        return bool(fresh or state == SliceState.SCRIBBLED)

    # -- what the user does -----------------------------------------------------------------

    def set_state(self, state: SliceState) -> None:
        """Say how the slice in view is painted; fresh slices will be taken the same way."""
        z = self._current()
        self.fresh_state = state
        self.session.paint.set_state(z, state)
        self._note(z)

    def clear_slice(self) -> None:
        """Take the paint off the slice in view; Ctrl+Z brings it back."""
        z = self._current()
        self._remember(z)
        self.session.paint.clear_slice(z)
        self._show(z)
        self._note(z)

    def accept(self) -> None:
        """Take the prediction of the slice in view as truth; scribbles on it win."""
        self.flush()
        s, z = self.session, self._current()
        merged = np.where(s.paint.mask[z] != 0, s.paint.mask[z] % BACKGROUND, s.prediction.mask[z])
        if not np.array_equal(merged, s.prediction.mask[z]):
            s.prediction.edit(z, merged)
            self.layers.show_slice(z, merged, s.prediction.confidence[z])
            self.layers.redraw_prediction()
        s.accept(z)
        self._show(z)
        self._note(z)

    def _painted(self, z: int) -> bool:
        paint = self.layers.paint
        return paint is not None and not np.array_equal(paint.data[z], self.session.paint.mask[z])

    def _stroke(self, z: int, in_view: bool) -> None:
        s, paint = self.session, self.layers.paint
        if paint is None:
            return
        after = paint.data[z]
        if keep_locked(s.paint.mask[z], after, self.locked):
            paint.refresh(thumbnail=False, extent=False, highlight=False)
            if np.array_equal(s.paint.mask[z], after):
                return
        labels = len(s.paint.labels)
        try:
            s.paint.set_slice(z, after, self._state_after(z, after, in_view))
        except SessionError as error:
            self.failed.emit(error)
            return
        if len(s.paint.labels) != labels:
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
        if s.paint.states[z] != SliceState.UNPAINTED:
            return None
        if in_view:
            return self.fresh_state
        paint, state = self._undone.get(z, (-1, SliceState.SCRIBBLED))
        back = paint == checksum(after)
        return state if back else SliceState.SCRIBBLED

    def _remember(self, z: int) -> None:
        """Note what is about to go from a slice: an undo brings it back as what it was."""
        s = self.session
        if s.paint.states[z] != SliceState.UNPAINTED:
            full = s.paint.states[z] >= SliceState.PAINTED
            state = SliceState.PAINTED if full else SliceState.SCRIBBLED
            self._undone[z] = checksum(s.paint.mask[z]), state

    def _correction(self, z: int, in_view: bool) -> None:
        s, prediction = self.session, self.layers.prediction
        if prediction is None:
            return
        if not s.prediction.there[z] and z not in self.layers.previewed:
            prediction.data[z] = s.prediction.mask[z]
            self.layers.note_shown(z)
            self.layers.redraw_prediction()
            self.failed.emit(SessionError(f"slice {z} has no prediction; paint in the paint layer"))
            return
        s.prediction.edit(z, prediction.data[z])
        self.layers.note_shown(z)
        self.corrected.emit(z)

    def _show(self, z: int) -> None:
        paint, watcher = self.layers.paint, self._watchers.get(self._stroke)
        if paint is None or watcher is None:
            return
        where = np.nonzero(paint.data[z] != self.session.paint.mask[z])
        if len(where[0]):
            # Through napari's own door, so that Ctrl+Z takes it back.
            index = (np.full(len(where[0]), z), *where)
            with watcher.paused():
                paint.data_setitem(index, self.session.paint.mask[z][where])

    def _note(self, z: int) -> None:
        self.since_round.add(z)
        self._note_present(z)
        self.changed.emit(z)

    def _note_present(self, z: int) -> None:
        counts = np.bincount(self.session.paint.mask[z].ravel(), minlength=256)
        self._present[z] = frozenset(np.flatnonzero(counts).tolist()) - {0, BACKGROUND}
