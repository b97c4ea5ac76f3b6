"""RTSTRUCT, by what its outlines say in millimetres."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.uid import ImplicitVRLittleEndian
from synthetic import FRAME, STUDY, enhanced, line, save_series

from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume, read_labels, read_volume, write_mask

LABELS = (Label(4, "liver", (221, 130, 101)), Label(9, "Ösophagus 食道", (0, 51, 255)))
ROWS, COLUMNS = 9, 11


@pytest.fixture(params=["plain", "tilted", "uneven", "missing", "sagittal"])
def volume(request, tmp_path):
    positions, orientation = line(5), (1, 0, 0, 0, 1, 0)
    if request.param == "tilted":
        orientation = (1, 0, 0, 0, np.cos(0.2), np.sin(0.2))
    if request.param == "uneven":
        positions[3] = positions[3] + [0, 0, 0.8]
    if request.param == "missing":
        del positions[3]
    if request.param == "sagittal":
        positions, orientation = line(5, (2.5, 0, 0)), (0, 1, 0, 0, 0, -1)
    save_series(tmp_path / "ct", positions, rows=ROWS, columns=COLUMNS, orientation=orientation)
    return read_volume(tmp_path / "ct")


def _mask(shape, seed=0):
    mask = np.random.default_rng(seed).choice(np.array([0, 4, 9], np.uint8), shape)
    mask[1] = 0  # a slice without an outline
    return mask


def test_a_mask_comes_back_as_it_was(tmp_path, volume):
    mask = _mask(volume.hu.shape)
    path = tmp_path / "m.rtstruct.dcm"
    write_mask(path, mask, volume.geometry, LABELS)
    found = read_labels(path, volume.geometry)
    assert np.array_equal(found.mask, mask)
    assert found.labels == LABELS


def test_it_belongs_to_patient_study_and_slices(tmp_path):
    save_series(tmp_path / "ct", line(3), rows=ROWS, columns=COLUMNS)
    volume = read_volume(tmp_path / "ct")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1, 2:5, 3:7] = 4
    write_mask(tmp_path / "m.rtstruct.dcm", mask, volume.geometry, LABELS[:1])
    found = pydicom.dcmread(tmp_path / "m.rtstruct.dcm")
    assert (found.PatientID, found.StudyInstanceUID) == ("PAT-4711", STUDY)
    assert str(found.PatientName) == "DOE^JÄNE"
    assert found.FrameOfReferenceUID == FRAME
    assert found.Modality == "RTSTRUCT"
    (roi,) = found.StructureSetROISequence
    assert (roi.ROINumber, roi.ROIName) == (4, "liver")
    (outlines,) = found.ROIContourSequence
    assert list(outlines.ROIDisplayColor) == [221, 130, 101]
    (outline,) = outlines.ContourSequence
    (reference,) = outline.ContourImageSequence
    header = pydicom.dcmread(sorted((tmp_path / "ct").iterdir())[1])
    assert reference.ReferencedSOPInstanceUID == header.SOPInstanceUID
    points = np.array(outline.ContourData, float).reshape(-1, 3)
    assert len(points) == outline.NumberOfContourPoints
    # Half a pixel (0.9 mm along a row, 0.7 mm across) around the centres that are painted.
    x, y, z = header.ImagePositionPatient
    assert np.allclose(points.min(0), (x + 2.5 * 0.9, y + 1.5 * 0.7, z), atol=1e-3)
    assert np.allclose(points.max(0), (x + 6.5 * 0.9, y + 4.5 * 0.7, z), atol=1e-3)


def test_frames_of_one_file_are_referred_to_by_number(tmp_path):
    save_series(tmp_path / "ct", line(3), rows=ROWS, columns=COLUMNS)
    enhanced(tmp_path / "ct", tmp_path / "enhanced.dcm", [2, 0, 1])
    volume = read_volume(tmp_path / "enhanced.dcm")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1, 1, 1], mask[2, 2, 2] = 1, 2
    labels = (Label(1, "a", (1, 2, 3)), Label(2, "b", (3, 2, 1)))
    write_mask(tmp_path / "m.rtstruct.dcm", mask, volume.geometry, labels)
    assert np.array_equal(read_labels(tmp_path / "m.rtstruct.dcm", volume.geometry).mask, mask)


def _structures(path, *outlines, kind="CLOSED_PLANAR"):
    """Write an RTSTRUCT as other programs do: ``(number, name, points)`` in (L, P, S) mm."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3"
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number in sorted({number for number, _, _ in outlines}):
        roi, drawn = pydicom.Dataset(), pydicom.Dataset()
        roi.ROINumber, roi.ROIName = number, next(n for i, n, _ in outlines if i == number)
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for other, _, points in outlines:
            if other == number:
                contour = pydicom.Dataset()
                contour.ContourGeometricType = kind
                contour.NumberOfContourPoints = len(points)
                contour.ContourData = [f"{v:.6g}" for v in np.ravel(points)]
                drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return path


def _box(x0, x1, y0, y1, z):
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


@pytest.fixture
def ct():
    """A NIfTI-like grid of 1 x 1 x 2 mm; voxel (k, j, i) lies at (i, j, 2 k) in (L, P, S)."""
    geometry = Geometry.from_affine(np.diag([-1.0, -1.0, 2.0, 1.0]), (20, 16, 5))
    return Volume(np.zeros((5, 16, 20), np.int16), geometry, "ct")


def test_outlines_of_other_programs(tmp_path, ct):
    path = _structures(
        tmp_path / "rs.dcm",
        (1, "body", _box(-0.5, 17.5, -0.5, 13.5, 4)),
        (7, "ring", _box(2.5, 10.5, 2.5, 10.5, 4)),
        (7, "ring", _box(4.5, 6.5, 4.5, 6.5, 4)),  # a hole in it
    )
    found = read_labels(path, ct.geometry)
    expected = np.zeros(ct.hu.shape, np.uint8)
    expected[2, :14, :18] = 1
    expected[2, 3:11, 3:11] = 7  # the smaller structure wins over the larger one
    expected[2, 5:7, 5:7] = 1
    assert np.array_equal(found.mask, expected)
    assert [(label.id, label.name) for label in found.labels] == [(1, "body"), (7, "ring")]


def test_outlines_between_the_slices_need_resampling(tmp_path, ct):
    outlines = [(1, "liver", _box(1.5, 5.5, 1.5, 5.5, z)) for z in (1, 4, 7)]
    path = _structures(tmp_path / "rs.dcm", *outlines)
    with pytest.raises(VolumeError, match="between the slices"):
        read_labels(path, ct.geometry)
    found = read_labels(path, ct.geometry, resample=True)
    assert found.mask.any(axis=(1, 2)).tolist() == [True, True, True, True, True]
    assert (found.mask[:, 2:6, 2:6] == 1).all()
    far = _structures(tmp_path / "far.dcm", (1, "liver", _box(1.5, 5.5, 1.5, 5.5, 90)))
    with pytest.raises(VolumeError, match="outside of the volume"):
        read_labels(far, ct.geometry)


def test_what_holds_no_mask_is_refused(tmp_path, ct):
    path = _structures(tmp_path / "rs.dcm", (1, "liver", [(1, 1, 0), (1, 5, 6), (5, 5, 0)]))
    with pytest.raises(VolumeError, match="not drawn on this CT's slices"):
        read_labels(path, ct.geometry)
    with pytest.raises(VolumeError, match="open their CT first"):
        read_labels(path)
    points = _structures(tmp_path / "p.dcm", (1, "isocentre", [(1, 1, 0)]), kind="POINT")
    assert not read_labels(points, ct.geometry).mask.any()
    mask = np.ones(ct.hu.shape, np.uint8)
    with pytest.raises(VolumeError, match="RTSTRUCT needs a volume that was read from a DICOM"):
        write_mask(tmp_path / "m.rtstruct.dcm", mask, ct.geometry, LABELS)


@settings(max_examples=40, deadline=None)
@given(plane=arrays(np.uint8, (ROWS, COLUMNS), elements=st.sampled_from([0, 4, 9])))
def test_any_shape_comes_back(tmp_path_factory, plane):
    folder = tmp_path_factory.mktemp("rt")
    save_series(folder / "ct", line(1), rows=ROWS, columns=COLUMNS)
    volume = read_volume(folder / "ct")
    write_mask(folder / "m.rtstruct.dcm", plane[None], volume.geometry, LABELS)
    assert np.array_equal(read_labels(folder / "m.rtstruct.dcm", volume.geometry).mask[0], plane)
