"""DICOM: a folder with a CT series.

Positions come from each slice's Image Position (Patient), never from slice numbers, thickness or
the order of file names. Nothing that identifies a patient leaves this module.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from napari_diffseg.io.formats import LPS, colour, reading, scaled, to_hu
from napari_diffseg.io.geometry import Geometry, VolumeError

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "ImageType", "Rows", "Columns", "PixelSpacing", "ImagePositionPatient",
    "NumberOfFrames", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
    "SamplesPerPixel", "FrameOfReferenceUID",
]  # fmt: skip

# SOP classes that are no plain CT slices: pictures of screens, and enhanced CT.
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.2."

# A tilt below this, in degrees, and gaps that differ by less than this share are rounding.
_TILT = 0.1
_GAP = 0.02


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


class _Slice(NamedTuple):
    path: Path
    header: pydicom.Dataset

    @property
    def uid(self) -> str:
        """SOP instance UID; anonymisers sometimes leave it in the file's preamble only."""
        meta = getattr(self.header, "file_meta", {})
        return str(self.header.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID", ""))

    @property
    def storage(self) -> str:
        """SOP class UID, likewise."""
        meta = getattr(self.header, "file_meta", {})
        return str(self.header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", ""))

    @property
    def position(self) -> NDArray[np.float64]:
        return np.array(self.header.ImagePositionPatient, float)

    @property
    def orientation(self) -> NDArray[np.float64]:
        return np.array(self.header.ImageOrientationPatient, float).reshape(2, 3)

    @property
    def grid(self) -> tuple[int, int, float, float]:
        rows, columns = self.header.PixelSpacing
        return int(self.header.Rows), int(self.header.Columns), float(rows), float(columns)


def list_series(folder: str | Path) -> tuple[Series, ...]:
    """List the CT series of a folder and the folders in it, without localisers.

    Raises
    ------
    VolumeError
        If the folder holds no CT slices.
    """
    return tuple(_describe(slices) for slices in _scan(Path(folder)).values())


def read_series(folder: Path, series: str | None = None) -> tuple[NDArray[Any], Geometry, str]:
    """Read one CT series as HU in canonical order, its geometry, and a name that identifies nobody.

    The folders inside are searched, too; several series need a series instance UID or number.

    Raises
    ------
    VolumeError
        If the series is missing, ambiguous, mixed, damaged, in colour, or has no geometry.
    """
    slices, normal = ordered(folder, series)
    first = slices[0].header
    affine, notes = _affine(folder, slices, normal)
    rows, columns = slices[0].grid[:2]
    reference = {
        "dicom": {
            "series": str(first.get("SeriesInstanceUID", "")),
            "frame_of_reference": str(first.get("FrameOfReferenceUID", "")),
            "slices": tuple(item.uid for item in slices),
        }
    }
    shape = (columns, rows, len(slices))
    geometry = Geometry.from_affine(affine, shape, notes, reference, folder)
    hu = to_hu((_plane(item) for item in slices), geometry)
    return hu, geometry, f"CT series {first.get('SeriesNumber') or ''}".strip()


def ordered(folder: Path, series: str | None) -> tuple[list[_Slice], NDArray[np.float64]]:
    """Slices of one series sorted along their normal, and that normal."""
    found = _scan(folder)
    chosen = [
        slices
        for uid, slices in found.items()
        if series in (None, uid, str(slices[0].header.get("SeriesNumber") or ""))
    ]
    if len(chosen) != 1:
        listed = "; ".join(str(_describe(slices)) for slices in found.values())
        which = f"{'more than one' if chosen else 'no'} series {series}"
        what = f"{len(found)} series" if series is None else which
        raise VolumeError(f"{folder}: holds {what}; choose one by --series ({listed})")
    slices = chosen[0]
    tilts = np.array([item.orientation for item in slices])
    if len({item.grid for item in slices}) > 1 or np.ptp(tilts, axis=0).max() > 1e-3:
        raise VolumeError(
            f"{folder}: its series mixes slices of different size, spacing or orientation; "
            "keep one kind in the folder"
        )
    normal = np.cross(*slices[0].orientation)
    if not np.isfinite(normal).all() or np.linalg.norm(normal) < 0.5:
        raise VolumeError(f"{folder}: its slices have no usable orientation; export them again")
    normal /= np.linalg.norm(normal)
    slices.sort(key=lambda item: float(item.position @ normal))
    heights = np.array([item.position @ normal for item in slices])
    if len(heights) > 1 and np.diff(heights).min() < 1e-3:
        raise VolumeError(
            f"{folder}: its series has two slices at one position (several phases?); "
            "keep one phase in the folder"
        )
    return slices, normal


def _scan(folder: Path) -> dict[str, list[_Slice]]:
    """Find the CT slices of a folder by series, each slice once."""
    found: dict[str, dict[Any, _Slice]] = defaultdict(dict)
    other: set[str] = set()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for path in files:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        except (InvalidDicomError, EOFError):
            continue
        except Exception as error:
            raise VolumeError(f"{path}: is damaged DICOM ({error}); copy it again") from error
        item = _Slice(path, header)
        modality = str(header.get("Modality", ""))
        if modality != "CT":
            other.add(modality or "no modality")
        elif "LOCALIZER" in (header.get("ImageType") or ()):
            other.add("CT localisers")
        elif item.storage.startswith(_CAPTURE):
            other.add("secondary captures")
        elif item.storage.startswith(_MULTI_FRAME):
            other.add("multi-frame CT, which must first be exported slice by slice or as NIfTI")
        else:
            _check(item)
            # One identifier at two places is not one slice twice, but a broken export.
            own = item.uid or str(path), *map(float, header.ImagePositionPatient)
            found[str(header.get("SeriesInstanceUID", ""))][own] = item
    if not found:
        kinds = f"only {', '.join(sorted(other))}" if other else "no DICOM files"
        what = kinds if files else "no files"
        raise VolumeError(f"{folder}: holds {what}; choose a folder with a CT series")
    return {uid: list(slices.values()) for uid, slices in sorted(found.items())}


def _check(item: _Slice) -> None:
    path, header = item
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise VolumeError(f"{path}: is multi-frame DICOM; export one file for each slice, or NIfTI")
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise colour(path)
    lengths = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
    if any(len(header.get(tag) or ()) != n for tag, n in lengths.items()):
        raise VolumeError(f"{path}: has no position, orientation or spacing; export it again")
    if min(item.grid) <= 0:
        raise VolumeError(f"{path}: has a spacing of zero; export it again")


def _affine(
    folder: Path, slices: list[_Slice], normal: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Place the series in RAS+ mm, and name what is not a plain box.

    The step from slice to slice is taken from the positions, so a tilted gantry gives a sheared
    affine, which is where the voxels really are. With uneven gaps it is the mean step, unless
    that would put a slice in another one's place.
    """
    positions = np.array([item.position for item in slices])
    _, _, row_step, column_step = slices[0].grid
    along_row, along_column = slices[0].orientation
    notes: list[str] = []
    if len(slices) == 1:
        header = slices[0].header
        thickness = float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 0)
        if thickness <= 0:
            raise VolumeError(f"{folder}: holds one slice without a thickness; choose a series")
        step = normal * thickness
        notes.append(f"one slice only; its thickness {thickness:g} mm is taken as spacing")
    else:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        heights = positions @ normal
        gaps, middle = np.diff(heights), float(np.median(np.diff(heights)))
        even = np.linspace(heights[0], heights[-1], len(heights))
        error = float(np.abs(heights - even).max())
        if error >= middle:
            raise VolumeError(
                f"{folder}: its series has a gap of {gaps.max():.4g} mm between slices "
                f"{middle:.3g} mm apart, which would put slices up to {error:.3g} mm off; "
                "keep one part in the folder"
            )
        tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
        if tilt > _TILT:
            notes.append(f"gantry tilt {tilt:.1f}°")
        if np.ptp(gaps) > _GAP * middle:
            uneven = f"uneven slice spacing {gaps.min():.3g} to {gaps.max():.3g} mm"
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


def _plane(item: _Slice) -> NDArray[Any]:
    """Decode one slice as HU, (column, row)."""
    with reading(item.path):
        dataset = pydicom.dcmread(item.path)
        plane: NDArray[Any] = dataset.pixel_array
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope is None or intercept is None:
        raise VolumeError(f"{item.path}: has no rescale to HU; export it again as CT")
    return scaled(plane, float(slope), float(intercept)).T


def _describe(slices: list[_Slice]) -> Series:
    header = slices[0].header
    rows, columns, row_step, column_step = slices[0].grid
    heights = sorted(item.position @ np.cross(*slices[0].orientation) for item in slices)
    thickness = float(header.get("SliceThickness") or 0)
    gap = float(np.median(np.diff(heights))) if len(heights) > 1 else thickness
    return Series(
        str(header.get("SeriesInstanceUID", "")),
        str(header.get("SeriesNumber") or ""),
        str(header.get("SeriesDescription", "")),
        len(slices),
        (rows, columns),
        (gap, row_step, column_step),
    )
