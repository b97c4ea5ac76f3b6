"""The sample CT that ships in the package (see ``data/ATTRIBUTION.md``)."""

from __future__ import annotations

from pathlib import Path

_DATA = Path(__file__).parents[1] / "data"


def sample_volume_path() -> Path:
    """Path of the sample CT: chest and upper abdomen, LIDC-IDRI-0001."""
    return _DATA / "lidc-idri-0001.nii.gz"


def sample_labels_path() -> Path:
    """Path of its automatic labels: pseudo ground truth for trying things, not for judging."""
    return _DATA / "lidc-idri-0001.labels.nii.gz"


def sample_names_path() -> Path:
    """Path of the JSON file that names these labels."""
    return _DATA / "labels.json"
