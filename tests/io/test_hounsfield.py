"""Values that are no HU are named, with the offset that would fix them; CTs that are fine pass."""

from pathlib import Path

import numpy as np
import pytest
from synthetic import affine_of, save_nifti

from napari_diffseg.io import read_volume, sample_volume_path

SHARED = Path(__file__).parents[3] / "shared" / "data"
REAL = [sample_volume_path(), *sorted(SHARED.glob("*labelled/*[!s].nii.gz"))]


@pytest.fixture(scope="module")
def sample():
    return read_volume(sample_volume_path()).hu[::3, ::2, ::2]


def notes_of(folder, hu):
    path = save_nifti(folder / "ct.nii", hu.T, affine_of((0, 1, 2), (-1, -1, 1)))
    return read_volume(path).geometry.notes


def filled(hu, value):
    return np.where(hu == -1024, value, hu).astype(np.int16)


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu,
        lambda hu: filled(hu, -3024),
        lambda hu: filled(hu, -2048),
        lambda hu: filled(hu, -2000),
        lambda hu: np.maximum(hu, -1000),
        lambda hu: np.where(hu > 1500, 32767, hu).astype(np.int16),  # metal
        lambda hu: hu[:, 40:90, 40:90],
        lambda hu: hu[:8, 60:84, 30:54],  # soft tissue only
        lambda hu: hu[20:21],
    ],
)
def test_fine_cts_pass(tmp_path, sample, change):
    assert notes_of(tmp_path, change(sample)) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: hu + 1024, "subtract 1024"),
        (lambda hu: filled(hu + 1024, 0), "subtract 1024"),
        (lambda hu: np.maximum(hu, -1000) + 1000, "subtract 1000"),
        (lambda hu: hu[20:21] + 1024, "subtract 1024"),
        (lambda hu: hu - 1024, "add 1024"),
        (lambda hu: (hu.clip(-1000, 1000) + 1000) / np.float32(2000), "no HU"),
        (lambda hu: ((hu.clip(-160, 240) + 160) // 2).astype(np.uint8), "no HU"),
        (lambda hu: np.where(hu < -900, 0, hu).astype(np.int16), "exactly 0 HU.*-1000"),
    ],
)
def test_values_that_are_no_hu_are_named(tmp_path, sample, change, words):
    (note,) = notes_of(tmp_path, change(sample))
    assert words.split(".*")[0] in note
    assert words.split(".*")[-1] in note


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_cts_give_no_false_alarm(path):
    assert read_volume(path).geometry.notes == ()
