"""Nothing that names a patient leaves its files, except where the standard demands it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from cli_tools import Case, process, run
from privacy_tools import FOLDER, OTHER, REQUIRED, contents, name_the_patient, secrets_in
from synthetic import line, save_series

from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io import read_volume, write_mask, write_volume
from napari_diffseg.session import Session

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / FOLDER
    save_series(folder, line(6), rows=40, columns=36, change=name_the_patient)
    return folder


def test_no_file_of_a_run_names_the_patient(case: Case, series: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    volume = read_volume(series)
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1:3, 8:20, 8:20] = 1
    write_mask(out / "labels.nii.gz", mask, volume.geometry, ())
    code, said, err = process(
        "segment", str(series), "--labels", str(out / "labels.nii.gz"), "--backbone", case.tiny,
        "--iterations", "2", "--device", "cpu", "-o", str(out / "mask.seg.nrrd"),
        "--report", str(out / "report.json"), "--save-model", str(out / "model.safetensors"),
        "--validate",
    )  # fmt: skip
    assert code == 0, err
    code, more, errors = process(
        "predict", str(series), "--model", str(out / "model.safetensors"), "-o", str(out / "all")
    )
    assert code == 0, errors
    # Lines on the terminal may name what was typed there.
    typed = (said + err + more + errors).replace(FOLDER, "")
    assert secrets_in(typed.encode()) == set()
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) >= 5
    uids = {str(pydicom.dcmread(series / "1-000")[keyword].value) for keyword in UIDS}
    for path in written:
        data = contents(path)
        if path.name.startswith("predictions."):  # a list of the volumes that were given
            data = data.replace(FOLDER.encode(), b"")
        assert secrets_in(data) == set(), path.name
        assert not [uid for uid in uids if uid.encode() in data], path.name


def test_no_session_and_no_export_names_the_patient(case: Case, series: Path, tmp_path: Path):
    volume = read_volume(series)
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[:, 8:20, 8:20] = 1
    out = tmp_path / "out"
    out.mkdir()
    with Session(volume, backbone=case.tiny, folder=tmp_path / "sessions") as session:
        session.paint.set_slice(1, mask[1])
        session.paint.set_slice(4, mask[4])
        list(session.trainer.train(TrainSettings(iterations=2, device="cpu")))
        list(session.trainer.predict())
        session.prediction.edit(2, mask[2])
        for ending in (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd"):
            session.export_mask(out / f"mask{ending}")
        session.export_report(out / "report.json")
        session.trainer.save_model(out / "model.safetensors")
        session.export_mask(tmp_path / "seg.dcm")
    write_volume(out / "ct.nii.gz", volume)
    written = [p for place in (out, tmp_path / "sessions") for p in place.rglob("*") if p.is_file()]
    assert len(written) >= 14
    uids = {str(pydicom.dcmread(series / "1-000")[keyword].value) for keyword in UIDS}
    for path in written:
        data = contents(path)
        if path.name.startswith("predictions."):  # a list of the volumes that were given
            data = data.replace(FOLDER.encode(), b"")
        assert secrets_in(data) == set(), path.name
        assert not [uid for uid in uids if uid.encode() in data], path.name
        assert secrets_in(str(path.relative_to(tmp_path)).encode()) == set()
    # A DICOM-SEG is of the patient and the study, and holds just what the standard demands.
    assert secrets_in(contents(tmp_path / "seg.dcm"), OTHER) == set()
    segmentation = pydicom.dcmread(tmp_path / "seg.dcm")
    for keyword, value in REQUIRED.items():
        assert str(segmentation[keyword].value) == value


def test_a_dicom_seg_says_that_it_names_the_patient(case: Case, series: Path, tmp_path: Path):
    volume = read_volume(series)
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1:3, 8:20, 8:20] = 1
    write_mask(tmp_path / "labels.nii.gz", mask, volume.geometry, ())
    code, _, err = run(
        "segment", str(series), "--labels", str(tmp_path / "labels.nii.gz"), "--backbone",
        case.tiny, "--iterations", "1", "--device", "cpu", "-o", str(tmp_path / "seg.dcm"),
    )  # fmt: skip
    assert code == 0, err
    assert "seg.dcm: holds the patient's name and id, as DICOM must" in err


def test_no_table_page_or_trained_model_names_the_patient(
    case: Case, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    volume = read_volume(series)
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1:3, 8:20, 8:20] = 1
    write_mask(out / "labels.nii.gz", mask, volume.geometry, ())
    labels = out / "labels.nii.gz"
    write_volume(out / "ct.nii.gz", volume)
    table = f"volume,labels\n{series},{labels}\n{out / 'ct.nii.gz'},{labels}\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    said = ""
    for words in (
        ("measure", str(series), "labels.nii.gz", "-o", "table.csv"),
        ("measure", str(series), "labels.nii.gz", "-o", "page.html"),
        ("compare", "labels.nii.gz", "labels.nii.gz", "-o", "a.csv", "--slices", "b.csv"),
        ("evaluate", "labels.nii.gz", "labels.nii.gz", "--csv", "c.csv"),
        (
            "train", str(tmp_path / "cases.csv"), "-o", "m.safetensors", "--report", "r.json",
            "--backbone", case.tiny, "--iterations", "2", "--device", "cpu",
        ),
    ):  # fmt: skip
        code, text, err = run(*words)
        assert code == 0, err
        said += text + err
    assert secrets_in(said.replace(FOLDER, "").encode()) == set()
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {
        "table.csv", "page.html", "a.csv", "b.csv", "c.csv", "m.safetensors", "r.json",
    }  # fmt: skip
    for path in files:
        assert secrets_in(contents(path)) == set(), path.name


def test_an_rtstruct_names_the_patient_as_the_standard_demands_and_no_more(
    series: Path, tmp_path: Path
):
    volume = read_volume(series)
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1:3, 8:20, 8:20] = 1
    write_mask(tmp_path / "m.rtstruct.dcm", mask, volume.geometry, ())
    assert secrets_in(contents(tmp_path / "m.rtstruct.dcm"), OTHER) == set()
