"""What the tests of the command line share."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from napari_diffseg.cli import main
from napari_diffseg.engine.predict import predict
from napari_diffseg.io.volume import read_volume
from napari_diffseg.network.segmenter import Segmenter

AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2, 0, 30], [0, 0, 3, -100], [0, 0, 0, 1]])
SLICES = (2, 6)


@dataclass(frozen=True)
class Case:
    """A made-up CT with two organs, its labels, and an untrained backbone, in one folder."""

    folder: Path
    labels_ijk: NDArray[np.uint8]

    def __getattr__(self, name: str) -> str:
        return str(self.folder / (name + (".safetensors" if name == "tiny" else ".nii.gz")))


def save(path: Path, array: NDArray, affine: NDArray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "napari_diffseg", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def process(*words: str) -> tuple[int, str, str]:
    running = start(*words)
    out, err = running.communicate(timeout=200)
    return running.returncode, out, err


def run(*words: str) -> tuple[int, str, str]:
    """Run the command in this process, which saves the seconds that a new one takes to start."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(words))
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    return code, out.getvalue(), err.getvalue()


def names_in(folder: str = ".") -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def predicted(model: Path | str, volume: str) -> NDArray[np.uint8]:
    """What the Python interface predicts with a saved model, on the source grid."""
    ct = read_volume(volume)
    mask = np.zeros(ct.hu.shape, np.uint8)
    for found in predict(Segmenter.load(model), ct, device="cpu"):
        mask[found.z] = found.mask
    return ct.geometry.from_canonical(mask)


def check_error(capsys: pytest.CaptureFixture[str], code: int, *says: str) -> None:
    err = capsys.readouterr().err
    assert code == 1
    assert err.startswith("napari-diffseg: error: ")
    assert err.count("\n") == 1, err
    for word in says:
        assert word in err


def segment(case: Case, *more: str, labels: str | None = None, volume: str | None = None):
    return (
        "segment",
        volume or case.ct,
        *("--labels", labels or case.labels),
        *("--backbone", case.tiny, "--device", "cpu"),
        *more,
    )
