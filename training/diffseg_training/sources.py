"""Find volumes under folders, and say who they are: checksum, spacing, patient, licence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diffseg_training.settings import PretrainError, Source
from napari_diffseg.io.dicom import list_series

_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class Found:
    """A volume that waits to be prepared.

    Attributes
    ----------
    path
        File, or DICOM folder.
    name
        Path below the input folder, with ``/``; a DICOM series adds ``#`` and its number.
    series
        Series UID of a DICOM series.
    """

    path: Path
    name: str
    series: str | None = None


def find_volumes(inputs: Iterable[Path]) -> list[Found]:
    """Volumes under files and folders, in the order of their names.

    Label maps (``*.labels.*``, ``*.seg.nrrd``) are left out.

    Raises
    ------
    PretrainError
        If an input does not exist, or none holds a volume.
    """
    found: list[Found] = []
    for place in inputs:
        if not place.exists():
            raise PretrainError(f"{place}: no such file or folder")
        paths = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        root = place.parent if place.is_file() else place
        folders = set()
        for path in sorted(paths):
            name = path.name.lower()
            if name.endswith(".seg.nrrd") or ".labels." in name:
                continue
            if name.endswith(_SUFFIXES):
                found.append(Found(path, path.relative_to(root).as_posix()))
            elif path.parent not in folders and _is_dicom(path):
                folders.add(path.parent)
                label = path.parent.relative_to(root).as_posix()
                label = path.parent.name if label == "." else label
                for number, series in enumerate(list_series(path.parent)):
                    found.append(Found(path.parent, f"{label}#{number}", series.uid))
    if not found:
        raise PretrainError(
            f"{', '.join(map(str, inputs))}: no NIfTI, NRRD, MHA or DICOM volume found"
        )
    return sorted(found, key=lambda volume: volume.name)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def checksum(found: Found) -> str:
    """SHA-256 of the file, or of a DICOM series' files in the order of their names."""
    if found.path.is_file():
        with found.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    total = hashlib.sha256(str(found.series).encode())
    for path in sorted(p for p in found.path.iterdir() if p.is_file()):
        total.update(path.read_bytes())
    return total.hexdigest()


def spacing(found: Found) -> tuple[float, float, float]:
    """Spacing (z, y, x) in mm from the header alone."""
    if found.series is not None:
        for series in list_series(found.path):
            if series.uid == found.series:
                z, y, x = series.spacing
                return float(z), float(y), float(x)
    import SimpleITK as sitk  # training from packs does without it

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(found.path))
    reader.ReadImageInformation()
    x, y, z = reader.GetSpacing()[:3]
    return float(z), float(y), float(x)


def identify(name: str, sources: tuple[Source, ...]) -> tuple[str, str, str]:
    """Patient, collection and licence of the volume ``name``.

    The patient is what the matching source's pattern calls so, else the volume itself.
    """
    stem = re.sub(r"\.(nii(\.gz)?|nrrd|mha|mhd)$", "", name)
    for source in sources:
        if match := re.match(source.pattern, stem):
            patient = match.groupdict().get("patient") or stem
            return patient, source.collection, source.licence
    return stem, "unnamed", "unknown"
