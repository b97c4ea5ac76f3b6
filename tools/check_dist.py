"""Check that the sdist and the wheel in a folder hold what they must, and say how large they are.

python tools/check_dist.py dist
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

MEGABYTES = 100  # the limit of the package index
IN_BOTH = (
    "napari_diffseg/napari.yaml",
    "napari_diffseg/py.typed",
    "napari_diffseg/data/ATTRIBUTION.md",
    "napari_diffseg/data/labels.json",
    "napari_diffseg/data/lidc-idri-0001.nii.gz",
    "napari_diffseg/data/lidc-idri-0001.labels.nii.gz",
    "diffseg_models/py.typed",
    "diffseg_models/ATTRIBUTION.md",
    "diffseg_models/collections.toml",
    "diffseg_models/registry.toml",
    "diffseg_models/starter.md",
    "diffseg_models/starter.safetensors",
    "diffseg_training/py.typed",
    "diffseg_training/configs/starter.toml",
)
IN_WHEEL = (
    "dist-info/METADATA",
    "dist-info/entry_points.txt",
    "dist-info/licenses/LICENSE",
)
IN_SDIST = (
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "PKG-INFO",
    "README.md",
    "constraints.txt",
    "docs/user-guide.md",
    "pyproject.toml",
    "tests/conftest.py",
    "tools/setup.sh",
)
NOWHERE = (".venv", "demo-output", ".git/", "__pycache__", ".egg-info/PKG-INFO.orig")


def check(path: Path, wanted: tuple[str, ...]) -> str:
    """Return what is wrong with a file; ``""`` if nothing is."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = wheel.namelist()
    else:
        with tarfile.open(path) as sdist:
            names = sdist.getnames()
    missing = [name for name in wanted if not any(found.endswith(name) for found in names)]
    if missing:
        return f"lacks {', '.join(missing)}"
    foreign = [found for found in names if any(name in found for name in NOWHERE)]
    if foreign:
        return f"holds {foreign[0]}"
    size = path.stat().st_size / 1e6
    if size >= MEGABYTES:
        return f"{size:.1f} MB, {MEGABYTES} are allowed"
    print(f"{path.name}: {size:.1f} MB, {len(names)} files, complete")
    return ""


def main() -> None:
    """Check the two files."""
    folder = Path(sys.argv[1])
    for pattern, wanted in (("*.whl", IN_BOTH + IN_WHEEL), ("*.tar.gz", IN_BOTH + IN_SDIST)):
        (path,) = folder.glob(pattern)
        wrong = check(path, wanted)
        if wrong:
            raise SystemExit(f"{path.name}: {wrong}")


if __name__ == "__main__":
    main()
