"""A small cohort of CT-like volumes, and a network that trains in a second."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from diffseg_training.prepare import prepare
from diffseg_training.settings import PrepareSettings, Recipe, Source, TrainSettings
from napari_diffseg.unet import UNetConfig

TINY = UNetConfig(16, (8, 16), 1, (8,), 8, "conv")
SOURCES = (Source(r"(?P<patient>patient\d+)", "Test", "CC0"),)


def write_ct(path: Path, seed: int, slices: int = 6, side: int = 20) -> np.ndarray:
    """A bright ellipse with a bone in it, in noise; the array as stored (x, y, z)."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    planes = []
    for _ in range(slices):
        a, b, cx = *rng.uniform(0.5, 0.9, 2), rng.uniform(-0.3, 0.3)
        plane = np.where((x / a) ** 2 + (y / b) ** 2 < 1, 40, -1000)
        plane = np.where((x - cx) ** 2 + y**2 < 0.04, 700, plane)
        planes.append(plane + rng.normal(0, 15, plane.shape))
    hu = np.stack(planes, -1).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 5.0, 1.0])), path)
    return hu


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for patient in range(5):
        write_ct(folder / f"patient{patient}-a.nii.gz", patient)
    write_ct(folder / "more" / "patient0-b.nii.gz", 10, slices=3)
    return folder


@pytest.fixture(scope="session")
def store(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    settings = PrepareSettings(grid=20, held_out=("patient3",), validation=0.0)
    for _ in prepare([cohort], folder, settings, (*SOURCES, Source(r"more/(?P<patient>\w+)-"))):
        pass
    return folder


@pytest.fixture
def recipe() -> Recipe:
    settings = TrainSettings(
        iterations=6, batch=4, hu=(-1000.0, 1000.0), log_every=1, validate_every=3, threads=1,
        validation_slices=4, crop=(0.6, 1.1), clip=1.0, learning_rate=2e-3,
        final_learning_rate=2e-4, device="cpu",
    )  # fmt: skip
    return Recipe("tiny", TINY, PrepareSettings(), settings)
