"""Turns what happens in a labels layer into slices of the session.

napari signals finished strokes, but an undo, a redo, a polygon or another plugin may change any
slice without saying which. So nothing is inferred from events: they only say *when* to compare the
layer with what the program put there. The slice in view is compared at once, the others a few at
a time while the window is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

_MAX_VOXELS = 2**21  # voxels compared in one turn of the event loop, about a millisecond


class StrokeWatcher(QObject):
    """Calls ``stroke(z, in_view)`` for each slice of a labels layer that somebody else has changed.

    ``differs(z)`` says whether a slice differs from what the program put there, and ``view()``
    gives the transverse slice in view, ``None`` where another plane is shown.
    """

    def __init__(
        self,
        layer: Any,
        differs: Callable[[int], bool],
        view: Callable[[], int | None],
        stroke: Callable[[int, bool], None],
    ) -> None:
        super().__init__()
        self.layer = layer
        self._differs, self._view, self._stroke = differs, view, stroke
        self._in_view: int | None = None
        self._next = 0
        self._paused = False
        self._sweep = QTimer(self)
        self._sweep.setInterval(15)
        self._sweep.timeout.connect(self._sweep_some)
        self._events = (layer.events.paint, layer.events.set_data, layer.events.data)
        for event in self._events:
            event.connect(self._on_event)

    def flush(self) -> None:
        """Compare every slice now, as before a training or an export."""
        self._sweep.stop()
        for z in range(len(self.layer.data)):
            self._compare(z)

    def compare(self, slices: Iterable[int]) -> None:
        """Compare some slices now, for strokes that were not made on the one in view."""
        self.end_view()
        for z in slices:
            self._compare(z)

    def end_view(self) -> None:
        """Finish with the slice in view: what comes is no stroke on it."""
        self._compare_view()
        self._in_view = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the program itself write to the layer what the session holds already.

        napari signals such a change before it has made it, so that the layer would look
        different from the session, and the change would be taken back.
        """
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def close(self) -> None:
        """Look no more."""
        self._sweep.stop()
        for event in self._events:
            event.disconnect(self._on_event)

    def _on_event(self, event: object = None) -> None:
        if self._paused:
            return
        if self._sweep.isActive():
            self._compare_view()  # the view may have changed since the last stroke
        self._in_view = self._view()
        self._compare_view()
        self._next = 0
        if not self._sweep.isActive():
            self._sweep.start()

    def _sweep_some(self) -> None:
        self._compare_view()
        data = self.layer.data
        step = max(1, _MAX_VOXELS // max(data[0].size, 1))
        for z in range(self._next, min(self._next + step, len(data))):
            self._compare(z)
        self._next += step
        if self._next >= len(data):
            self._sweep.stop()

    def _compare_view(self) -> None:
        if self._in_view is not None:
            self._compare(self._in_view)

    def _compare(self, z: int) -> None:
        if self._differs(z):
            self._stroke(z, z == self._in_view)


def keep_locked(
    before: NDArray[np.uint8], after: NDArray[np.uint8], locked: Collection[int]
) -> bool:
    """Undo in place what a stroke did to locked labels: they neither gain nor lose voxels.

    ``before`` and ``after`` are the slice around the stroke, uint8 (y, x); ``after`` is corrected.
    Returns whether anything was undone.
    """
    if not locked:
        return False
    ids = list(locked)
    touched = (before != after) & (np.isin(before, ids) | np.isin(after, ids))
    after[touched] = before[touched]
    return bool(touched.any())
