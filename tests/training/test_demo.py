"""The demo, on a made-up CT small enough for a few training steps."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from diffseg_training.demo import OUTPUTS, LabelledScan, Sample, demonstrate
from napari_diffseg.network.backbone import Backbone, Intensity, save_backbone
from napari_diffseg.network.unet import UNet, UNetConfig

OPTIONS = ("--iterations", "2", "--device", "cpu")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    x, y, z = np.mgrid[:40, :36, :10]
    body = np.hypot((x - 20) / 18, (y - 18) / 16) < 1
    liver = np.hypot(x - 14, y - 18) < 5
    kidney = (np.hypot(x - 27, y - 18) < 4) & (z > 4)
    hu = np.where(body, 0, -1000) + 150 * liver - 300 * kidney
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), tmp_path / "ct.nii.gz")
    labels = (liver + 2 * kidney).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii.gz")
    (tmp_path / "names.json").write_text('{"liver": 1, "kidney": 2, "spleen": 3}')
    torch.manual_seed(0)
    unet = UNet(UNetConfig(image_size=32, widths=(8, 16), blocks=1, attention=()))
    intensity = Intensity((-1000.0, 1000.0), (-1.0, 1.0))
    save_backbone(tmp_path / "tiny.safetensors", Backbone("tiny", unet, intensity))
    return Sample(tmp_path / "ct.nii.gz", tmp_path / "labels.nii.gz", tmp_path / "names.json")


def test_painted_slices_hold_every_organ_and_are_not_tested(sample: Sample):
    scan = LabelledScan.read(sample)
    assert [label.name for label in scan.labels] == ["liver", "kidney"]
    assert set(np.unique(scan.truth[list(scan.painted)])) == {0, 1, 2}
    assert sorted((*scan.painted, *scan.test)) == list(range(10))
    assert scan.scores(scan.truth) == {1: 1.0, 2: 1.0}
    wrong = scan.truth.copy()
    wrong[list(scan.painted)] = 0
    assert scan.scores(wrong) == {1: 1.0, 2: 1.0}


def test_demo_prints_the_table_and_writes_its_files(
    sample: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "out"
    backbone = ("--backbone", str(tmp_path / "tiny.safetensors"))
    means = demonstrate(sample, folder, (*OPTIONS, *backbone))
    out = capsys.readouterr().out
    assert list(means) == ["ours", "nearest copy", "interpolation", "random walker", "scratch"]
    # The organs are straight columns: copying misses at most a slice at the kidney's end.
    assert means["nearest copy"] > 0.9
    liver = next(line for line in out.splitlines() if line.startswith("liver"))
    assert liver.split()[2] == "1.000"
    assert "mean" in out
    assert {path.name for path in folder.iterdir()} == {*OUTPUTS, "mask.labels.txt"}
    assert nib.load(folder / "mask.nii.gz").shape == (40, 36, 10)
    assert json.loads((folder / "report.json").read_text())["iterations"] == 2
    assert (folder / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_demo_stops_when_segment_fails(sample: Sample, tmp_path: Path):
    with pytest.raises(ValueError, match="segment failed"):
        demonstrate(sample, tmp_path / "out", (*OPTIONS, "--backbone", "nosuch"))
