"""``predict``, ``evaluate``, ``open``, ``backbones`` and ``doctor``."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cli_tools import AFFINE, Case, check_error, names_in, predicted, run, save

from napari_diffseg.cli import main
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import read_labels, read_volume, write_mask, write_volume
from napari_diffseg.network.segmenter import Segmenter

# predict


def test_predict_goes_on_after_a_broken_volume(case: Case, trained: tuple[Path, str]):
    folder, _ = trained
    model = Segmenter.load(folder / "model.safetensors")
    with torch.no_grad():  # so that every class is predicted somewhere
        for parameter in model.head.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    model.save("noisy.safetensors")
    Path("broken.nii.gz").write_text("not an image")
    code, out, err = run(
        *("predict", "--model", "noisy.safetensors", "--device", "cpu", "--no-adapt"),
        *("broken.nii.gz", case.ct, "-o", "masks"),
    )
    assert code == 1
    assert any(
        line.startswith("napari-diffseg: error: broken.nii.gz: ") for line in err.splitlines()
    )
    assert names_in("masks") == {
        "ct.nii.gz",
        "ct.labels.txt",
        "predictions.csv",
        "predictions.json",
    }
    image = nib.load("masks/ct.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE)
    mask = np.asarray(image.dataobj)
    np.testing.assert_array_equal(mask, predicted("noisy.safetensors", case.ct))
    assert set(np.unique(mask)) == {0, 1, 2}
    assert "masks/ct.nii.gz: 9 slices" in out


def test_predict_refuses_two_volumes_of_one_name(case: Case):
    with pytest.raises(SystemExit) as caught:
        main(["predict", "--model", "m", case.ct, "a/ct.nii", "-o", "masks"])
    assert caught.value.code == 2


def test_predict_names_a_bad_model(case: Case, capsys: pytest.CaptureFixture[str]):
    check_error(capsys, main(["predict", "--model", case.tiny, case.ct, "-o", "masks"]), case.tiny)


# evaluate


def test_evaluate_prints_json_and_table(case: Case, capsys: pytest.CaptureFixture[str]):
    mask = case.labels_ijk.copy()
    mask[..., 4] = 0
    mine = save(Path("mask.nii.gz"), mask)
    Path("names.json").write_text('{"1": "liver", "9": "spleen"}')
    assert main(["evaluate", mine, case.labels, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["mean"]["dice"] == pytest.approx(2 * 8 / (8 + 9))
    assert result["labels"][0]["hd95_mm"] is not None
    assert (
        main(["evaluate", mine, case.labels, "--exclude-slices", "4", "--names", "names.json"]) == 0
    )
    out = capsys.readouterr().out
    assert re.search(r"^liver +1\.000 +1\.000 +0\.00 +1\.000$", out, re.MULTILINE)
    assert re.search(r"^spleen +- +- +- +-$", out, re.MULTILINE)
    assert re.search(r"^mean +1\.000", out, re.MULTILINE)
    assert "8 slices evaluated; a label absent from both masks is left out" in out
    papers = ["evaluate", mine, mine, "--names", "names.json", "--absent", "papers", "--json"]
    assert main(papers) == 0
    assert json.loads(capsys.readouterr().out)["mean"]["dice"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("named", ["mask", "reference"])
def test_evaluate_takes_the_names_of_whichever_file_has_them(
    case: Case, capsys: pytest.CaptureFixture[str], named: str
):
    volume = read_labels(case.labels)
    organs = [Label(label.id, f"organ {label.id}", (1, 2, 3)) for label in volume.labels]
    write_mask("named.seg.nrrd", volume.mask, read_volume(case.labels).geometry, organs)
    pair = ["named.seg.nrrd", case.labels]
    assert main(["evaluate", *(pair if named == "mask" else pair[::-1]), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["labels"]
    assert [one["name"] for one in rows] == [organ.name for organ in organs]
    assert rows[0]["dice"] == 1


def test_evaluate_brings_both_masks_to_one_grid(case: Case, capsys: pytest.CaptureFixture[str]):
    """The same labels stored with other axes are the same labels."""
    turned = nib.as_closest_canonical(nib.load(case.labels))
    nib.save(turned, "turned.nii.gz")
    assert main(["evaluate", "turned.nii.gz", case.labels, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"]["dice"] == 1


def test_evaluate_errors(case: Case, capsys: pytest.CaptureFixture[str]):
    small = save(Path("small.nii.gz"), case.labels_ijk[..., :5])
    check_error(capsys, main(["evaluate", small, case.labels]), small, "another grid")
    words = ["evaluate", case.labels, case.labels, "--exclude-slices", "20"]
    check_error(capsys, main(words), "no slice 20")


# open


def test_open_becomes_napari_with_the_panel(case: Case, monkeypatch: pytest.MonkeyPatch):
    started: list[list[str]] = []

    def run_module(name: str, run_name: str) -> None:
        assert (name, run_name) == ("napari", "__main__")
        started.append(sys.argv)

    monkeypatch.setattr(runpy, "run_module", run_module)
    monkeypatch.setattr(sys, "argv", ["napari-diffseg", "open"])
    assert main(["open", case.ct]) == 0
    assert main(["open", "--sample"]) == 0
    assert main(["open"]) == 0
    panel = ["--with", "napari-diffseg"]
    assert started[0] == ["napari", case.ct, "--plugin", "napari-diffseg", *panel]
    assert Path(started[1][1]).exists()
    assert started[2] == ["napari", *panel]


def test_open_says_how_to_get_the_window(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_error(capsys, main(["open"]), 'pip install "napari-diffseg[gui]"')


def test_open_names_a_missing_volume(capsys: pytest.CaptureFixture[str]):
    check_error(capsys, main(["open", "gone.nii.gz"]), "gone.nii.gz")


# backbones and doctor


def test_backbones_import_list_verify(case: Case, capsys: pytest.CaptureFixture[str]):
    assert main(["backbones", "import", case.tiny]) == 0
    path = Path(os.environ["NAPARI_DIFFSEG_HOME"]) / "backbones" / "tiny.safetensors"
    assert path.read_bytes() == Path(case.tiny).read_bytes()
    capsys.readouterr()
    assert main(["backbones", "list"]) == 0
    assert re.search(r"^tiny +imported +[0-9a-f]{12} ", capsys.readouterr().out, re.MULTILINE)
    assert main(["backbones", "verify", "tiny"]) == 0
    assert capsys.readouterr().out == "tiny: verified\n"

    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    check_error(capsys, main(["backbones", "verify", "tiny"]), "tiny.safetensors", "SHA-256")
    check_error(capsys, main(["backbones", "verify", "nosuch"]), "nosuch")
    check_error(capsys, main(["backbones", "import", case.ct]), case.ct)


def test_doctor_tries_the_engine(
    case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", case.tiny)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for topic in ("device", "threads", "memory", "backbone tiny", "engine", "window"):
        assert re.search(rf"^(ok|--) +{topic}: ", out, re.MULTILINE), out
    assert re.search(r"forward and backward on \w+ with .* ms a training step", out)
    assert torch.__version__ in out


def test_doctor_fails_with_damaged_weights(
    case: Case,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):
    Path("tiny.safetensors").write_bytes(Path(case.tiny).read_bytes())
    Path("registry.toml").write_text(f'[tiny]\nfile = "tiny.safetensors"\nsha256 = "{"0" * 64}"\n')
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", str(Path.cwd()))
    assert main(["doctor"]) == 1
    assert "PROBLEM backbone tiny: " in capsys.readouterr().out


# the program itself


def test_help_is_quick_and_needs_neither_torch_nor_qt():
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from napari_diffseg.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "loaded = {'torch', 'monai', 'napari', 'qtpy', 'nibabel'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for command in ("segment", "predict", "evaluate", "model", "open", "backbones", "doctor"):
        assert command in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert re.match(r"napari-diffseg \d+\.\d+", capsys.readouterr().out)


def test_no_command_is_wrong_use(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_predict_never_replaces_what_it_reads(case: Case, trained: tuple[Path, str]):
    model = str(trained[0] / "model.safetensors")
    ct = Path("ct.nii.gz")
    ct.write_bytes(Path(case.ct).read_bytes())
    before = ct.read_bytes()
    for folder in (".", "../work"):
        code, _, err = run("predict", "ct.nii.gz", "--model", model, "-o", folder)
        assert code == 1
        assert "ct.nii.gz: would be overwritten, and it is also read" in err
    Path("other").mkdir()
    Path("other/ct.nii.gz").hardlink_to(ct)
    assert run("predict", "ct.nii.gz", "--model", model, "-o", "other")[0] == 1

    # A scan of the same name in another format: nobody asked for its end.
    write_volume("scan.nrrd", read_volume(ct))
    Path("scan.nii.gz").write_bytes(before)
    code, _, err = run("predict", "scan.nrrd", "--model", model, "-o", ".")
    assert code == 1
    assert "scan.nii.gz: exists beside a volume; choose another folder" in err
    assert Path("scan.nii.gz").read_bytes() == ct.read_bytes() == before

    # Into a folder of its own it may be done again, also below the volume's.
    for _ in range(2):
        assert run("predict", "scan.nrrd", "--model", model, "-o", "masks", "--no-adapt")[0] == 0
    assert run("predict", "scan.nrrd", "--model", model, "-o", "ct.nii.gz")[0] == 2


def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    registry = tmp_path / "home" / "backbones" / "registry.toml"
    registry.mkdir(parents=True)
    code = main(["backbones", "list"])
    check_error(capsys, code, f"{registry}: ", "not a regular file", "; fix or delete it")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 5. GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        ImportError("x.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_said_in_one_line(
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
):
    def full(*_: object):
        raise error

    monkeypatch.setattr("napari_diffseg.network.backbone.list_backbones", full)
    code = main(["backbones", "list"])
    check_error(capsys, code, "not enough memory; close other programs or use a smaller volume")
