"""``napari-diffseg segment``: as a process where that matters, else through ``main``."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cli_tools import (
    AFFINE,
    SLICES,
    Case,
    check_error,
    names_in,
    process,
    run,
    save,
    segment,
    start,
)
from synthetic import line, save_series

from napari_diffseg.cli import main
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.volume import read_labels, read_volume
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session import Session, SliceState


def test_segment_writes_the_mask_on_the_source_grid(case: Case, trained: tuple[Path, str]):
    folder, out = trained
    assert names_in(str(folder)) == {
        "names.json",
        "mask.nii.gz",
        "mask.labels.txt",
        "report.json",
        "model.safetensors",
    }
    image = nib.load(folder / "mask.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE)
    mask = np.asarray(image.dataobj)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask[..., list(SLICES)], case.labels_ijk[..., list(SLICES)])
    np.testing.assert_array_equal(mask, segmented_from_python(case))
    assert "9 slices from 2 painted ones, 8 iterations" in out
    assert re.search(r"^liver +\d\.\d{3}$", out, re.MULTILINE)


def segmented_from_python(case: Case) -> np.ndarray:
    """The same job through the Python interface, on the source grid."""
    ct = read_volume(case.ct)
    labels = read_labels(case.labels, ct.geometry)
    session = Session(ct, labels.labels, backbone=case.tiny, folder=False)
    for z in SLICES:
        session.paint.set_slice(z, labels.mask[z], SliceState.PAINTED)
    list(session.trainer.train(TrainSettings(iterations=8, device="cpu")))
    list(session.trainer.predict())
    return ct.geometry.from_canonical(session.merged())


def test_segment_report_says_what_was_done(case: Case, trained: tuple[Path, str]):
    folder, _ = trained
    text = (folder / "report.json").read_text()
    report = json.loads(text)
    assert report["slices"] == list(SLICES)
    assert report["seed"] == 0
    assert report["iterations"] == 8
    assert report["device"] == "cpu"
    assert report["start"] == "tiny"
    assert report["version"]
    assert "commit" in report
    assert report["peak_memory_bytes"] > 1e7
    assert [label["name"] for label in report["labels"]] == ["liver", "lung"]
    assert report["volume"]["spacing_zyx_mm"] == [3, 2, 2]
    losses = [loss for _, loss in report["loss_curve"]]
    assert len(losses) >= 5
    assert losses[-1] < losses[0]
    seconds = report["seconds"]
    stages = ("read", "train", "predict", "validate", "write")
    assert sum(seconds[stage] for stage in stages) <= seconds["total"] + 0.01
    assert set(report["quality"]) == {"1", "2"}
    # Private by default: neither a path nor a file's name.
    assert str(case.folder) not in text
    assert "ct.nii" not in text


def test_segment_reads_only_the_named_slices(case: Case, trained: tuple[Path, str]):
    """Labels on other slices neither change the result nor become classes."""
    folder, _ = trained
    other = case.labels_ijk.copy()
    keep = [k for k in range(9) if k not in SLICES]
    other[..., keep] = np.random.default_rng(1).integers(0, 9, other[..., keep].shape, np.uint8)
    labels = save(Path("other.nii.gz"), other)
    more = ("--slices", "6,2", "--iterations", "8", "-o", "mask.nii.gz")
    assert run(*segment(case, *more, labels=labels))[0] == 0
    mine = np.asarray(nib.load("mask.nii.gz").dataobj)
    np.testing.assert_array_equal(mine, np.asarray(nib.load(folder / "mask.nii.gz").dataobj))


def test_segment_goes_on_from_a_saved_model(case: Case, trained: tuple[Path, str]):
    folder, _ = trained
    code = main(
        [
            *("segment", case.ct, "--labels", case.labels, "--device", "cpu", "--iterations", "1"),
            *("--model", str(folder / "model.safetensors"), "--save-model", "again.safetensors"),
            *("-o", "mask.seg.nrrd", "--report", "report.json"),
        ]
    )
    assert code == 0
    assert [label.name for label in Segmenter.load("again.safetensors").labels] == ["liver", "lung"]
    report = json.loads(Path("report.json").read_text())
    assert report["start"] == "saved model"
    assert report["slices"] == list(range(9))  # without --slices: all that hold a label
    # Where the first training ended, not where it began.
    before = json.loads((folder / "report.json").read_text())["loss_curve"]
    assert report["loss_curve"][0][1] < before[len(before) // 2][1]


def test_interrupt_leaves_nothing_behind(case: Case):
    running = start(*segment(case, "--seconds", "100", "-o", "mask.nii.gz", "--report", "r.json"))
    assert running.stderr is not None
    said = ""
    while "learning" not in said:
        line = running.stderr.readline()
        assert line, said
        said += line
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert names_in() == set()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--slices", "2,99"), ("--slices 99", "0 to 8")),
        (("--backbone", "nosuch"), ("nosuch", "no such backbone")),
        (("-o", "there/mask.nii.gz"), ("there/mask.nii.gz", "folder does not exist")),
        (("--report", "there/r.json"), ("there/r.json", "folder does not exist")),
        (("--names", "there.json"), ("there.json", "check the path")),
        (("--device", "cuda"), ("no cuda device",)),
        (("-o", "mask.dcm", "--seconds", "1000"), ("mask.dcm: DICOM-SEG needs a volume",)),
    ],
    ids=["slice", "backbone", "folder", "report", "names", "device", "format"],
)
def test_segment_errors_are_one_line(
    case: Case, more: tuple[str, ...], says: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code = main([*segment(case, "-o", "mask.nii.gz"), *more])
    check_error(capsys, code, *says)
    assert names_in() == set()


def test_unusable_files_are_named(case: Case, capsys: pytest.CaptureFixture[str]):
    empty = save(Path("empty.nii.gz"), np.zeros_like(case.labels_ijk))
    moved = save(Path("moved.nii.gz"), case.labels_ijk, AFFINE + np.eye(4)[[3, 3, 3, 3]] * 5)
    large = save(Path("large.nii.gz"), np.pad(case.labels_ijk, ((0, 0), (0, 0), (0, 1))))
    content = gzip.decompress(Path(case.ct).read_bytes())
    whole = gzip.compress(content)
    Path("torn.nii.gz").write_bytes(whole[: len(whole) // 2])
    Path("text.nii.gz").write_text("not an image")
    before = names_in()
    out = ("-o", "mask.nii.gz", "--iterations", "1")
    for labels, says in (
        ("gone.nii.gz", "no such file"),
        (empty, "holds no label"),
        (moved, "another grid"),
        (large, "another grid"),
    ):
        check_error(capsys, main([*segment(case, *out, labels=labels)]), labels, says)
    for volume in ("gone.nii.gz", "torn.nii.gz", "text.nii.gz"):
        check_error(capsys, main([*segment(case, *out, volume=volume)]), volume)
    assert names_in() == before


def test_errors_as_a_process(case: Case):
    code, out, err = process(*segment(case, "-o", "mask.nii.gz", volume="gone.nii.gz"))
    assert (code, out) == (1, "")
    assert err.splitlines() == ["napari-diffseg: error: gone.nii.gz: no such file; check the path"]
    code, _, err = process(*segment(case, "-o", "mask.nii.gz", "--debug", volume="gone.nii.gz"))
    assert code == 1
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("napari-diffseg: error: ")


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("-o", "mask.png"),
        ("-o", "mask.nii.gz", "--slices", "a,b"),
        ("-o", "mask.nii.gz", "--slices=-1"),
        ("-o", "mask.nii.gz", "--strategy", "magic"),
        ("-o", "mask.nii.gz", "--seconds", "5", "--iterations", "5"),
        ("-o", "mask.nii.gz", "--seconds", "0"),
        ("-o", "mask.nii.gz", "--timestep", "5000"),
        ("-o", "mask.nii.gz", "--model", "model.safetensors"),  # and --backbone
        ("-o", "mask.nii.gz", "--no-such-option"),
    ],
    ids=" ".join,
)
def test_wrong_use_exits_with_2(
    case: Case, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        main([*segment(case, *more)])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_inputs_are_never_overwritten(case: Case, tmp_path: Path):
    before = Path(case.labels).read_bytes()
    code, _, err = run(*segment(case, "-o", case.labels))
    assert code == 1
    assert "would be overwritten, and it is also read" in err
    assert Path(case.labels).read_bytes() == before
    series = tmp_path / "series"
    save_series(series, line(4), names=[f"IM{n:04}.dcm" for n in range(4)])
    victim = series / "IM0001.dcm"
    slice_bytes = victim.read_bytes()
    code, _, err = run(*segment(case, "-o", str(victim), volume=str(series)))
    assert code == 1
    assert f"{victim}: is a file of the folder that is read" in err
    assert victim.read_bytes() == slice_bytes


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            ("-o", "mask.nii.gz", "--save-model", "mask.nii.gz"),
            "mask.nii.gz: would be written twice",
        ),
        (("-o", "q.mhd", "--save-model", "q.zraw"), "q.zraw: would be written twice"),
        (("-o", "mask.nii.gz", "--report", "/dev/full"), "/dev/full: is not a regular file"),
        (("-o", "folder.nii.gz"), "folder.nii.gz: is a folder"),
        (("-o", "link.nii.gz"), "link.nii.gz: is not a regular file"),
    ],
)
def test_outputs_that_would_destroy_something_are_refused(case: Case, more, says):
    Path("folder.nii.gz").mkdir()
    Path("link.nii.gz").symlink_to(case.ct)
    before = names_in()
    code, _, err = run(*segment(case, *more))
    assert code == 1
    assert says in err
    assert "learning" not in err  # before any work
    assert names_in() == before
    assert Path("/dev/full").is_char_device()


def test_labels_of_another_grid_are_resampled_when_asked(case, tmp_path, capsys):
    fine = np.repeat(np.repeat(case.labels_ijk, 2, axis=0), 2, axis=1)
    affine = AFFINE @ np.diag([0.5, 0.5, 1, 1])
    affine[:3, 3] += AFFINE[:3, :2] @ (-0.25, -0.25)
    labels = save(tmp_path / "fine.nii.gz", fine, affine)
    words = segment(case, "--slices", "2,6", "--iterations", "2", "-o", "m.nii.gz", labels=labels)
    check_error(capsys, main(words), "another grid", "resampling")
    assert main((*words, "--resample")) == 0
    found = np.asarray(nib.load("m.nii.gz").dataobj)
    assert np.array_equal(found[:, :, [2, 6]], case.labels_ijk[:, :, [2, 6]])


def test_segment_takes_planes(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Only what lies on a plane or outside of every plane is known, as in Python."""
    sparse = np.zeros_like(case.labels_ijk)
    geometry = read_volume(case.ct).geometry
    row = geometry.to_canonical(case.labels_ijk).any(axis=(0, 2)).nonzero()[0][2]
    canonical = geometry.to_canonical(sparse).copy()
    truth = geometry.to_canonical(case.labels_ijk)
    canonical[:, row], canonical[SLICES[0]] = truth[:, row], truth[SLICES[0]]
    labels = save(tmp_path / "sparse.nii.gz", geometry.from_canonical(canonical))
    out, report = tmp_path / "mask.nii.gz", tmp_path / "report.json"
    words = [case.ct, "--labels", labels, "-o", str(out), "--backbone", case.tiny]
    words += ["--planes", f"coronal:{row}", "--iterations", "4", "--report", str(report)]
    assert main(["segment", *words]) == 0
    assert "registering planes" in capsys.readouterr().err  # so prediction has none to register
    told = json.loads(report.read_text())
    assert told["slices"] == [SLICES[0]]
    assert told["planes"] == [f"coronal:{row}"]
    mask = geometry.to_canonical(np.asarray(nib.load(out).dataobj))
    np.testing.assert_array_equal(mask[:, row], truth[:, row])


@pytest.mark.parametrize(
    ("planes", "said"),
    [("axial:3", "no list|not a list"), ("coronal:", "not a list"), ("coronal:999", "0 to")],
)
def test_segment_refuses_planes_that_are_none(
    case: Case, tmp_path: Path, planes: str, said: str, capsys: pytest.CaptureFixture[str]
):
    words = [case.ct, "--labels", case.labels, "-o", str(tmp_path / "mask.nii.gz")]
    with contextlib.suppress(SystemExit):
        assert main(["segment", *words, "--planes", planes]) != 0
    assert re.search(said, capsys.readouterr().err)
