"""Strokes, slice states, acceptance, corrections and locks: from the layers to the session.

Stands between the paint layer and the session's paint; corrections of the prediction layer pass
here, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui.layers import VolumeLayers, checksum
from napari_diffseg.gui.limits import StrokeLimits
from napari_diffseg.gui.plane_strokes import PlaneStrokes
from napari_diffseg.gui.strokes import StrokeWatcher, keep_locked
from napari_diffseg.session.journal import ReadOnlyError, SessionError
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.session import Session
from napari_diffseg.session.tools import Target


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
        self._current, self._across = current, False
        self._view = lambda: None if self._across else view()
        self.locked: set[int] = set()
        self.limits = StrokeLimits(layers, self.locked)
        self.planes = PlaneStrokes(session)
        self.fresh_state = SliceState.PAINTED
        self.since_round: set[int] = set()
        self._present: dict[int, frozenset[int]] = {}
        self._undone: dict[int, tuple[int, SliceState]] = {}  # paint that an undo may bring back
        self._watchers: dict[Callable[[int, bool], None], StrokeWatcher] = {}
        for z in np.flatnonzero(session.paint.states):
            self._note_present(int(z))

    def watch(self) -> None:
        """Follow the paint and prediction layers that are there now."""
        self.limits.watch()
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
        self.planes.flush()

    def end_view(self) -> None:
        """Finish with strokes on the slice in view: those that come are made elsewhere."""
        for watcher in self._watchers.values():
            watcher.end_view()

    @contextmanager
    def across(self) -> Iterator[None]:
        """Take what changes meanwhile for strokes in another plane than the main view's."""
        self.end_view()
        before, self._across = self._across, True
        try:
            yield
        finally:
            self._across = before

    def stroke_across(self, layer: Labels, slices: Collection[int]) -> None:
        """Bring a stroke that another view has made on these slices into the session."""
        for watcher in self._watchers.values():
            if watcher.layer is layer:
                watcher.compare(slices)

    def close(self) -> None:
        """Bring every stroke into the session and look no more."""
        self.flush()
        self.limits.close()
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()

    def change(self, target: Target, how: Callable[[], Collection[int]]) -> None:
        """Change the session and show it in the layer, as one step of the layer's undo.

        ``how`` changes the session and returns the slices that it changed. Strokes must be in the
        session already (:meth:`flush`).
        """
        paint = self.session.paint
        states, labels = paint.states.copy(), len(paint.labels)
        slices = sorted(how())
        if target == "paint":
            if self.layers.paint is not None:
                for z in slices:
                    self._remember(z, self.layers.paint.data[z], states[z])
            self._put(slices, self.layers.paint, paint.mask, self._stroke)
        else:
            prediction = self.session.prediction.mask
            self._put(slices, self.layers.prediction, prediction, self._correction)
        if len(paint.labels) != labels:
            self.labelled.emit()
        for z in slices:
            if target == "paint":
                self._note(z)
            else:
                self.layers.note_shown(z)
                self.corrected.emit(z)

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

        def clear() -> tuple[int]:
            self.session.paint.clear_slice(z)
            return (z,)

        self.change("paint", clear)

    def accept(self) -> None:
        """Take the prediction of the slice in view as truth; scribbles on it win."""
        self.flush()
        s, z = self.session, self._current()
        merged = np.where(s.paint.mask[z] != 0, s.paint.mask[z] % BACKGROUND, s.prediction.mask[z])
        if not np.array_equal(merged, s.prediction.mask[z]):
            s.prediction.edit(z, merged)
            self.layers.show_slice(z, merged, s.prediction.confidence[z])
            self.layers.redraw_prediction()

        def accept() -> tuple[int]:
            s.accept(z)
            return (z,)

        self.change("paint", accept)

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
            self.planes.note(z, s.paint.mask[z], after)
            s.paint.set_slice(z, after, self._state_after(z, after, in_view))
        except SessionError as error:
            if isinstance(error, ReadOnlyError):
                self.layers.show_paint(s.paint.mask)
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
        paint, state = self._undone.get(z, (-1, SliceState.SCRIBBLED))
        back = paint == checksum(after)
        if back or not after.any():
            self._remember(z, s.paint.mask[z], s.paint.states[z])
            return state if after.any() else SliceState.UNPAINTED
        if s.paint.states[z] != SliceState.UNPAINTED:
            return None
        return self.fresh_state if in_view else SliceState.SCRIBBLED

    def _remember(self, z: int, plane: NDArray[np.uint8], state: int) -> None:
        """Note what is about to go from a slice: an undo brings it back as what it was."""
        if state != SliceState.UNPAINTED:
            full = state >= SliceState.PAINTED
            self._undone[z] = (
                checksum(plane),
                SliceState.PAINTED if full else SliceState.SCRIBBLED,
            )

    def _correction(self, z: int, in_view: bool) -> None:
        s, prediction = self.session, self.layers.prediction
        if prediction is None:
            return
        try:
            if not s.prediction.there[z] and z not in self.layers.previewed:
                raise SessionError(f"slice {z} has no prediction; paint in the paint layer")
            s.prediction.edit(z, prediction.data[z])
        except SessionError as error:
            prediction.data[z] = s.prediction.mask[z]
            self.layers.note_shown(z)
            self.layers.redraw_prediction()
            self.failed.emit(error)
            return
        self.layers.note_shown(z)
        self.corrected.emit(z)

    def _put(
        self,
        slices: list[int],
        layer: Labels | None,
        truth: NDArray[np.uint8],
        stroke: Callable[[int, bool], None],
    ) -> None:
        """Write what the session holds on some slices to a layer."""
        watcher = self._watchers.get(stroke)
        if layer is None or watcher is None:
            return
        where = [np.nonzero(layer.data[z] != truth[z]) for z in slices]
        index = (
            np.repeat(slices, [len(y) for y, _ in where]),
            np.concatenate([y for y, _ in where]),
            np.concatenate([x for _, x in where]),
        )
        if len(index[0]):
            # Through napari's own door, so that Ctrl+Z takes it back.
            with watcher.paused():
                layer.data_setitem(index, truth[index])

    def _note(self, z: int) -> None:
        self.since_round.add(z)
        self._note_present(z)
        self.changed.emit(z)

    def _note_present(self, z: int) -> None:
        counts = np.bincount(self.session.paint.mask[z].ravel(), minlength=256)
        self._present[z] = frozenset(np.flatnonzero(counts).tolist()) - {0, BACKGROUND}
