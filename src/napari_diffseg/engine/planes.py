"""Painted coronal and sagittal planes: a row or a column of truth in every transverse slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice, TrainError
from napari_diffseg.io.volume import Volume

Axis = Literal["coronal", "sagittal"]
ARRAY_AXIS: Mapping[Axis, int] = {"coronal": 1, "sagittal": 2}
"""The axis of a volume ``(z, y, x)`` along which planes are counted."""


@dataclass(frozen=True, eq=False)
class PaintedPlane:
    """What the user says about one plane across the slices.

    Attributes
    ----------
    axis
        ``coronal``, a row ``y`` of every slice, or ``sagittal``, a column ``x``.
    index
        That row or column.
    mask
        Label ids ``(z, x)`` or ``(z, y)``, uint8; 255 is painted background.
    full
        Whether unpainted pixels are background (painted in full) or unknown (scribbles).
    """

    axis: Axis
    index: int
    mask: NDArray[np.uint8]
    full: bool = True

    @property
    def where(self) -> str:
        """Axis and index in words, such as ``coronal:120``."""
        return f"{self.axis}:{self.index}"


def plane_shape(shape: Sequence[int], axis: Axis) -> tuple[int, int]:
    """Shape of a plane's mask in a volume of this shape ``(z, y, x)``.

    Examples
    --------
    >>> plane_shape((10, 20, 30), "coronal"), plane_shape((10, 20, 30), "sagittal")
    ((10, 30), (10, 20))
    """
    return shape[0], shape[3 - ARRAY_AXIS[axis]]


def check_planes(planes: Iterable[PaintedPlane], volume: Volume) -> None:
    """Check that planes lie in a volume.

    Raises
    ------
    TrainError
        If one does not.
    """
    for plane in planes:
        count, shape = volume.hu.shape[ARRAY_AXIS[plane.axis]], volume.hu.shape
        if not 0 <= plane.index < count:
            raise TrainError(
                f"plane {plane.where} is painted, but the {plane.axis} planes end at {count - 1}"
            )
        if plane.mask.shape != plane_shape(shape, plane.axis):
            raise TrainError(
                f"plane {plane.where} is painted on {plane.mask.shape} pixels, "
                f"but the volume has {plane_shape(shape, plane.axis)}"
            )


def ranked(planes: Iterable[PaintedPlane]) -> list[PaintedPlane]:
    """Planes in the order in which they are drawn over each other.

    Scribbles give way to planes painted in full, and of the same kind coronal to sagittal ones.
    """
    return sorted(planes, key=lambda plane: (plane.full, ARRAY_AXIS[plane.axis]))


def crossed(planes: Iterable[PaintedPlane], z: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    """What planes say of slice ``z``, as scribbles ``(y, x)``: 0 unknown, 255 background."""
    found = np.zeros(tuple(shape[1:]), np.uint8)
    for plane in ranked(planes):
        line = plane.mask[z]
        if plane.full:
            line = np.where(line == 0, BACKGROUND, line)
        part = found[plane.index] if plane.axis == "coronal" else found[:, plane.index]
        np.copyto(part, line, where=line != 0)
    return found


def crossed_slices(
    planes: Sequence[PaintedPlane], shape: Sequence[int], count: int, without: Iterable[int] = ()
) -> tuple[PaintedSlice, ...]:
    """Take slices that planes cross, as scribbled ones, to learn from.

    Parameters
    ----------
    planes
        Painted planes.
    shape
        Of the volume ``(z, y, x)``.
    count
        Slices at most, evenly spread over those where a structure is painted.
    without
        Slices that are known otherwise.
    """
    painted = np.zeros(shape[0], bool)
    for plane in planes:
        painted |= ((plane.mask != 0) & (plane.mask != BACKGROUND)).any(axis=1)
    painted[list(without)] = False
    candidates = np.flatnonzero(painted)
    if len(candidates) > count:
        candidates = candidates[np.linspace(0, len(candidates) - 1, count).round().astype(int)]
    return tuple(
        PaintedSlice(z, crossed(planes, z, shape), full=False) for z in candidates.tolist()
    )


def with_planes(
    painted: Sequence[PaintedSlice], planes: Sequence[PaintedPlane], shape: Sequence[int]
) -> tuple[PaintedSlice, ...]:
    """Add what planes say to scribbled slices, where these say nothing.

    A slice with strokes on the planes only is left out: it is known by them.
    """
    if not planes:
        return tuple(painted)
    joined = []
    for slice_ in painted:
        if not slice_.full:
            known = crossed(planes, slice_.z, shape)
            if (known[slice_.mask != 0] != 0).all():
                continue
            slice_ = replace(slice_, mask=np.where(slice_.mask == 0, known, slice_.mask))
        joined.append(slice_)
    return tuple(joined)
