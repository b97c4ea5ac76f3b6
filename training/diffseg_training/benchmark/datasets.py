"""Labelled sets on disk: nnU-Net's folder layout, or an image with its labels beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffseg_training.benchmark.tasks import Scan
from napari_diffseg.io.labels import Label, default_colour, load_names
from napari_diffseg.io.volume import read_labels, read_volume

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


class DatasetError(ValueError):
    """A folder or file that is no labelled set."""


@dataclass(frozen=True)
class ScanFiles:
    """A labelled scan on disk; `name` is also its patient unless ``patients.json`` says else."""

    name: str
    image: Path
    labels: Path
    patient: str

    def read(self) -> Scan:
        """Read image and labels onto the same grid."""
        volume = read_volume(self.image)
        return Scan(volume, read_labels(self.labels, volume.geometry).mask, self.patient)


def find_scans(places: Iterable[str | Path]) -> tuple[ScanFiles, ...]:
    """Find labelled scans.

    Parameters
    ----------
    places
        Folders in nnU-Net layout (``imagesTr/NAME_0000.nii.gz`` with ``labelsTr/NAME.nii.gz``),
        folders of ``NAME.nii.gz`` with ``NAME.labels.nii.gz``, or such images themselves. A file
        ``patients.json`` of the form ``{"NAME": "patient"}`` in a folder says which scans are
        of the same patient.

    Raises
    ------
    DatasetError
        If there is nothing there, or a name comes twice.
    """
    found: dict[str, ScanFiles] = {}
    for place in map(Path, places):
        scans = list(_in_folder(place)) if place.is_dir() else [_with_labels(place)]
        if not scans:
            raise DatasetError(
                f"{place}: holds no labelled scans; expected imagesTr and labelsTr, or "
                "NAME.nii.gz with NAME.labels.nii.gz"
            )
        for scan in scans:
            if scan.name in found:
                raise DatasetError(f"{scan.image}: a second scan is named {scan.name}; rename it")
            found[scan.name] = scan
    return tuple(found[name] for name in sorted(found))


def find_names(places: Iterable[str | Path]) -> dict[int, str]:
    """Names of the labels, from ``dataset.json`` (nnU-Net) or ``labels.json`` near the scans."""
    for place in map(Path, places):
        folder = place if place.is_dir() else place.parent
        for path in (folder / "labels.json", folder.parent / "labels.json"):
            if path.exists():
                return load_names(path)
        path = folder / "dataset.json"
        if path.exists():
            labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
            pairs = (
                (k, v) if isinstance(v, (int, list)) else (v, int(k)) for k, v in labels.items()
            )
            return {int(v): k for k, v in pairs if not isinstance(v, list) and int(v) > 0}
    return {}


def labels_of(scans: Iterable[Scan], names: dict[int, str]) -> tuple[Label, ...]:
    """Return the named labels, or where there are no names those that the scans hold."""
    present = sorted({int(v) for scan in scans for v in np.unique(scan.reference) if v})
    ids = sorted(names) or present
    return tuple(Label(i, names.get(i, f"label {i}"), default_colour(i)) for i in ids)


def digest(scans: Iterable[ScanFiles]) -> str:
    """Twelve hexadecimal digits that change when a scan's name or file content changes."""
    total = hashlib.sha256()
    for scan in scans:
        total.update(scan.name.encode())
        for path in (scan.image, scan.labels):
            with path.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:12]


def _split_ending(path: Path) -> tuple[str, str]:
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)], path.name[-len(ending) :]
    raise DatasetError(f"{path}: not a volume; expected {', '.join(ENDINGS)}")


def _with_labels(image: Path) -> ScanFiles:
    name, ending = _split_ending(image)
    labels = image.with_name(f"{name}.labels{ending}")
    for path in (image, labels):
        if not path.exists():
            raise DatasetError(f"{path}: not found")
    return ScanFiles(name, image, labels, _patients(image.parent).get(name, name))


def _in_folder(folder: Path) -> Iterable[ScanFiles]:
    patients = _patients(folder)
    for path in sorted((folder / "labelsTr").glob("*")):
        if path.name.lower().endswith(ENDINGS):
            name, ending = _split_ending(path)
            image = folder / "imagesTr" / f"{name}_0000{ending}"
            if not image.exists():
                raise DatasetError(f"{image}: the image of {path.name} is missing")
            yield ScanFiles(name, image, path, patients.get(name, name))
    for path in sorted(folder.glob("*.labels.*")):
        name, ending = _split_ending(path)
        yield _with_labels(folder / f"{name.removesuffix('.labels')}{ending}")


def _patients(folder: Path) -> dict[str, str]:
    path = folder / "patients.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
