"""DICOM-SEG, re-read by highdicom."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from synthetic import FRAME, STUDY, deleting, line, save_series

from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import read_labels, read_volume, write_mask

LABELS = (
    Label(1, "liver", (221, 130, 101)),
    Label(2, "left kidney", (0, 51, 255)),
    Label(3, "Ösophagus 食道", (200, 200, 0)),
)


@pytest.fixture(params=["plain", "tilted", "uneven", "sagittal"])
def series(request, tmp_path):
    positions, orientation = line(5), (1, 0, 0, 0, 1, 0)
    if request.param == "tilted":
        orientation = (1, 0, 0, 0, np.cos(0.2), np.sin(0.2))
    if request.param == "uneven":
        del positions[3]
    if request.param == "sagittal":
        positions, orientation = line(5, (2.5, 0, 0)), (0, 1, 0, 0, 0, -1)
    save_series(tmp_path / "ct", positions, orientation=orientation)
    volume = read_volume(tmp_path / "ct")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[0, 1, 1:], mask[2, 0, 2] = 1, 2
    return volume, mask


def test_dicom_seg_refers_to_the_slices_it_was_painted_on(tmp_path, series):
    volume, mask = series
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS)
    found = hd.seg.segread(tmp_path / "m.dcm")
    assert (found.PatientID, found.StudyInstanceUID) == ("PAT-4711", STUDY)
    assert str(found.PatientName) == "DOE^JÄNE"
    assert found.FrameOfReferenceUID == FRAME
    segments = [found.get_segment_description(n) for n in found.segment_numbers]
    assert [segment.segment_label for segment in segments] == [label.name for label in LABELS]
    assert segments[0].segmented_property_type.meaning == "Liver"
    assert segments[1].segmented_property_type.meaning == "Kidney"
    array = volume.geometry.from_canonical(mask)
    for path in sorted((tmp_path / "ct").iterdir()):
        header = pydicom.dcmread(path)
        frame = found.get_pixels_by_source_instance(
            [header.SOPInstanceUID], combine_segments=True, assert_missing_frames_are_empty=True
        )[0]
        # The slice's own position says which plane of the mask it must be.
        ras = np.array([*header.ImagePositionPatient, 1]) * [-1, -1, 1, 1]
        k = round(float((np.linalg.inv(volume.geometry.affine) @ ras)[2]), 6)
        if any("uneven" in note for note in volume.geometry.notes):
            k = volume.geometry.reference["dicom"]["slices"].index(header.SOPInstanceUID)
        assert (array[..., int(k)] == frame.T).all()


def test_dicom_seg_is_read_with_names_and_colours(tmp_path, series):
    volume, mask = series
    labels = (Label(4, "liver", (221, 130, 101)), Label(9, "aorta", (0, 51, 255)))
    mask = np.array([0, 4, 9], np.uint8)[mask]
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, labels)
    found = read_labels(tmp_path / "m.dcm", volume.geometry)
    assert (found.mask == mask).all()
    assert [(label.id, label.name) for label in found.labels] == [(4, "liver"), (9, "aorta")]
    for label, wanted in zip(found.labels, labels, strict=True):
        np.testing.assert_allclose(label.colour, wanted.colour, atol=2)


def test_dicom_seg_lies_on_the_same_volume_saved_as_nifti(tmp_path):
    save_series(tmp_path / "ct", line(5))
    volume = read_volume(tmp_path / "ct")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1:3, 2, 3], mask[2, 0, 0] = 1, 2
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS)
    write_mask(tmp_path / "m.nii.gz", mask, volume.geometry, LABELS)
    other = read_volume(tmp_path / "m.nii.gz").geometry
    assert (read_labels(tmp_path / "m.dcm", other).mask == mask).all()


def test_dicom_seg_of_another_series_is_refused(tmp_path):
    save_series(tmp_path / "ct", line(5))
    save_series(tmp_path / "other", line(5, start=(-10, 20, 103)))
    volume, other = read_volume(tmp_path / "ct"), read_volume(tmp_path / "other")
    write_mask(tmp_path / "m.dcm", np.ones((5, 4, 5), np.uint8), volume.geometry, LABELS)
    with pytest.raises(VolumeError, match="another grid"):
        read_labels(tmp_path / "m.dcm", other.geometry)


def test_dicom_seg_needs_its_series_unchanged_and_identified(tmp_path):
    save_series(tmp_path / "ct", line(3))
    volume = read_volume(tmp_path / "ct")
    (tmp_path / "ct" / "1-001").unlink()
    mask = np.ones((3, 4, 5), np.uint8)
    with pytest.raises(VolumeError, match="changed on disk"):
        write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS)
    save_series(tmp_path / "x", line(3), change=deleting("StudyInstanceUID"))
    with pytest.raises(VolumeError, match=r"m\.dcm: .*no StudyInstanceUID"):
        write_mask(tmp_path / "m.dcm", mask, read_volume(tmp_path / "x").geometry, LABELS)
    save_series(tmp_path / "y", line(3))
    with pytest.raises(VolumeError, match="at least one label"):
        write_mask(tmp_path / "m.dcm", mask * 0, read_volume(tmp_path / "y").geometry, ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct", "x", "y"]
