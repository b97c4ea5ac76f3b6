"""Where voxels lie in the patient: the source grid, and the canonical order the app works in.

The app sees every volume as ``(z, y, x)``: z runs from inferior to superior, y from anterior to
posterior, x from the patient's right to the left, so that a plain picture of one slice has the
radiological orientation. Getting there and back only transposes and flips axes. Nothing is ever
resampled, so an oblique acquisition keeps its oblique affine.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.errors import UserError

# For the canonical axes z, y, x: the RAS axis of each, and its sign (superior, posterior, left).
_CANONICAL = ((2, 1), (1, -1), (0, -1))

# Two grids are one grid when no voxel centre is further away than this, in voxels. float32
# affines, as NIfTI stores them, are off by about 1e-4 at the far corner of a large volume.
_SAME_GRID = 0.02


class VolumeError(UserError):
    """A volume, mask or label file that cannot be used; one line naming the file and the fix."""


class GridError(VolumeError):
    """Labels that lie on another grid than their volume; resampling would bring them onto it."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """The source grid of a volume and its relation to the canonical ``(z, y, x)`` order.

    Attributes
    ----------
    affine
        float64 (4, 4), source voxel ``(i, j, k)`` to millimetres in RAS+.
    shape
        Shape of the source array in ``(i, j, k)``.
    axes
        Canonical axis n of ``(z, y, x)`` is the source axis ``axes[n]``.
    flips
        Whether canonical axis n runs against that source axis.
    notes
        What the user should know, such as ``"gantry tilt 12.0°"``.
    reference
        What writers need to land on the source exactly (qform and sform fields, NRRD space, DICOM
        unique identifiers). It never holds a patient's name or id, nor a path.
    source
        File or DICOM folder that it was read from: no export may replace it, and DICOM-SEG reads
        its series again. In memory only: it must not be logged or stored.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    notes: tuple[str, ...] = ()
    reference: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: Path | None = field(default=None, repr=False)

    @classmethod
    def from_affine(
        cls,
        affine: NDArray[np.float64],
        shape: tuple[int, ...],
        notes: tuple[str, ...] = (),
        reference: Mapping[str, Any] | None = None,
        source: Path | None = None,
    ) -> Geometry:
        """Build the geometry of a grid; for oblique grids the nearest axes are taken.

        Parameters
        ----------
        affine
            (4, 4), voxel ``(i, j, k)`` to millimetres in RAS+.
        shape
            Three positive sizes.
        notes, reference, source
            As the attributes.

        Raises
        ------
        VolumeError
            If the affine is not finite, has a zero spacing or is singular.

        Examples
        --------
        Eight sagittal slices, 3 mm apart from left to right, of 6 (up) by 7 (back) voxels:

        >>> affine = np.array([[0, 0, 3, 0], [0, -1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
        >>> geometry = Geometry.from_affine(affine, (6, 7, 8))
        >>> geometry.canonical_shape, geometry.spacing
        ((6, 7, 8), (2.0, 1.0, 3.0))
        >>> geometry.axes, geometry.flips
        ((0, 1, 2), (False, False, True))
        """
        affine = np.array(affine, dtype=np.float64)
        fault = _fault(affine, shape)
        if fault:
            where = f"{source}: " if source else ""
            raise VolumeError(f"{where}{fault}; export it again from the original")
        axes, flips = _nearest_axes(affine)
        affine.setflags(write=False)
        i, j, k = (int(n) for n in shape)
        return cls(affine, (i, j, k), axes, flips, tuple(notes), dict(reference or {}), source)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along ``(z, y, x)`` in mm."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)[list(self.axes)].tolist()
        return z, y, x

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Shape in ``(z, y, x)``."""
        z, y, x = self.axes
        return self.shape[z], self.shape[y], self.shape[x]

    @property
    def canonical_affine(self) -> NDArray[np.float64]:
        """float64 (4, 4), canonical index ``(z, y, x)`` to millimetres in RAS+."""
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1
        for n, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            to_source[axis, n] = -1 if flip else 1
            to_source[axis, 3] = self.shape[axis] - 1 if flip else 0
        return self.affine @ to_source

    def to_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """View an array of the source grid ``(i, j, k)`` as ``(z, y, x)``."""
        if array.shape != self.shape:
            raise VolumeError(f"an array of shape {array.shape} is not on the grid {self.shape}")
        return array.transpose(self.axes)[self._flipped()]

    def from_canonical(self, array: NDArray[Any]) -> NDArray[Any]:
        """View an array in ``(z, y, x)`` on the source grid ``(i, j, k)``; exact inverse."""
        if array.shape != self.canonical_shape:
            raise VolumeError(
                f"an array of shape {array.shape} is not on the grid "
                f"{self.canonical_shape} (z, y, x)"
            )
        return array[self._flipped()].transpose(np.argsort(self.axes))

    def placed(
        self, array: NDArray[Any], affine: NDArray[np.float64], crop: bool = False
    ) -> NDArray[Any] | None:
        """Bring an array that another file stores onto this source grid, without resampling.

        Parameters
        ----------
        array
            (i', j', k') on the other file's grid.
        affine
            (4, 4), that grid's voxel to millimetres in RAS+.
        crop
            Accept an array that covers only a part of this grid; the rest becomes 0.

        Returns
        -------
        The array in this grid's ``(i, j, k)``, or None when the two are not the same grid in some
        order of axes.
        """
        mapping = np.linalg.inv(self.affine) @ affine
        turn, offset = np.rint(mapping[:3, :3]), np.rint(mapping[:3, 3])
        if not (np.abs(turn).sum(0) == 1).all() or not (np.abs(turn).sum(1) == 1).all():
            return None
        corners = np.array(list(itertools.product(*((0, n - 1) for n in array.shape)))).T
        there = mapping[:3, :3] @ corners + mapping[:3, 3:]
        if np.abs(there - (turn @ corners + offset[:, None])).max() > _SAME_GRID:
            return None
        order = np.abs(turn).argmax(1)
        turned = array.transpose(order)[tuple(slice(None, None, int(s)) for s in turn.sum(1))]
        start = (turn @ corners + offset[:, None]).min(1).astype(int)
        stop = start + turned.shape
        if (start == 0).all() and turned.shape == self.shape:
            return turned
        if not crop or (start < 0).any() or (stop > self.shape).any():
            return None
        whole = np.zeros(self.shape, array.dtype)
        whole[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = turned
        return whole

    def _flipped(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)


def _fault(affine: NDArray[np.float64], shape: tuple[int, ...]) -> str | None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return "its affine is not a finite 4 by 4 matrix"
    if len(shape) != 3 or min(shape) < 1:
        return f"its shape {tuple(shape)} is not that of a volume"
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-6:
        return "its voxel spacing is zero along an axis"
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        return "its affine is singular: two axes point the same way"
    return None


def _nearest_axes(
    affine: NDArray[np.float64],
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    orientation = nib.orientations.io_orientation(affine)
    ras = [int(axis) for axis in orientation[:, 0]]
    axes = [ras.index(axis) for axis, _ in _CANONICAL]
    flips = [
        bool(orientation[a, 1] * sign < 0) for a, (_, sign) in zip(axes, _CANONICAL, strict=True)
    ]
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])
