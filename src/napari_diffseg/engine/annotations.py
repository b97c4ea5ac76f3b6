"""Painted slices: what the user says about the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.errors import UserError
from napari_diffseg.io.labels import Label, class_indices
from napari_diffseg.network.losses import UNKNOWN

BACKGROUND = 255
"""Value of painted background in a scribbled slice."""


class TrainError(UserError):
    """Training cannot start, or was ended before there was anything to keep."""


@dataclass(frozen=True, eq=False)
class PaintedSlice:
    """What the user says about one slice.

    Attributes
    ----------
    z
        Slice index, inferior to superior.
    mask
        Label ids ``(y, x)``, uint8; :data:`BACKGROUND` is painted background.
    full
        Whether unpainted pixels are background (painted in full) or unknown (scribbles).
    weight
        How often as much as another slice its pixels count in the app's recipe.
    """

    z: int
    mask: NDArray[np.uint8]
    full: bool = True
    weight: float = 1.0


def class_maps(painted: Sequence[PaintedSlice], labels: Sequence[Label]) -> NDArray[np.uint8]:
    """Painted masks as class indices ``(n, y, x)``; ``UNKNOWN`` where scribbles say nothing.

    Examples
    --------
    >>> scribbles = PaintedSlice(4, np.array([[0, 3, BACKGROUND]], np.uint8), full=False)
    >>> class_maps([scribbles], [Label(3, "liver", (230, 159, 0))]).tolist()
    [[[255, 1, 0]]]
    """
    full = class_indices(labels)
    partial = full.copy()
    partial[0] = UNKNOWN
    return np.stack([(full if slice_.full else partial)[slice_.mask] for slice_ in painted])


def class_targets(
    painted: Sequence[PaintedSlice], labels: Sequence[Label], known: bool = False
) -> NDArray[np.uint8]:
    """As :func:`class_maps`, for training.

    Parameters
    ----------
    painted, labels
        As for :func:`class_maps`.
    known
        Whether a model that knows the structures teaches, too, so that background alone will do.

    Raises
    ------
    TrainError
        If nothing is painted, nothing but background, or a mask holds an id without a label.
    """
    if not painted:
        raise TrainError("no slice is painted: paint a structure on at least one slice")
    ids = {0, BACKGROUND, *(label.id for label in labels)}
    for slice_ in painted:
        strangers = set(np.unique(slice_.mask).tolist()) - ids
        if strangers:
            raise TrainError(f"slice {slice_.z} holds id {min(strangers)}, which has no label")
    classes = class_maps(painted, labels)
    if not known and not ((classes > 0) & (classes != UNKNOWN)).any():
        raise TrainError("only background is painted: paint a structure on at least one slice")
    return classes
