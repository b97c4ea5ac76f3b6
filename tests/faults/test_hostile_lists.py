"""Lists of cases, queues and outlines that lead elsewhere, have no end or are at no place."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pydicom
import pytest
from synthetic import line, save_series

from napari_diffseg.io import Label, VolumeError, find_volumes, read_labels, read_volume, write_mask
from napari_diffseg.io.errors import UserError
from napari_diffseg.session import Queue, SessionError, read_cases
from napari_diffseg.session.cases import CasesError
from napari_diffseg.session.cohort_table import read_table


@pytest.mark.skipif(sys.platform == "win32", reason="devices and pipes as on Unix")
@pytest.mark.parametrize("kind", ["device", "pipe"])
@pytest.mark.parametrize("name", ["cases.csv", "cases.json", "list.txt", "dataset.json"])
def test_a_list_that_has_no_end_is_refused_at_once(tmp_path, kind, name):
    path = tmp_path / name
    path.symlink_to("/dev/zero") if kind == "device" else os.mkfifo(path)
    doors = {
        "list.txt": lambda: find_volumes([f"@{path}"]),
        "dataset.json": lambda: read_cases(tmp_path),
    }
    open_it = doors.get(name, lambda: read_cases(path))
    with pytest.raises(UserError, match=r"not a regular file|missing or damaged"):
        open_it()


@pytest.mark.parametrize("ending", ["/../../secret.nii.gz", "", 5, "*", ".nii.gz/../x", None])
def test_a_data_set_names_no_files_outside_of_it(tmp_path, ending):
    (tmp_path / "secret.nii.gz").touch()
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    about = {"labels": {"background": 0, "liver": 1}, "file_ending": ending}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(CasesError, match="missing or damaged"):
        read_cases(tmp_path / "set")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"liver": 1, "spleen": 1}, "not distinct numbers"),
        ({"liver": 999}, "not distinct numbers"),
        ({"liver": -1}, "not distinct numbers"),
        ({"\x1b[2J": 1}, "no name that can be shown"),
    ],
)
def test_labels_of_a_data_set_are_checked(tmp_path, labels, says):
    about = {"labels": labels, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(CasesError, match=says):
        read_cases(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "a\x00b", "x/" * 3000, "\ud800", "\x1b[2J"])
def test_a_name_that_no_file_can_have_is_not_there(tmp_path, name):
    (tmp_path / "cases.json").write_text(json.dumps([{"volume": name}]))
    with pytest.raises(CasesError, match="does not exist") as caught:
        read_cases(tmp_path / "cases.json")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("slices", [[{}], [1.5], [[1]], [True], "1e3", -1, "9" * 5000])
def test_slices_that_are_none_are_refused(tmp_path, slices):
    (tmp_path / "ct.nii.gz").touch()
    row = {"volume": "ct.nii.gz", "slices": slices}
    (tmp_path / "cases.json").write_text(json.dumps([row]))
    with pytest.raises(CasesError, match="neither 'all' nor indices"):
        read_cases(tmp_path / "cases.json")


def test_what_is_nested_without_end_is_refused(tmp_path):
    deep = '{"a":' * 200_000
    for name in ("cases.json", "queue.json", "predictions.json"):
        (tmp_path / name).write_text(deep)
    with pytest.raises(CasesError, match="not JSON"):
        read_cases(tmp_path / "cases.json")
    with pytest.raises(SessionError, match="is no queue"):
        Queue(tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        read_table(tmp_path)


@pytest.mark.parametrize("volume", ["../../outside", "/etc", "x\x00", "x" * 300, "Z"])
def test_a_queue_looks_nowhere_else(tmp_path, volume):
    values = {"format": 1, "cases": [{"path": "a", "name": "a", "volume": volume}]}
    (tmp_path / "queue.json").write_text(json.dumps(values))
    with pytest.raises(SessionError, match="is no queue"):
        Queue(tmp_path)


@pytest.mark.parametrize("value", ["nan", "inf", "9e99", "-9e99"])
def test_outlines_at_no_place_are_refused(tmp_path, value):
    save_series(tmp_path / "ct", line(4), rows=9, columns=9)
    geometry = read_volume(tmp_path / "ct").geometry
    mask = np.zeros(geometry.canonical_shape, np.uint8)
    mask[1:3, 2:6, 2:6] = 1
    write_mask(tmp_path / "m.rtstruct.dcm", mask, geometry, [Label(1, "liver", (1, 2, 3))])
    dataset = pydicom.dcmread(tmp_path / "m.rtstruct.dcm")
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    first = f"{float(contour.ContourData[0]):.4f}".encode()
    data = (tmp_path / "m.rtstruct.dcm").read_bytes()
    assert first in data
    spoilt = data.replace(first, value.encode().ljust(len(first)), 1)
    (tmp_path / "m.rtstruct.dcm").write_bytes(spoilt)
    for resample in (False, True):
        with pytest.raises(VolumeError) as caught:
            read_labels(tmp_path / "m.rtstruct.dcm", geometry, resample=resample)
        assert "m.rtstruct.dcm" in str(caught.value)
