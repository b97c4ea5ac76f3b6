"""A patient whose every name and number can be found again, and the search for them."""

from __future__ import annotations

import gzip
import re
import zipfile
import zlib
from pathlib import Path

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
