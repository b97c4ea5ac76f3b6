"""Where strokes may go: into a range of HU, inside another label, and not over locked labels.

A stroke is trimmed while it is drawn, before it is written: what is not allowed never shows, and
one undo takes back what was.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_diffseg.gui.layers import VolumeLayers

_WRITE = "_apply_mask_to_data"  # what napari's brush, eraser, bucket and polygon all write with


class StrokeLimits:
    """Trims the strokes of one volume's paint and prediction layers.

    Parameters
    ----------
    layers
        Of the volume.
    locked
        Labels that neither gain nor lose; may change later on.

    Attributes
    ----------
    hu
        Lowest and highest HU that a stroke may change, or ``None``.
    inside
        Label that strokes must stay inside of, or ``None``. They may change their own label, too.
    sampling
        Whether the next click gives the range.
    """

    def __init__(self, layers: VolumeLayers, locked: Collection[int]) -> None:
        self.hu: tuple[float, float] | None = None
        self.inside: int | None = None
        self.sampling = False
        self._layers, self._locked = layers, locked
        self._watched: list[Labels] = []

    def watch(self) -> None:
        """Trim in the layers that are there now."""
        for layer in (self._layers.paint, self._layers.prediction):
            if layer is not None and not any(layer is one for one in self._watched):
                self._watched.append(layer)
                setattr(layer, _WRITE, partial(self._write, layer, getattr(layer, _WRITE)))

    def close(self) -> None:
        """Trim no more."""
        for layer in self._watched:
            delattr(layer, _WRITE)
        self._watched.clear()

    def _write(
        self,
        layer: Labels,
        write: Any,
        data: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        new: int,
        where: tuple[slice, ...],
    ) -> Any:
        return write(data, mask & self.allowed(layer, data, where, new), new, where)

    def allowed(
        self, layer: Labels, before: NDArray[np.uint8], where: Any, new: int
    ) -> NDArray[np.bool_]:
        """Say which voxels a stroke may change.

        Parameters
        ----------
        layer
            The paint or the prediction layer.
        before
            Labels that it holds there.
        where
            Index of these voxels in the volume.
        new
            Label that the stroke gives them, 0 to erase.
        """
        allowed = np.ones(before.shape, bool)
        if self._locked:
            locked = list(self._locked)
            allowed &= ~np.isin(before, locked) & (new not in locked)
        if self.hu is not None:
            hu = self._layers.volume.hu[where]
            allowed &= (hu >= self.hu[0]) & (hu <= self.hu[1])
        if self.inside is not None:
            within = (before == self.inside) | (before == layer.selected_label)
            prediction = self._layers.prediction
            if layer is self._layers.paint and prediction is not None:
                within |= (before == 0) & (prediction.data[where] == self.inside)
            allowed &= within
        return allowed
