"""What the extra ``training`` installs, and one line for those who lack it."""

from __future__ import annotations

import importlib.util

PACKAGES = ("dask", "distributed", "einops", "matplotlib", "skimage", "sklearn", "tensorboard")
"""Packages that the programs of this package import and the app does not."""


def missing_extra() -> str:
    """Name the packages of the extra that are not installed, and the fix; ``""`` if all are."""
    missing = [name for name in PACKAGES if not _installed(name)]
    if not missing:
        return ""
    verb = "is" if len(missing) == 1 else "are"
    return (
        f'{", ".join(missing)} {verb} not installed; the extra "training" has what is needed: '
        'pip install "napari-diffseg[training]"'
    )


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
