"""Downloads of public sets become nnU-Net's layout with FLARE22's ids."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from diffseg_training.benchmark.cli import main
from diffseg_training.benchmark.datasets import find_scans
from diffseg_training.benchmark.prepare import (
    ORGANS,
    PrepareError,
    flare22_split,
    prepare,
    transverse_slices,
)


def _write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def _stripes(values: list[int]) -> np.ndarray:
    mask = np.zeros((4, 4, 20), np.uint8)
    for z, value in enumerate(values):
        mask[:, :, z] = value
    return mask


@pytest.mark.parametrize(
    ("source", "folder", "image", "labels", "theirs", "organs"),
    [
        (
            "flare22",
            "flare",
            "images/FLARE22_Tr_0001_0000.nii.gz",
            "labels/FLARE22_Tr_0001.nii.gz",
            [1, 13],
            ["liver", "left kidney"],
        ),
        (
            "amos22",
            "amos",
            "imagesTr/amos_0001.nii.gz",
            "labelsTr/amos_0001.nii.gz",
            [1, 6, 13, 14],
            ["spleen", "liver", "duodenum", None],
        ),
        (
            "btcv",
            "btcv",
            "img/img0001.nii.gz",
            "label/label0001.nii.gz",
            [9, 10, 11, 13],
            ["inferior vena cava", None, "pancreas", "left adrenal gland"],
        ),
        (
            "msd",
            "Task07_Pancreas",
            "imagesTr/pancreas_001.nii.gz",
            "labelsTr/pancreas_001.nii.gz",
            [1, 2],
            ["pancreas", "pancreas"],
        ),
    ],
)
def test_ids_become_those_of_flare22(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    folder: str,
    image: str,
    labels: str,
    theirs: list[int],
    organs: list[str | None],
) -> None:
    monkeypatch.setattr("diffseg_training.benchmark.prepare.flare22_split", lambda slices: {})
    affine = np.diag([-1.0, 2.0, 3.0, 1.0])
    _write(tmp_path / folder / image, np.ones((4, 4, 20), np.int16), affine)
    _write(tmp_path / folder / labels, _stripes(theirs), affine)
    target = tmp_path / "out"
    assert len(list(prepare(source, tmp_path / folder, target))) == 1
    (files,) = find_scans([target])
    scan = files.read()
    for z, organ in enumerate(organs):
        assert (scan.reference[z] == (ORGANS[organ] if organ else 0)).all()
    present = {name for name in organs if name}
    assert set(json.loads((target / "labels.json").read_text())) == present
    np.testing.assert_array_equal(nib.load(files.labels).affine, affine)


def test_amos_leaves_mri_out(tmp_path: Path) -> None:
    for case in ("amos_0500", "amos_0507"):
        for place in ("imagesTr", "labelsTr"):
            _write(tmp_path / place / f"{case}.nii.gz", _stripes([1]))
    assert list(prepare("amos22", tmp_path, tmp_path / "out")) == ["amos_0500"]


def test_totalsegmentator_has_one_file_an_organ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / "in/s0001/ct.nii.gz", np.zeros((4, 4, 20), np.int16))
    theirs = {"right kidney": "kidney_right", "left kidney": "kidney_left"}
    theirs |= {
        "right adrenal gland": "adrenal_gland_right",
        "left adrenal gland": "adrenal_gland_left",
    }
    theirs |= {"inferior vena cava": "inferior_vena_cava"}
    for organ, number in ORGANS.items():
        mask = np.zeros((4, 4, 20), np.uint8)
        mask[:, :, number] = 1
        name = theirs.get(organ, organ)
        _write(tmp_path / "in/s0001/segmentations" / f"{name}.nii.gz", mask)
    command = ["prepare", "totalsegmentator", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(command) == 0
    assert capsys.readouterr().out == "s0001\n"
    (files,) = find_scans([tmp_path / "out"])
    reference = files.read().reference
    assert [int(reference[z].max()) for z in range(14)] == list(range(14))

    (tmp_path / "in/s0001/segmentations/liver.nii.gz").unlink()
    again = [*command[:-1], str(tmp_path / "other")]
    assert main(again) == 1
    assert "the mask of the liver is missing" in capsys.readouterr().err


def test_the_papers_counts_are_asserted() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(70, 120, 49).tolist()
    counts.append(3879 + 915 - sum(counts))
    slices = {f"case{n:02d}": count for n, count in enumerate(counts)}
    split = flare22_split(slices)
    assert len(split["test"]) == 10
    assert sum(slices[name] for name in split["test"]) == 915
    assert sum(slices[name] for name in split["train"]) == 3879
    assert split == flare22_split(dict(reversed(slices.items())))
    with pytest.raises(PrepareError, match="4793 transverse slices"):
        flare22_split({**slices, "case00": slices["case00"] - 1})


def test_slices_are_counted_along_the_body(tmp_path: Path) -> None:
    sagittal = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)
    _write(tmp_path / "a.nii.gz", np.zeros((4, 5, 6), np.int16), sagittal)
    assert transverse_slices(tmp_path / "a.nii.gz") == 5


def test_an_empty_folder_says_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "btcv", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "img/img0001.nii.gz" in capsys.readouterr().err
