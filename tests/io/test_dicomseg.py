"""DICOM-SEG, re-read by highdicom."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from scipy.spatial.transform import Rotation
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


def everywhere(**values):
    def change(n, data):
        for name, value in values.items():
            setattr(data, name, value)

    return change


JAPANESE = everywhere(
    SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"
)
KOREAN = everywhere(
    SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName="Hong^Gildong=洪^吉洞=홍^길동"
)


@pytest.mark.parametrize(
    ("change", "name", "thickness"),
    [
        (everywhere(SliceThickness=None), None, 2.5),
        (deleting("SliceThickness"), None, 2.5),
        (everywhere(PatientBirthDate="00000000", StudyDate="00000000"), None, 9),
        (everywhere(PatientSex="U"), None, 9),
        (everywhere(PatientSex="UNKNOWN"), None, 9),
        (everywhere(StudyTime="25h"), None, 9),
        (JAPANESE, "Yamada^Tarou=山田^太郎", 9),
        (KOREAN, "Hong^Gildong=洪^吉洞=홍^길동", 9),
        (everywhere(SpecificCharacterSet="GB18030", PatientName="Wang=王^小东"), "Wang=王^小东", 9),
        (everywhere(ImageOrientationPatient=[0.9994, 0.0349, 0, -0.0349, 0.9994, 0]), None, 9),
        (everywhere(ImageOrientationPatient=[0.9994, 0.0349, 0, -0.0347, 0.9994, 0.0003]), None, 9),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dicom_seg_is_written_for_headers_as_they_are(tmp_path, change, name, thickness):
    save_series(tmp_path / "ct", line(4), change=change)
    volume = read_volume(tmp_path / "ct")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1, 2, 3], mask[2:, 0, 1] = 1, 2
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS)
    found = hd.seg.segread(tmp_path / "m.dcm")
    assert str(found.PatientName) == (name or "DOE^JÄNE")
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert found.PatientBirthDate in ("", None)
    assert found.PatientSex in ("", None)
    measures = found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == thickness
    assert (read_labels(tmp_path / "m.dcm", volume.geometry).mask == mask).all()


@pytest.mark.parametrize("digits", [3, 4])
def test_dicom_seg_is_written_for_rounded_directions(tmp_path, digits):
    exact = Rotation.from_euler("xyz", (7, 8, 9), degrees=True).as_matrix()[:, :2].T.ravel()
    rounded = np.round(exact, digits)

    def jitter(n, data):  # each slice is rounded on its own
        values = rounded + (10.0**-digits if n == 1 else 0) * np.array([0, 0, 0, 0, 0, 0.9])
        data.ImageOrientationPatient = [f"{v:.5f}" for v in values]

    normal = np.cross(exact[:3], exact[3:])
    save_series(tmp_path / "ct", line(3, 2.5 * normal), rows=512, columns=512, change=jitter)
    volume = read_volume(tmp_path / "ct")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1, 500:, 490:], mask[2, :9, 300] = 1, 2
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS[:2])
    assert (read_labels(tmp_path / "m.dcm", volume.geometry).mask == mask).all()
    array = volume.geometry.from_canonical(mask)
    found = hd.seg.segread(tmp_path / "m.dcm").get_volume(combine_segments=True).array
    assert (found.max(), np.count_nonzero(found)) == (2, np.count_nonzero(array))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_dicom_seg_is_written_for_an_unknown_character_set(tmp_path):
    save_series(tmp_path / "ct", line(3))
    for path in (tmp_path / "ct").iterdir():
        path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_IR 999"))
    volume = read_volume(tmp_path / "ct")
    mask = np.ones(volume.hu.shape, np.uint8)
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS)
    found = hd.seg.segread(tmp_path / "m.dcm")
    assert str(found.PatientName).startswith("DOE^J")
    assert (found.PatientID, found.SpecificCharacterSet) == ("PAT-4711", "ISO_IR 192")


@pytest.fixture
def made(tmp_path):
    """A volume of nine slices, a mask on it, and that mask as DICOM-SEG."""
    save_series(tmp_path / "ct", line(9), rows=6, columns=8)
    volume = read_volume(tmp_path / "ct")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[1, 2, 1:4], mask[3:6, 0:2, 5] = 1, 2
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS[:2])
    return volume, mask, pydicom.dcmread(tmp_path / "m.dcm")


@pytest.mark.parametrize(
    "names",
    [
        ("DerivationImageSequence",),
        ("ReferencedSeriesSequence",),
        ("DerivationImageSequence", "ReferencedSeriesSequence"),
        ("PlanePositionSequence",),
    ],
)
def test_dicom_seg_is_placed_by_what_its_frames_say(tmp_path, made, names):
    volume, mask, seg = made
    for name in names:
        if name in seg:
            delattr(seg, name)
        for frame in seg.PerFrameFunctionalGroupsSequence:
            if name in frame:
                delattr(frame, name)
    seg.save_as(tmp_path / "bare.dcm")
    found = read_labels(tmp_path / "bare.dcm", volume.geometry)
    assert (found.mask == mask).all()
    assert [label.name for label in found.labels] == ["liver", "left kidney"]


def test_position_wins_over_identifiers(tmp_path, made):
    volume, mask, seg = made
    for frame in seg.PerFrameFunctionalGroupsSequence:
        x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = [x + 2 * 0.9, y - 0.0, z + 5]
    seg.save_as(tmp_path / "shifted.dcm")
    found = read_labels(tmp_path / "shifted.dcm", volume.geometry)
    assert (found.mask == np.roll(mask, (2, 2), (0, 2))).all()
    x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
    frame.PlanePositionSequence[0].ImagePositionPatient = [x + 0.4, y, z]
    seg.save_as(tmp_path / "between.dcm")
    with pytest.raises(VolumeError, match="another grid"):
        read_labels(tmp_path / "between.dcm", volume.geometry)


@pytest.mark.parametrize(
    "orientation", [(-1, 0, 0, 0, -1, 0), (0, 1, 0, 1, 0, 0), (0, 1, 0, 0, 0, -1)]
)
def test_dicom_seg_turned_against_its_series_lies_where_it_says(tmp_path, made, orientation):
    """Made by highdicom on a series of the same voxels that was sliced another way."""
    volume, mask, _ = made
    matrix = np.diag([-1, -1, 1]) @ volume.geometry.affine[:3]  # (L, P, S) of (i, j, k)
    array = volume.geometry.from_canonical(mask)
    axes = np.rint(np.reshape(orientation, (2, 3))).astype(int)
    axes = np.vstack([axes, np.cross(*axes)])
    which, signs = np.abs(axes).argmax(1), axes.sum(1)
    turned = array.transpose(which)[tuple(slice(None, None, s) for s in signs)]
    first = [(array.shape[w] - 1) if s < 0 else 0 for w, s in zip(which, signs, strict=True)]
    corner = np.zeros(3)
    corner[which] = first
    spacing = np.linalg.norm(matrix[:, :3], axis=0)[which]

    def sliced(n, data):
        data.PixelSpacing = [spacing[1], spacing[0]]

    start = matrix @ [*corner, 1]
    columns, rows, count = turned.shape
    positions = [start + n * spacing[2] * axes[2] for n in range(count)]
    save_series(
        tmp_path / "turned", positions, rows=rows, columns=columns, orientation=orientation,
        change=sliced,
    )  # fmt: skip
    other = read_volume(tmp_path / "turned")
    assert np.allclose(sorted(other.geometry.spacing), sorted(volume.geometry.spacing))
    there = other.geometry.to_canonical(turned)
    write_mask(tmp_path / "turned.dcm", np.ascontiguousarray(there), other.geometry, LABELS[:2])
    assert (read_labels(tmp_path / "turned.dcm", volume.geometry).mask == mask).all()


def test_of_segments_that_overlap_one_is_chosen(tmp_path):
    save_series(tmp_path / "ct", line(5), rows=6, columns=8)
    volume = read_volume(tmp_path / "ct")
    mask = np.zeros(volume.hu.shape, np.uint8)
    mask[0:3, 2, 1:4], mask[3:5, 1:3, 3] = 1, 2
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, LABELS[:2])
    seg = pydicom.dcmread(tmp_path / "m.dcm")
    for frame in seg.PerFrameFunctionalGroupsSequence:
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2:
            x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, z - 5]
    seg.save_as(tmp_path / "over.dcm")
    expected = np.zeros_like(mask)
    expected[0:3, 2, 1:4], expected[1:3, 1, 3] = 1, 2
    for overlap, wins in (("last", 2), ("first", 1)):
        expected[1:3, 2, 3] = wins
        found = read_labels(tmp_path / "over.dcm", volume.geometry, overlap=overlap)
        assert (found.mask == expected).all()
        assert found.notes == (
            f"segments overlap in 2 voxels; the {overlap} one in the file is taken there",
        )
        alone = read_labels(tmp_path / "over.dcm", overlap=overlap)
        assert (alone.mask == expected[:3]).all()
        assert "segments overlap in some voxels" in alone.notes[0]
    for geometry in (volume.geometry, None):
        with pytest.raises(VolumeError, match="overlapping segments"):
            read_labels(tmp_path / "over.dcm", geometry, overlap="refuse")
