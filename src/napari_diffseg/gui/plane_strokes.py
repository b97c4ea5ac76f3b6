"""Strokes on marked coronal and sagittal planes, which come slice by slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.planes import Key
from napari_diffseg.session.session import Session


class PlaneStrokes:
    """Keeps marked planes in step with strokes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._changed: dict[Key, NDArray[np.uint8]] = {}
        # A stroke in a coronal view touches a hundred slices: journal the plane once.
        self._soon = QTimer(singleShot=True, interval=200)
        self._soon.timeout.connect(self.flush)

    def note(self, z: int, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> None:
        """Take what changed on slice ``z`` where marked planes cross it."""
        planes = self._session.paint.planes
        for key in planes:
            axis, index = key
            line = np.s_[index] if axis == "coronal" else np.s_[:, index]
            differs = before[line] != after[line]
            if differs.any():
                mask = self._changed.get(key)
                if mask is None:
                    mask = self._changed[key] = planes.mask(axis, index).copy()
                mask[z][differs] = after[line][differs]
                self._soon.start()

    def flush(self) -> None:
        """Bring the changes into the session now."""
        self._soon.stop()
        changed, self._changed = self._changed, {}
        planes = self._session.paint.planes
        for key, mask in changed.items():
            if planes.state(*key) != SliceState.UNPAINTED:
                planes.set_plane(*key, mask)
