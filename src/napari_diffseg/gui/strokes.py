"""Turns what happens in the paint layer into slices of the session.

napari tells of finished strokes, but an undo, a redo, a polygon or another plugin may change any
slice without saying which. So nothing is inferred from events: they only say *when* to look, and
looking is a comparison of the layer with the session's truth. The slice in view is compared at
once, the others a few at a time while the window is idle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

_CHUNK = 2**21  # voxels compared in one turn of the event loop, about a millisecond


class StrokeWatcher(QObject):
    """Calls ``stroke(z, after)`` for each slice that differs from the truth.

    Parameters
    ----------
    layer
        The paint layer.
    truth
        Gives the session's paint, uint8 (z, y, x).
    current
        Gives the slice in view.
    stroke
        Called with the slice index and the layer's own slice.
    """

    def __init__(
        self,
        layer: Any,
        truth: Callable[[], NDArray[np.uint8]],
        current: Callable[[], int],
        stroke: Callable[[int, NDArray[np.uint8]], None],
    ) -> None:
        super().__init__()
        self._layer, self._truth, self._current, self._stroke = layer, truth, current, stroke
        self._next = 0
        self._away = False
        self._sweep = QTimer(self)
        self._sweep.setInterval(15)
        self._sweep.timeout.connect(self._sweep_some)
        self._events = (layer.events.paint, layer.events.set_data, layer.events.data)
        for event in self._events:
            event.connect(self._on_event)

    def flush(self) -> None:
        """Compare every slice now, as before a training or an export."""
        self._sweep.stop()
        for z in range(len(self._layer.data)):
            self._compare(z)

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Let the program itself write to the layer what the session holds already.

        napari tells of such a change before it has made it, so that the layer would look
        different from the truth, and the truth would be taken back.
        """
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def close(self) -> None:
        """Look no more."""
        self._sweep.stop()
        for event in self._events:
            event.disconnect(self._on_event)

    def _on_event(self, event: object = None) -> None:
        if self._away:
            return
        self._compare(self._current())
        self._next = 0
        if not self._sweep.isActive():
            self._sweep.start()

    def _sweep_some(self) -> None:
        data = self._layer.data
        step = max(1, _CHUNK // max(data[0].size, 1))
        for z in range(self._next, min(self._next + step, len(data))):
            self._compare(z)
        self._next += step
        if self._next >= len(data):
            self._sweep.stop()

    def _compare(self, z: int) -> None:
        after = self._layer.data[z]
        if not np.array_equal(after, self._truth()[z]):
            self._stroke(z, after)


def keep_locked(
    before: NDArray[np.uint8], after: NDArray[np.uint8], locked: Collection[int]
) -> bool:
    """Undo in place what a stroke did to locked labels: they neither gain nor lose voxels.

    Parameters
    ----------
    before, after
        The slice before and after the stroke, uint8 (y, x); ``after`` is mended.
    locked
        Ids of locked labels.

    Returns
    -------
    Whether anything was mended.
    """
    if not locked:
        return False
    ids = list(locked)
    touched = (before != after) & (np.isin(before, ids) | np.isin(after, ids))
    after[touched] = before[touched]
    return bool(touched.any())
