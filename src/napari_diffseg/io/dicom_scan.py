"""Finding the CT series of a folder: which files are slices, and which slices are one volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from napari_diffseg.io import multiframe
from napari_diffseg.io.dicom_file import read_dicom
from napari_diffseg.io.formats import colour, reading
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.slice_places import unevenness

_NUMBERS = {
    "ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2,
    "SliceThickness": 1, "SpacingBetweenSlices": 1, "RescaleSlope": 1, "RescaleIntercept": 1,
}  # fmt: skip
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "BitsAllocated", "FrameOfReferenceUID", "AcquisitionNumber",
    "TemporalPositionIdentifier", "ConvolutionKernel", *_NUMBERS, *multiframe.TAGS,
]  # fmt: skip

# SOP classes that are no plain CT slices: pictures of screens, and enhanced CT.
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.2."

_SAME_DIRECTION = 1e-3
"""Orientations of one series differ by rounding only."""
_FEWEST = 3
"""So many slices show that a slice across them is a scout, and single ones that they are one."""


class Slice(NamedTuple):
    """One slice: a file, or a frame of a multi-frame file."""

    path: Path
    header: pydicom.Dataset
    frame: int | None = None

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
        """Centre of the first pixel, (L, P, S) mm."""
        return np.array(self.header.ImagePositionPatient, float)

    @property
    def orientation(self) -> NDArray[np.float64]:
        """Directions of growing columns and of growing rows, (2, 3)."""
        return np.array(self.header.ImageOrientationPatient, float).reshape(2, 3)

    @property
    def grid(self) -> tuple[int, int, float, float]:
        """Rows, columns, and the distances between them in mm."""
        rows, columns = self.header.PixelSpacing
        return int(self.header.Rows), int(self.header.Columns), float(rows), float(columns)


class Group(NamedTuple):
    """Slices that should be one volume.

    ``part`` tells groups of one series apart, 0 where there is one only; ``fault`` is why they are
    no volume, empty where they are one.
    """

    slices: list[Slice]
    notes: tuple[str, ...] = ()
    part: int = 0
    fault: str = ""


def read_header(path: Path) -> pydicom.Dataset:
    """Read what this package needs of a DICOM header; the ``DICM`` prefix may be missing.

    Raises
    ------
    InvalidDicomError
        If the file is not DICOM.
    """
    header = read_dicom(path, stop_before_pixels=True, specific_tags=_TAGS)
    for _ in header:  # decodes them all, so that a damaged one is found here
        pass
    return header


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its content; a damaged one is, too."""
    try:
        read_header(path)
    except (InvalidDicomError, OSError, EOFError):
        return False
    except Exception:
        return True
    return True


def study_beside(path: Path) -> list[Path]:
    """List the files of a folder that are CT of the same study as one of them."""

    def study(file: Path) -> str | None:
        try:
            header = read_header(file)
        except Exception:
            return None
        return str(header.get("StudyInstanceUID", "")) if header.get("Modality") == "CT" else None

    own = study(path)
    if own is None:
        return []
    return [file for file in path.parent.iterdir() if file.is_file() and study(file) == own]


def find(source: Path) -> dict[str, Group]:
    """Find the CT series in a folder and the folders in it, or beside one file of a series.

    Returns
    -------
    By series instance UID, and by UID, slash, number from 1 where a series is several volumes.

    Raises
    ------
    VolumeError
        If there are none, or a CT slice is damaged or has no geometry.
    """
    if source.is_file():
        with reading(source):
            study = str(read_header(source).get("StudyInstanceUID", ""))
        files = sorted(file for file in source.parent.iterdir() if file.is_file())
    else:
        study, files = None, sorted(file for file in source.rglob("*") if file.is_file())
    found: dict[str, dict[Any, Slice]] = defaultdict(dict)
    other: set[str] = set()
    for path in files:
        try:
            header = read_header(path)
        except (InvalidDicomError, EOFError):
            continue
        except Exception as error:
            raise VolumeError(f"{path}: is damaged DICOM ({error}); copy it again") from error
        if study not in (None, str(header.get("StudyInstanceUID", ""))):
            continue
        with reading(path):
            why = _unfit(Slice(path, header))
            if why:
                other.add(why)
                continue
            for item in _slices(path, header):
                _check(item)
                # One identifier at two places is not one slice twice, but a broken export.
                place = map(float, item.header.ImagePositionPatient)
                own = item.uid or str(path), item.frame, *place
                found[str(header.get("SeriesInstanceUID", ""))][own] = item
    if not found:
        kinds = f"only {', '.join(sorted(other))}" if other else "no DICOM files"
        what = kinds if files else "no files"
        raise VolumeError(f"{source}: holds {what}; choose a folder with a CT series")
    result: dict[str, Group] = {}
    for uid, series in sorted(_joined({u: list(s.values()) for u, s in found.items()}).items()):
        groups = _split(series)
        for n, group in enumerate(groups, start=1):
            several = len(groups) > 1
            result[f"{uid}/{n}" if several else uid] = group._replace(part=n if several else 0)
    return result


def _unfit(item: Slice) -> str:
    """Kind of a DICOM file that holds no slices of a CT volume; empty if it does."""
    header = item.header
    modality = str(header.get("Modality", ""))
    if modality != "CT":
        return modality or "no modality"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "CT localisers"
    if item.storage.startswith(_CAPTURE):
        return "secondary captures"
    if item.storage.startswith(_MULTI_FRAME) and not header.get(multiframe.FRAMES):
        return "multi-frame CT without positions of its frames, which must be exported again"
    return ""


def _slices(path: Path, header: pydicom.Dataset) -> Iterator[Slice]:
    if not header.get(multiframe.FRAMES):
        yield Slice(path, header)
        return
    for n, frame in enumerate(multiframe.frame_headers(header)):
        yield Slice(path, frame, n)


def _check(item: Slice) -> None:
    path, header, _ = item
    for tag in _NUMBERS:
        try:
            np.array(header.get(tag) or 0, float)
        except Exception as error:
            raise VolumeError(
                f"{path}: its {tag} is no number; write it with a decimal point, not a comma"
            ) from error
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise VolumeError(f"{path}: is multi-frame DICOM; export one file for each slice, or NIfTI")
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise colour(path)
    if any(len(header.get(tag) or ()) != n for tag, n in _NUMBERS.items() if n > 1):
        raise VolumeError(f"{path}: has no position, orientation or spacing; export it again")
    if min(item.grid) <= 0:
        raise VolumeError(f"{path}: has a spacing of zero; export it again")


def _joined(found: Mapping[str, list[Slice]]) -> dict[str, list[Slice]]:
    """Join series of one slice each that are one volume, as some exporters number every file."""
    alone: dict[Any, list[str]] = defaultdict(list)
    for uid, slices in found.items():
        first, *more = slices
        study, frame = (first.header.get(f"{k}UID") for k in ("StudyInstance", "FrameOfReference"))
        if not more and study and frame:
            direction = tuple((np.rint(first.orientation / _SAME_DIRECTION) + 0.0).ravel())
            alone[study, frame, first.grid, direction].append(uid)
    result = dict(found)
    for uids in alone.values():
        together = [found[uid][0] for uid in uids]
        if len(uids) >= _FEWEST and not _fault(together):
            for uid in uids:
                del result[uid]
            result[min(uids)] = together
    return result


def _split(slices: list[Slice]) -> list[Group]:
    """Take a series apart that is several volumes, where its headers say which slice is whose."""
    slices, notes = _without_scouts(slices)
    if len({str(item.header.get("SeriesInstanceUID", "")) for item in slices}) > 1:
        notes += ("each slice has a series UID of its own; they are read as one series",)
    fault = _fault(slices)
    if fault:
        for key in _KEYS:
            parts: dict[Any, list[Slice]] = defaultdict(list)
            for item in slices:
                parts[key(item)].append(item)
            if len(parts) > 1 and not any(len(p) < 2 or _fault(p) for p in parts.values()):
                return [Group(part, notes) for _, part in sorted(parts.items())]
    return [Group(slices, notes, fault=fault)]


def _of(*keywords: str) -> Callable[[Slice], str]:
    """Key of a slice: the first of some elements that it has; numbers sort as numbers."""

    def key(item: Slice) -> str:
        return next((f"{item.header[k].value!s:>12}" for k in keywords if k in item.header), "")

    return key


_KEYS: tuple[Callable[[Slice], Any], ...] = (
    _of("FrameAcquisitionNumber", "AcquisitionNumber"),
    _of("TemporalPositionIndex", "TemporalPositionIdentifier"),
    _of("StackID"),
    _of("ConvolutionKernel"),
    _of("ImageType"),
    lambda item: (item.grid, tuple(np.round(item.orientation.ravel(), 2) + 0.0)),
)
"""What tells the acquisitions of one series apart, most telling first."""


def _without_scouts(slices: list[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    """Leave out slices that lie across the others: scouts that are not marked as localisers."""
    normals = np.array([np.cross(*item.orientation) for item in slices])
    usual = np.median(normals, axis=0)
    along = np.abs(normals @ usual)
    rest = [item for item, cosine in zip(slices, along, strict=True) if cosine > 0.5]
    scouts = len(slices) - len(rest)
    if not 0 < scouts <= len(rest) - _FEWEST + 1 or scouts > 2 or along[along <= 0.5].max() > 0.1:
        return slices, ()
    names = f"{scouts} slice{'s' if scouts > 1 else ''} across the others"
    return rest, (f"{names} left out, probably a scout",)


def _fault(slices: list[Slice]) -> str:
    """Why slices are no volume, with what to do; empty if they are one."""
    tilts = np.array([item.orientation for item in slices])
    if len({item.grid for item in slices}) > 1 or np.ptp(tilts, axis=0).max() > _SAME_DIRECTION:
        return (
            "its series mixes slices of different size, spacing or orientation; "
            "keep one kind in the folder"
        )
    normal = normal_of(slices)
    if not np.isfinite(normal).all():
        return "its slices have no usable orientation; export them again"
    heights = np.sort([item.position @ normal for item in slices])
    gaps = np.diff(heights)
    if len(gaps) and gaps.min() < 1e-3:
        return (
            "its series has two slices at one position (several phases?); "
            "keep one phase in the folder"
        )
    error = unevenness(heights)
    if len(gaps) and error >= np.median(gaps):
        return (
            f"its series has a gap of {gaps.max():.4g} mm between slices "
            f"{np.median(gaps):.3g} mm apart, which would put slices up to {error:.3g} mm off; "
            "keep one part in the folder"
        )
    return ""


def normal_of(slices: Iterable[Slice]) -> NDArray[np.float64]:
    """Unit normal (3,) of parallel slices; not finite if their directions are none."""
    normal = np.cross(*next(iter(slices)).orientation)
    length = np.linalg.norm(normal)
    return normal / length if length > 0.5 else np.full(3, np.nan)
