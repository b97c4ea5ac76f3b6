"""The registration of a volume in its session's folder, along all axes that have one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.crossing import CrossRegistration, RegistrationAcross
from napari_diffseg.engine.planes import Axis
from napari_diffseg.engine.registration import Registration
from napari_diffseg.session.arrays import has_arrays, read_arrays

_BYTES = 1 << 23
"""Of one pair of slices at most: two components in half precision on a grid of 1024 x 1024, twice
over."""
_AXES: tuple[Axis, ...] = ("coronal", "sagittal")


def write_registration(file: IO[bytes] | Path, registration: Registration) -> None:
    """Write a registration as ``.npz``."""
    arrays: dict[str, NDArray[Any]] = {"up": registration.up, "down": registration.down}
    if isinstance(registration, RegistrationAcross):
        for axis, one in registration.across.items():
            up, down, covers = _names(axis)
            arrays[up], arrays[down] = one.registration.up, one.registration.down
            arrays[covers] = np.array([one.first, one.last], np.int64)
    np.savez(file, **arrays)  # type: ignore[arg-type]


def read_registration(path: Path, slices: int) -> Registration:
    """Read the registration of a volume with so many slices.

    Raises
    ------
    ValueError
        If the file is damaged, or of another volume.
    """
    up, down = read_arrays(path, ("up", "down"), max(slices - 1, 1) * _BYTES)
    size = _checked(up, down, slices - 1)
    across: dict[Axis, CrossRegistration] = {}
    for axis, planes, wide in zip(_AXES, size, reversed(size), strict=True):
        if has_arrays(path, _names(axis)):
            up_, down_, covers = read_arrays(path, _names(axis), planes * _BYTES)
            if covers.shape != (2,) or covers.dtype != np.int64:
                raise ValueError("is damaged")
            first, last = covers.tolist()
            if not 0 <= first < last <= planes or _checked(up_, down_, last - first - 1)[1] != wide:
                raise ValueError("is of another volume")
            across[axis] = CrossRegistration(first, last, Registration(up_, down_))
    return RegistrationAcross(up, down, across) if across else Registration(up, down)


def _names(axis: Axis) -> tuple[str, str, str]:
    return f"{axis}-up", f"{axis}-down", f"{axis}-covers"


def _checked(up: NDArray[Any], down: NDArray[Any], pairs: int) -> Sequence[int]:
    """Rows and columns of displacements between so many pairs."""
    fits = up.ndim == 4 and up.shape[:2] == (pairs, 2)
    if not fits or up.shape != down.shape or up.dtype != np.float16 or down.dtype != np.float16:
        raise ValueError("is of another volume")
    return up.shape[2:]
