"""A small cohort, its store of slices, and a recipe that trains on it in a second."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pretrain_tools import SOURCES, TINY, write_ct

from diffseg_training.prepare import prepare
from diffseg_training.settings import PrepareSettings, PretrainSettings, Recipe, Source


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
    settings = PretrainSettings(
        iterations=6, batch=4, hu=(-1000.0, 1000.0), log_every=1, validate_every=3, threads=1,
        validation_slices=4, crop=(0.6, 1.1), clip=1.0, learning_rate=2e-3,
        final_learning_rate=2e-4, device="cpu",
    )  # fmt: skip
    return Recipe("tiny", TINY, PrepareSettings(), settings)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two patients in nnU-Net layout, with a disc that drifts and a square above it."""
    folder = tmp_path / "data"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    y, x = np.mgrid[:32, :32]
    for patient in range(2):
        mask = np.zeros((20, 32, 32), np.uint8)
        for z in range(20):
            mask[z][(y - 10 - z / 2) ** 2 + (x - 12) ** 2 < 20] = 1
        mask[8:, 18:28, 20:28] = 2
        hu = np.choose(mask, (0, 120, 240)) + np.random.default_rng(patient).normal(
            0, 5, mask.shape
        )
        affine = np.diag([-2.0, -2.0, 4.0, 1.0])
        for place, array in (("imagesTr/p{}_0000", hu), ("labelsTr/p{}", mask)):
            image = nib.Nifti1Image(array.astype(np.int16).T, affine)
            nib.save(image, folder / f"{place.format(patient)}.nii.gz")
    about = {"labels": {"background": 0, "disc": 1, "square": 2}}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder
