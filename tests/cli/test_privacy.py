"""Nothing that names a patient leaves its files, except where the standard demands it."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cli_tools import Case, process
from synthetic import line, save_series

from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io import read_volume, write_mask, write_volume
from napari_diffseg.session import Session

REQUIRED = {
    "PatientName": "SECRETNAME^JANE",
    "PatientID": "SECRETID4711",
    "PatientBirthDate": "19121223",
    "StudyDate": "20131231",
    "StudyTime": "235958",
    "StudyID": "SECRETSTUDY",
    "AccessionNumber": "SECRETACCESS",
    "ReferringPhysicianName": "SECRETREFERRER^DR",
}
"""What the modules Patient and General Study demand of every object of a study."""
OTHER = {
    "OtherPatientIDs": "SECRETOTHER",
    "PatientAddress": "SECRETSTREET 5",
    "PatientTelephoneNumbers": "SECRETPHONE",
    "PatientComments": "SECRETCOMMENT",
    "InstitutionName": "SECRETHOSPITAL",
    "InstitutionAddress": "SECRETCITY",
    "OperatorsName": "SECRETOPERATOR",
    "PerformingPhysicianName": "SECRETPERFORMER",
    "StudyDescription": "SECRETDESCRIPTION",
    "SeriesDescription": "SECRETSERIES",
    "ProtocolName": "SECRETPROTOCOL",
    "StationName": "SECRETSTATION",
    "DeviceSerialNumber": "SECRETDEVICE",
    "RequestingPhysician": "SECRETREQUEST",
    "PhysiciansOfRecord": "SECRETRECORD",
    "NameOfPhysiciansReadingStudy": "SECRETREADER",
    "AdmittingDiagnosesDescription": "SECRETDIAGNOSIS",
    "AdditionalPatientHistory": "SECRETHISTORY",
    "AdmissionID": "SECRETADMISSION",
    "EthnicGroup": "SECRETGROUP",
    "Occupation": "SECRETJOB",
    "PatientMotherBirthName": "SECRETMOTHER",
    "ClinicalTrialSubjectID": "SECRETSUBJECT",
    "ResponsiblePerson": "SECRETPERSON",
}
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
FOLDER = "SECRETFOLDER_JANE"


def name_the_patient(n, data):
    for keyword, value in (REQUIRED | OTHER).items():
        setattr(data, keyword, value)
    block = data.private_block(0x0011, "SECRETCREATOR", create=True)
    block.add_new(0x01, "LO", "SECRETPRIVATE")


def contents(path: Path) -> bytes:
    """All bytes of a file, packed and unpacked."""
    data = path.read_bytes()
    parts = [data]
    if data[:2] == b"\x1f\x8b":
        parts.append(gzip.decompress(data))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            parts += [archive.read(name) for name in archive.namelist()]
    for found in re.finditer(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]", data):
        try:
            parts.append(zlib.decompressobj(47).decompress(data[found.start() :]))
        except zlib.error:
            continue
    return b"\n".join(parts)


def secrets_in(data: bytes, tags: dict[str, str] = REQUIRED | OTHER) -> set[str]:
    words = {name.split("^")[0] for name in tags.values()}
    words |= {"SECRETPRIVATE", "SECRETCREATOR", FOLDER}
    return {word for word in words if word.encode() in data or word.encode("utf-16-le") in data}


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
    code, _, err = process(
        "segment", str(series), "--labels", str(tmp_path / "labels.nii.gz"), "--backbone",
        case.tiny, "--iterations", "1", "--device", "cpu", "-o", str(tmp_path / "seg.dcm"),
    )  # fmt: skip
    assert code == 0, err
    assert "seg.dcm: holds the patient's name and id, as DICOM-SEG must" in err
