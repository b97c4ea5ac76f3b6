"""Painted slices: what the user says of the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.labels import Label
from napari_diffseg.network.losses import UNKNOWN

BACKGROUND = 255
"""Value of painted background in a scribbled slice."""


class TrainError(ValueError):
    """Training cannot start, or was ended before there was anything to keep."""


@dataclass(frozen=True, eq=False)
class PaintedSlice:
    """What the user says of one slice.

    Attributes
    ----------
    z
        Slice index, inferior to superior.
    mask
        Label ids ``(y, x)``, uint8; :data:`BACKGROUND` is painted background.
    full
        Whether unpainted pixels are background (painted in full) or unknown (scribbles).
    """

    z: int
    mask: NDArray[np.uint8]
    full: bool = True


def class_targets(painted: Sequence[PaintedSlice], labels: Sequence[Label]) -> NDArray[np.uint8]:
    """Painted masks as class indices ``(n, y, x)`` with :data:`losses.UNKNOWN`.

    Raises
    ------
    TrainError
        If nothing is painted, or a mask holds an id without a label.
    """
    if not painted:
        raise TrainError("no slice is painted: paint a structure on at least one slice")
    full = np.zeros(256, np.uint8)
    known = {0, BACKGROUND}
    for index, label in enumerate(labels, start=1):
        full[label.id] = index
        known.add(label.id)
    partial = full.copy()
    partial[0] = UNKNOWN
    out = []
    for slice_ in painted:
        strangers = set(np.unique(slice_.mask).tolist()) - known
        if strangers:
            raise TrainError(f"slice {slice_.z} holds id {min(strangers)}, which has no label")
        out.append((full if slice_.full else partial)[slice_.mask])
    classes = np.stack(out)
    if not ((classes > 0) & (classes != UNKNOWN)).any():
        raise TrainError("only background is painted: paint a structure on at least one slice")
    return classes
