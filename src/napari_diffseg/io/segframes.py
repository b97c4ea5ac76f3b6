"""Frames of a DICOM-SEG onto the grid of a volume, by their own position and orientation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import iter_pixels

from napari_diffseg.io.dicom_file import check_pixels
from napari_diffseg.io.formats import LPS
from napari_diffseg.io.geometry import Geometry, GridError, VolumeError
from napari_diffseg.io.labels import Overlap

_SAME_PLACE = 0.1
"""A frame's pixels may lie so far from those of the grid, in voxels. Directions are often rounded
in the fourth digit, which moves the far corner of a large slice by some hundredths."""

_ToIndex = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def overlapping(path: Path) -> VolumeError:
    """Error for segments that overlap."""
    return VolumeError(f"{path}: holds overlapping segments; export segments that do not overlap")


def on_grid(
    path: Path, dataset: pydicom.Dataset, geometry: Geometry, overlap: Overlap
) -> tuple[NDArray[np.uint16], int | None]:
    """Put the frames of a DICOM-SEG where they lie.

    Returns
    -------
    Segment numbers (i, j, k) on the grid, and how many voxels several segments share; None where
    they do not overlap.

    Raises
    ------
    VolumeError
        If the file holds fractions or segments that overlap and must not, or a frame lies on
        another grid.
    """
    kind = dataset.get("SegmentationType")
    if kind not in ("BINARY", "LABELMAP"):
        raise VolumeError(f"{path}: holds fractions ({kind}); export a binary segmentation")
    elsewhere = GridError(
        f"{path}: lies on another grid than the volume; export the labels on the volume's grid, "
        "or ask for resampling"
    )
    to_index = indexer(geometry)
    check_pixels(path, dataset)
    whole = np.zeros(geometry.shape, np.uint16)
    shared_voxels = np.zeros(geometry.shape, bool)
    (shared,) = dataset.get("SharedFunctionalGroupsSequence") or (pydicom.Dataset(),)
    frames = dataset.PerFrameFunctionalGroupsSequence
    for own, plane in zip(frames, _planes(dataset), strict=True):
        row, column = np.nonzero(plane)
        if not len(row):
            continue
        steps = _steps(own, shared, plane.shape, geometry, to_index)
        if steps is None:
            raise elsewhere
        index = steps[0] + np.outer(column, steps[1]) + np.outer(row, steps[2])
        if (index < 0).any() or (index >= geometry.shape).any():
            raise elsewhere
        number = plane[row, column].astype(np.uint16)
        if kind == "BINARY":
            number[:] = _element(
                own, shared, "SegmentIdentificationSequence"
            ).ReferencedSegmentNumber
        at = tuple(index.T)
        taken = (whole[at] != 0) & (whole[at] != number)
        if taken.any() and overlap == "refuse":
            raise overlapping(path)
        shared_voxels[at] |= taken
        later = whole[at] < number if overlap == "last" else (whole[at] > number) | (whole[at] == 0)
        whole[at] = np.where(later, number, whole[at])
    count = int(shared_voxels.sum())
    return whole, count or None


def _planes(dataset: pydicom.Dataset) -> Iterator[NDArray[Any]]:
    """Decode frames one by one; pydicom loses those of single bits that begin within a byte."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if dataset.BitsAllocated != 1 or (syntax.is_compressed and not syntax.is_deflated):
        yield from iter_pixels(dataset)
        return
    size = dataset.Rows * dataset.Columns
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    for start in range(0, int(dataset.NumberOfFrames) * size, size):
        bits = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
        yield bits[start % 8 :][:size].reshape(dataset.Rows, dataset.Columns)


def _element(own: pydicom.Dataset, shared: pydicom.Dataset, name: str) -> pydicom.Dataset:
    """Functional group of a frame: its own, or that of all frames."""
    (group,) = own.get(name) or shared.get(name) or (pydicom.Dataset(),)
    return group


def _steps(
    own: pydicom.Dataset,
    shared: pydicom.Dataset,
    size: tuple[int, ...],
    geometry: Geometry,
    to_index: _ToIndex,
) -> NDArray[np.int64] | None:
    """Index of a frame's first pixel, and steps to the next column and row; None if not on grid."""
    place = _element(own, shared, "PlanePositionSequence").get("ImagePositionPatient")
    turn = _element(own, shared, "PlaneOrientationSequence").get("ImageOrientationPatient")
    spacing = _element(own, shared, "PixelMeasuresSequence").get("PixelSpacing")
    if not (place and turn and spacing):
        return _steps_by_identifier(own, size, geometry)
    origin = np.array(place, float)
    along_row, along_column = np.array(turn, float).reshape(2, 3)
    rows, columns = (max(n - 1, 1) for n in size)
    right = origin + along_row * float(spacing[1]) * columns
    down = origin + along_column * float(spacing[0]) * rows
    first, last_column, last_row = to_index(np.array([origin, right, down]) * LPS.diagonal()[:3])
    exact = np.array([first, (last_column - first) / columns, (last_row - first) / rows])
    whole: NDArray[np.int64] = np.rint(exact).astype(np.int64)
    off = np.abs(exact - whole) * np.array([[1], [columns], [rows]])
    if (np.abs(whole[1:]).sum(axis=1) != 1).any():
        return None
    if off.max() > _SAME_PLACE:  # coarser rounding, if the frame says that it is this slice
        named = _steps_by_identifier(own, size, geometry)
        return named if off.max() < 0.5 and named is not None and (named == whole).all() else None
    return whole


def _steps_by_identifier(
    own: pydicom.Dataset, size: tuple[int, ...], geometry: Geometry
) -> NDArray[np.int64] | None:
    """Likewise, of a frame that only says on which slice of the series it was made."""
    slices = geometry.reference.get("dicom", {}).get("slices", ())
    sources = {
        str(image.get("ReferencedSOPInstanceUID"))
        for derivation in own.get("DerivationImageSequence") or ()
        for image in derivation.get("SourceImageSequence") or ()
    }
    at = [k for k, uid in enumerate(slices) if uid in sources]
    if len(at) != 1 or size != geometry.shape[1::-1]:
        return None
    return np.array([[0, 0, at[0]], [1, 0, 0], [0, 1, 0]])


def indexer(geometry: Geometry) -> _ToIndex:
    """Make a function from (n, 3) RAS+ mm to indices (i, j, k) of the grid, not rounded.

    The slices of a DICOM series lie at their own positions, which may be uneven.
    """
    inverse = np.linalg.inv(geometry.affine)
    places: Any = geometry.reference.get("dicom", {}).get("positions", ())
    if len(places) < 2:
        return lambda points: points @ inverse[:3, :3].T + inverse[:3, 3]
    positions = np.array(places) * LPS.diagonal()[:3]
    plane = geometry.affine[:3, :2]
    normal = np.cross(plane[:, 0], plane[:, 1])
    normal /= np.linalg.norm(normal)
    normal *= np.sign(normal @ (positions[-1] - positions[0]))
    heights = positions @ normal

    def to_index(points: NDArray[np.float64]) -> NDArray[np.float64]:
        height = points @ normal
        k = np.interp(height, heights, np.arange(len(heights)))
        k += np.minimum(height - heights[0], 0) + np.maximum(height - heights[-1], 0)  # outside
        nearest = positions[np.clip(np.rint(k).astype(int), 0, len(positions) - 1)]
        across = (points - nearest) @ np.linalg.pinv(plane).T
        return np.column_stack([across, k])

    return to_index
