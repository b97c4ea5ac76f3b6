"""DICOM: a folder with a CT series.

Positions come from each slice's Image Position (Patient), never from slice numbers, thickness or
the order of file names. Nothing that identifies a patient leaves this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from napari_diffseg.io import dicom_scan, slice_places
from napari_diffseg.io.dicom_file import check_pixels, read_dicom
from napari_diffseg.io.dicom_scan import Group, Slice
from napari_diffseg.io.formats import LPS, is_sheared, reading, scaled, to_hu
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.multiframe import frame_pixels
from napari_diffseg.io.voxels import check_memory

# A tilt below this, in degrees, and gaps that differ by less than this share are rounding.
_TILT = 0.1
_GAP = 0.02
_LISTED = 6
"""Of missing slices, so many are named."""
_SHEARED = "choose .seg.nrrd or .mha for 3D Slicer and ITK-SNAP, which open no sheared NIfTI"


@dataclass(frozen=True)
class Series:
    """One CT series of a folder.

    Attributes
    ----------
    uid
        Series instance UID; empty where it was taken out.
    number, description
        As the scanner wrote them.
    slices
        How many.
    shape
        (rows, columns) of a slice.
    spacing
        (z, y, x) in mm.
    """

    uid: str
    number: str
    description: str
    slices: int
    shape: tuple[int, int]
    spacing: tuple[float, float, float]

    def __str__(self) -> str:
        size = " x ".join(f"{s:.3g}" for s in self.spacing)
        title = f"{self.number or '-'} {self.description or 'without description'}"
        return f"{title}, {self.slices} slices, {size} mm: {self.uid}"


def list_series(folder: str | Path) -> tuple[Series, ...]:
    """List the CT series of a folder and the folders in it, without localisers.

    Raises
    ------
    VolumeError
        If the folder holds no CT slices.
    """
    found = dicom_scan.find(Path(folder))
    return tuple(_describe(name, group) for name, group in found.items())


def read_series(source: Path, series: str | None = None) -> tuple[NDArray[Any], Geometry, str]:
    """Read one CT series as HU in canonical order, its geometry, and a name that identifies nobody.

    The folders inside a folder are searched, too; several series need a series instance UID or
    number. A file stands for the series that it belongs to, in its folder.

    Raises
    ------
    VolumeError
        If the series is missing, ambiguous, mixed, damaged, in colour, or has no geometry.
    """
    name, group = ordered(source, series)
    slices = group.slices
    first = slices[0].header
    at = places_of(slices)
    affine, notes = _affine(source, slices, at)
    rows, columns = slices[0].grid[:2]
    own = dict(zip(at, slices, strict=True))
    every = range(at[-1] + 1)
    reference = {
        "dicom": {
            "series": name,
            "frame_of_reference": str(first.get("FrameOfReferenceUID", "")),
            # None for a slice that is missing; its position is between its neighbours.
            "slices": tuple(own[k].uid if k in own else None for k in every),
            "positions": _positions(slices, at),
        }
    }
    shape = (columns, rows, len(every))
    for item in slices:
        with reading(item.path):
            check_pixels(item.path, item.header)
    check_memory(source, 2 * math.prod(shape))
    geometry = Geometry.from_affine(affine, shape, group.notes + notes, reference, source)
    more = _gaps(geometry, slice_places.missing(at))
    if is_sheared(geometry):
        more += (_SHEARED,)
    geometry = replace(geometry, notes=geometry.notes + more)
    hu = to_hu(slice_places.filled(_planes(slices), at), geometry)
    return hu, geometry, f"CT series {first.get('SeriesNumber') or ''}".strip()


def ordered(source: Path, series: str | None) -> tuple[str, Group]:
    """Name of one series, and its slices sorted along their normal."""
    found = dicom_scan.find(source)
    chosen = [
        name
        for name, group in found.items()
        if series in (None, name, name.split("/")[0], _number(group))
    ]
    if source.is_file():
        chosen = [n for n in chosen if any(item.path == source for item in found[n].slices)]
        if not chosen:
            raise VolumeError(f"{source}: is no slice of a CT series; choose one, or its folder")
    if len(chosen) != 1:
        listed = "; ".join(str(_describe(name, group)) for name, group in found.items())
        which = f"{'more than one' if chosen else 'no'} series {series}"
        what = f"{len(found)} series" if series is None else which
        raise VolumeError(
            f"{source}: holds {what}; name a file of one, or choose it by --series ({listed})"
        )
    group = found[chosen[0]]
    if group.fault:
        raise VolumeError(f"{source}: {group.fault}")
    normal = dicom_scan.normal_of(group.slices)
    group.slices.sort(key=lambda item: float(item.position @ normal))
    return chosen[0], group


def places_of(slices: list[Slice]) -> list[int]:
    """Place of each slice on the volume's grid, which may have places that no slice lies at."""
    normal = dicom_scan.normal_of(slices)
    heights = np.array([item.position @ normal for item in slices])
    return [int(k) for k in slice_places.places(heights)]


def _positions(slices: list[Slice], at: list[int]) -> tuple[tuple[float, ...], ...]:
    """(L, P, S) mm of the first pixel at every place of the grid."""
    known = np.array([item.position for item in slices])
    every = np.arange(at[-1] + 1)
    found = np.column_stack([np.interp(every, at, along) for along in known.T])
    found[at] = known  # to the last digit, as they are compared with the files' own
    return tuple(tuple(row) for row in found.tolist())


def _gaps(geometry: Geometry, missing: tuple[int, ...]) -> tuple[str, ...]:
    """Note on slices that are filled in, in the volume's own numbering."""
    if not missing:
        return ()
    axis = geometry.axes.index(2)
    last = geometry.shape[2] - 1
    names = sorted(last - k if geometry.flips[axis] else k for k in missing)
    many = len(names) > 1
    listed = ", ".join(map(str, names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")
    return (
        f"slice{'s' if many else ''} {listed} {'are' if many else 'is'} missing in the series and "
        "filled in from the neighbours",
    )


def _affine(
    source: Path, slices: list[Slice], at: list[int]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Place the series in RAS+ mm, and name what is not a plain box.

    The step from slice to slice is taken from the positions, so a tilted gantry gives a sheared
    affine, which is where the voxels really are. With distances that have no common step it is the
    mean step, unless that would put a slice in another one's place, which finding the series has
    ruled out. ``at`` is the place of each slice.
    """
    normal = dicom_scan.normal_of(slices)
    positions = np.array([item.position for item in slices])
    _, _, row_step, column_step = slices[0].grid
    along_row, along_column = slices[0].orientation
    notes: list[str] = []
    if len(slices) == 1:
        header = slices[0].header
        thickness = float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 0)
        if thickness <= 0:
            raise VolumeError(f"{source}: holds one slice without a thickness; choose a series")
        step = normal * thickness
        notes.append(f"one slice only; its thickness {thickness:g} mm is taken as spacing")
    else:
        step = (positions[-1] - positions[0]) / at[-1]
        heights = positions @ normal
        gaps = np.diff(heights) / np.diff(at)
        middle = float(np.median(gaps))
        tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
        if tilt > _TILT:
            notes.append(f"gantry tilt {tilt:.1f}°")
        if np.ptp(gaps) > _GAP * middle:
            uneven = f"uneven slice spacing {gaps.min():.3g} to {gaps.max():.3g} mm"
            error = slice_places.unevenness(heights)
            notes.append(f"{uneven}, slices lie up to {error:.2g} mm off")
        line = positions[0] + np.outer(positions @ normal - positions[0] @ normal, step) / (
            step @ normal
        )
        sideways = np.linalg.norm(positions - line, axis=1).max()
        if sideways > 0.5 * min(row_step, column_step):
            notes.append(f"slices shifted sideways by up to {sideways:.3g} mm")
    affine = np.eye(4)
    # Row cosines point along growing columns, whose distance is the second number of PixelSpacing.
    affine[:3, 0] = along_row * column_step
    affine[:3, 1] = along_column * row_step
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return LPS @ affine, tuple(notes)


def _planes(slices: list[Slice]) -> Iterator[NDArray[Any]]:
    """Decode slices as HU, (column, row)."""
    frames: dict[Path, Iterator[tuple[pydicom.Dataset, NDArray[Any]]]] = {}
    for path, header, frame in slices:
        slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
        if slope is None or intercept is None:
            raise VolumeError(f"{path}: has no rescale to HU; export it again as CT")
        with reading(path):
            if frame is None:
                dataset = read_dicom(path)
                plane = dataset.pixel_array
            else:
                if path not in frames:
                    wanted = [n for other, _, n in slices if other == path and n is not None]
                    frames[path] = frame_pixels(read_dicom(path), wanted)
                dataset, plane = next(frames[path])
            plane = _value_bits(plane, dataset)
        yield scaled(plane, float(slope), float(intercept)).T


def _value_bits(plane: NDArray[Any], dataset: pydicom.Dataset) -> NDArray[Any]:
    """Take out what old scanners keep above the stored bits of a value, such as an overlay.

    pydicom does so too, but not for JPEG 2000 and JPEG-LS. Like it and GDCM, this takes no notice
    of High Bit, which CT does not choose and some exports write wrong.
    """
    unused = plane.dtype.itemsize * 8 - int(dataset.BitsStored)
    # A shift to the left drops what lies above; the one back keeps the sign.
    return (plane << unused) >> unused if unused > 0 else plane


def _number(group: Group) -> str:
    return str(group.slices[0].header.get("SeriesNumber") or "")


def _describe(name: str, group: Group) -> Series:
    slices = group.slices
    header = slices[0].header
    rows, columns, row_step, column_step = slices[0].grid
    heights = sorted(item.position @ np.cross(*slices[0].orientation) for item in slices)
    thickness = float(header.get("SliceThickness") or 0)
    gap = float(np.median(np.diff(heights))) if len(heights) > 1 else thickness
    part = [f"part {group.part}"] if group.part else []
    description = str(header.get("SeriesDescription", ""))
    return Series(
        name,
        _number(group),
        ", ".join([description, *part]),
        len(slices),
        (rows, columns),
        (gap, row_step, column_step),
    )
