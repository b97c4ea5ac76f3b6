"""``predict`` for many volumes and ``evaluate`` for folders, from the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cli_tools import Case, check_error, names_in, run, save

from napari_diffseg.cli import main

pytestmark = pytest.mark.usefixtures("short_adaptation")


@pytest.fixture
def data(case: Case, trained: tuple[Path, str]) -> list[str]:
    """Four volumes in nnU-Net's layout; returns the words of ``predict`` after them."""
    Path("imagesTs").mkdir()
    for name in "abcd":
        path = Path(f"imagesTs/{name}_0000.nii.gz")
        path.write_bytes(Path(case.ct).read_bytes())
    model = str(trained[0] / "model.safetensors")
    return ["--model", model, "--device", "cpu", "-o", "masks"]


def _masks() -> set[str]:
    return {name for name in names_in("masks") if name.endswith(".nii.gz")}


def _journalled(count: int) -> bool:
    path = Path("masks/.predictions/journal")
    return path.exists() and path.read_text().count('"status": "predicted"') >= count


def _begin(words: list[str], until: Callable[[], bool]) -> subprocess.Popen[str]:
    """Start the command in a group of its own, and wait until it is where it is wanted."""
    running = subprocess.Popen(
        [sys.executable, "-m", "napari_diffseg", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not until() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return running


def test_folder_list_and_table(data: list[str], capsys: pytest.CaptureFixture[str]):
    Path("list.txt").write_text("imagesTs/a_0000.nii.gz\nimagesTs/broken.nii.gz\n")
    Path("imagesTs/broken.nii.gz").write_text("not an image")
    assert main(["predict", "--list", "list.txt", *data]) == 1
    out, err = capsys.readouterr()
    assert "2 volumes: 1 predicted, 0 skipped (there already), 1 failed" in out
    last = err.splitlines()[-1]
    assert last.startswith("napari-diffseg: error: imagesTs/broken.nii.gz: ")
    assert _masks() == {"a.nii.gz"}

    Path("imagesTs/broken.nii.gz").unlink()
    assert main(["predict", "imagesTs", *data]) == 0
    out, err = capsys.readouterr()
    assert "4 volumes: 3 predicted, 1 skipped (there already), 0 failed" in out
    assert "masks/a.nii.gz: skipped, was there already" in out
    assert "Look first at:\n  a  no label was found\n" in out  # eight iterations learn little
    assert re.search(r"^predicting \d/4", err, re.MULTILINE)
    assert _masks() == {f"{name}.nii.gz" for name in "abcd"}
    with Path("masks/predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows].count("predicted") == 3
    scores = [float(row["attention"]) for row in rows]
    assert scores == sorted(scores, reverse=True)

    assert main(["predict", "imagesTs/*", "--format", "seg.nrrd", *data]) == 0
    assert {f"{name}.seg.nrrd" for name in "abcd"} <= names_in("masks")


def test_wrong_use(data: list[str], capsys: pytest.CaptureFixture[str]):
    for words in (
        [],
        ["imagesTs", "--workers", "0"],
        ["imagesTs", "--workers", "2", "--dask", "tcp://127.0.0.1:9"],
        ["imagesTs", "--format", "png"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(["predict", *words, *data])
        assert caught.value.code == 2
    capsys.readouterr()
    check_error(capsys, main(["predict", "none*.nii.gz", *data]), "none*.nii.gz")
    check_error(capsys, main(["predict", "--list", "gone.txt", *data]), "gone.txt")
    assert not Path("masks").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_nothing_half_written(data: list[str], workers: str):
    # Enough that two workers are not through before the signal comes.
    for name in "efghijklmnopqrstuvwx":
        shutil.copy("imagesTs/a_0000.nii.gz", f"imagesTs/{name}_0000.nii.gz")
    words = ["predict", "imagesTs", *data, "--no-adapt", "--workers", workers]
    running = _begin(words, lambda: _journalled(1))
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    _, err = running.communicate(timeout=200)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "of 24 volumes are done; the same command goes on from there" in err
    left = {name for name in names_in("masks") if not name.endswith(".labels.txt")}
    assert left - _masks() == {"predictions.csv", "predictions.json"}
    cases = json.loads(Path("masks/predictions.json").read_text())["cases"]
    done = {row["mask"] for row in cases if row["status"] == "predicted"}
    assert done == _masks()
    code, out, err = run(*words)
    assert code == 0, err
    assert f"{24 - len(done)} predicted, {len(done)} skipped" in out


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_run_that_was_killed_goes_on(data: list[str]):
    words = ["predict", "imagesTs", *data, "--no-adapt"]
    running = _begin(words, lambda: _journalled(2))
    running.kill()
    running.communicate(timeout=200)
    code, out, err = run(*words)
    assert code == 0, err
    skipped = int(re.search(r"(\d) skipped", out)[1])
    assert 2 <= skipped <= 4
    expected = {f"{name}.nii.gz" for name in "abcd"}
    described = {f"{name.removesuffix('.nii.gz')}.labels.txt" for name in expected}
    tables = {"predictions.csv", "predictions.json"}
    assert names_in("masks") == expected | described | tables


# evaluate


@pytest.fixture
def folders(case: Case) -> None:
    """Three references, masks of two of them, and one mask more."""
    for folder in ("masks", "references"):
        Path(folder).mkdir()
    for name in ("p1", "p2", "p3"):
        save(Path(f"references/{name}.nii.gz"), case.labels_ijk)
    for name, slices in (("p1", slice(0, 0)), ("p2", slice(4, 5)), ("p4", slice(0, 0))):
        mask = case.labels_ijk.copy()
        mask[..., slices] = 0
        save(Path(f"masks/{name}_0000.nii.gz"), mask)
    Path("names.json").write_text('{"liver": 1, "lung": 2}')


@pytest.mark.usefixtures("folders")
def test_evaluate_pairs_folders_by_name(capsys: pytest.CaptureFixture[str]):
    words = ["evaluate", "masks", "references", "--names", "names.json", "--resamples", "500"]
    assert main([*words, "--csv", "out.csv", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "no reference for p4" in err
    assert "no mask for p3" in err
    result = json.loads(out)
    assert (result["without_reference"], result["without_mask"]) == (["p4"], ["p3"])
    assert list(result["cases"]) == ["p1", "p2"]
    worse = 2 * 8 / (8 + 9)
    liver = result["labels"]["liver"]["dice"]
    assert liver == {
        "mean": pytest.approx((1 + worse) / 2),
        "low": pytest.approx(worse),
        "high": 1.0,
        "cases": 2,
    }
    with Path("out.csv").open(newline="") as stream:
        rows = {(row["case"], row["label"]): row for row in csv.DictReader(stream)}
    assert float(rows["p2", "lung"]["dice"]) == pytest.approx(worse, abs=1e-6)
    assert float(rows["p1", "mean"]["dice"]) == 1
    assert float(rows["(95 % low)", "mean"]["dice"]) == pytest.approx(worse, abs=1e-6)

    assert main(words) == 0
    out = capsys.readouterr().out
    assert re.search(r"^p2 +0\.941 .*\np1 +1\.000 ", out, re.MULTILINE)  # the worst first
    assert re.search(r"^liver +2 +0\.971 \[0\.941, 1\.000\]", out, re.MULTILINE)
    assert re.search(r"^mean +2 +0\.971 \[0\.941, 1\.000\]", out, re.MULTILINE)
    assert "500 resamples, seed 0" in out


@pytest.mark.usefixtures("folders")
def test_evaluate_goes_on_after_a_bad_case(case: Case, capsys: pytest.CaptureFixture[str]):
    save(Path("masks/p3.nii.gz"), case.labels_ijk[..., :5])
    assert main(["evaluate", "masks", "references"]) == 1
    out, err = capsys.readouterr()
    assert re.search(r"error: masks/p3\.nii\.gz: lies on another grid", err)
    assert "1 of 3 cases failed" in err
    assert "2 cases, each one patient" in out


@pytest.mark.usefixtures("folders")
def test_evaluate_refuses_folders_that_do_not_fit(case: Case, capsys: pytest.CaptureFixture[str]):
    for words in (
        ["masks", case.labels],
        ["masks", "references", "--exclude-slices", "1"],
        ["masks", "references", "--absent", "papers"],
        ["masks", "references", "--resamples", "0"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(["evaluate", *words])
        assert caught.value.code == 2
    capsys.readouterr()
    Path("empty").mkdir()
    check_error(capsys, main(["evaluate", "empty", "references"]), "empty: holds no label files")
    save(Path("masks/p1.nii.gz"), case.labels_ijk)
    check_error(capsys, main(["evaluate", "masks", "references"]), "p1_0000", "the same case")
    words = ["evaluate", "masks", "references", "--csv", "references/p1.nii.gz"]
    check_error(capsys, main(words), "is a file of the folder that is read")


def test_evaluate_writes_one_pair_as_csv(case: Case, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", case.labels, case.labels, "--csv", "pair.csv"]) == 0
    with Path("pair.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["case"] == "labels.nii.gz"
    assert float(rows[0]["dice"]) == 1
    assert int(rows[0]["mask_voxels"]) == np.count_nonzero(
        np.asarray(nib.load(case.labels).dataobj) == 1
    )
