"""Where strokes may go: into a range of HU, and inside another label.

A stroke is trimmed once it is finished: it is undone, and what is allowed of it is painted again,
so that undo and redo know only what stayed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_diffseg.gui.layers import VolumeLayers


class StrokeLimits:
    """Trims the strokes of one volume's paint and prediction layers.

    ``view()`` gives the transverse slice in view, ``None`` where another plane is shown, and
    ``across()`` is a context in which changes are taken for strokes in such a plane.

    Attributes
    ----------
    hu
        Lowest and highest HU that a stroke may change, or ``None``.
    inside
        Label that strokes must stay inside of, or ``None``. They may change their own label, too.
    """

    def __init__(
        self,
        layers: VolumeLayers,
        view: Callable[[], int | None],
        across: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.hu: tuple[float, float] | None = None
        self.inside: int | None = None
        self._layers, self._view, self._across = layers, view, across
        self._watched: list[Labels] = []
        self._trimming = False

    def watch(self) -> None:
        """Follow the layers that are there now."""
        for layer in (self._layers.paint, self._layers.prediction):
            if layer is not None and not any(layer is one for one in self._watched):
                self._watched.append(layer)
                layer.events.paint.connect(self._on_paint)

    def close(self) -> None:
        """Look no more."""
        for layer in self._watched:
            layer.events.paint.disconnect(self._on_paint)
        self._watched.clear()

    def _on_paint(self, event: Any) -> None:
        if not self._trimming and (self.hu is not None or self.inside is not None):
            layer, view = event.source, self._view()
            # napari is in the middle of recording the stroke.
            QTimer.singleShot(0, lambda: self._trim_in(layer, view))

    def _trim_in(self, layer: Labels, view: int | None) -> None:
        with nullcontext() if view is not None else self._across():
            self._trim(layer, view)

    def _trim(self, layer: Labels, view: int | None) -> None:
        flat = view is not None and layer.n_edit_dimensions < 3
        first = view if flat and view is not None else 0
        part = slice(first, first + 1) if flat else slice(None)
        after = layer.data[part].copy()
        self._trimming = True
        try:
            layer.undo()
            before = layer.data[part]
            allowed = (after != before) & self._allowed(layer, before, part)
            z, y, x = np.nonzero(allowed)
            if len(z):
                layer.data_setitem((z + first, y, x), after[allowed])
            else:
                layer._redo_history.clear()  # nothing of the stroke may come back
        finally:
            self._trimming = False

    def _allowed(self, layer: Labels, before: NDArray[np.uint8], part: slice) -> NDArray[np.bool_]:
        allowed = np.ones(before.shape, bool)
        if self.hu is not None:
            hu = self._layers.volume.hu[part]
            allowed &= (hu >= self.hu[0]) & (hu <= self.hu[1])
        if self.inside is not None:
            within = (before == self.inside) | (before == layer.selected_label)
            prediction = self._layers.prediction
            if layer is self._layers.paint and prediction is not None:
                within |= (before == 0) & (prediction.data[part] == self.inside)
            allowed &= within
        return allowed
