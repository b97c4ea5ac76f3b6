"""Which files and slices are one volume: odd exports, single files, several acquisitions."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from synthetic import enhanced, line, save_series

from napari_diffseg.io import (
    VolumeError,
    check_outputs,
    list_series,
    read_labels,
    read_volume,
    write_mask,
)

SCOUT = (0, 1, 0, 0, 0, -1)


def hu_of(pixels):
    return pixels.astype(int) - 1024


def test_enhanced_ct_is_read_as_simpleitk_reads_it(tmp_path):
    pixels = save_series(tmp_path / "ct", line(5))
    enhanced(tmp_path / "ct", tmp_path / "one.dcm")
    volume = read_volume(tmp_path / "one.dcm")
    assert (volume.hu == hu_of(pixels)).all()
    second = sitk.ReadImage(str(tmp_path / "one.dcm"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(second), volume.hu)
    np.testing.assert_allclose(second.GetSpacing()[::-1], volume.geometry.spacing)
    plain = read_volume(tmp_path / "ct").geometry
    np.testing.assert_allclose(volume.geometry.affine, plain.affine)


def test_frames_are_ordered_by_position_and_rescaled_each(tmp_path):
    def rescale(n, data):
        data.RescaleIntercept = -1000 - n

    pixels = save_series(tmp_path / "ct", line(4), change=rescale)
    (tmp_path / "multi").mkdir()
    enhanced(tmp_path / "ct", tmp_path / "multi" / "IM1", order=[2, 0, 3, 1])
    volume = read_volume(tmp_path / "multi")
    offsets = (1000 + np.arange(4))[:, None, None]
    assert (volume.hu == pixels.astype(int) - offsets).all()
    assert volume.geometry.affine[2, 3] == 100
    mask = (volume.hu % 3).astype(np.uint8)
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, ())
    found = hd.seg.segread(tmp_path / "m.dcm")
    for frame, z in enumerate([2, 0, 3, 1], start=1):
        plane = found.get_pixels_by_source_frame(
            volume.geometry.reference["dicom"]["slices"][0], [frame], combine_segments=True
        )[0]
        assert (plane == mask[z]).all()


def test_legacy_converted_enhanced_ct_is_read(tmp_path):
    pixels = save_series(tmp_path / "ct", line(4))
    slices = [pydicom.dcmread(file) for file in sorted((tmp_path / "ct").iterdir())]
    uids = generate_uid(), generate_uid()
    for item in slices:
        item.Manufacturer, item.PatientPosition = "X", "HFS"
    LegacyConvertedEnhancedCTImage(slices, uids[0], 7, uids[1], 1).save_as(tmp_path / "one.dcm")
    volume = read_volume(tmp_path / "one.dcm")
    assert (volume.hu == hu_of(pixels)).all()
    assert volume.geometry.spacing == (2.5, 0.7, 0.9)


def test_one_enhanced_ct_with_two_phases_is_offered_as_two(tmp_path):
    def phase(n, data):
        data.AcquisitionNumber = 1 + n // 3

    pixels = save_series(tmp_path / "ct", line(3) * 2, change=phase)
    data = enhanced(tmp_path / "ct", tmp_path / "one.dcm")
    with pytest.raises(VolumeError, match="--series"):
        read_volume(tmp_path / "one.dcm")
    second = read_volume(tmp_path / "one.dcm", f"{data.SeriesInstanceUID}/2")
    assert (second.hu == hu_of(pixels[3:])).all()
    with pytest.raises(VolumeError, match="not the whole of one multi-frame"):
        write_mask(tmp_path / "m.dcm", np.ones((3, 4, 5), np.uint8), second.geometry, ())


@pytest.mark.parametrize("name", ["{}.dcm", "IM{}", "1.2.840.{}"])
def test_one_file_of_a_series_opens_the_series(tmp_path, name):
    names = [name.format(n) for n in range(4)]
    pixels = save_series(tmp_path, line(4), names=names)
    save_series(tmp_path, line(2), number=2)
    save_series(tmp_path / "deeper", line(3), number=3)
    volume = read_volume(tmp_path / names[2])
    assert (volume.hu == hu_of(pixels)).all()
    assert volume.name == "CT series 1"
    mask = (volume.hu > 0).astype(np.uint8)
    with pytest.raises(VolumeError, match="also read"):
        write_mask(tmp_path / names[0], mask, volume.geometry, ())
    with pytest.raises(VolumeError, match="also read"):
        check_outputs([tmp_path / names[1]], [tmp_path / names[2]])
    write_mask(tmp_path / "mask.dcm", mask + 1, volume.geometry, ())


def test_a_file_that_is_no_slice_opens_nothing(tmp_path):
    def dose_report(n, data):
        data.Modality = "SR"

    save_series(tmp_path, line(3))
    save_series(tmp_path, line(1), number=2, change=dose_report)
    with pytest.raises(VolumeError, match="2-000: is no slice of a CT series"):
        read_volume(tmp_path / "2-000")
    (tmp_path / "notes").write_text("no DICOM at all")
    with pytest.raises(VolumeError, match="unknown ending"):
        read_volume(tmp_path / "notes")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("bare", [False, True])
def test_dicom_without_its_prefix_is_read(tmp_path, syntax, bare):
    pixels = save_series(tmp_path, line(3), syntax=syntax)
    for path in sorted(tmp_path.iterdir()):
        raw = path.read_bytes()[132:]
        if bare:  # without the file meta information, too
            raw = raw[12 + int.from_bytes(raw[8:12], "little") :]
        path.write_bytes(raw)
    (tmp_path / "letter").write_bytes(b"\x08\x00\x05\x00 no DICOM at all")
    (tmp_path / "empty").write_bytes(b"")
    assert (read_volume(tmp_path).hu == hu_of(pixels)).all()
    volume = read_volume(tmp_path / "1-001")
    second = sitk.ReadImage(str(tmp_path / "1-001"), imageIO="GDCMImageIO")
    assert (sitk.GetArrayFromImage(second)[0] == volume.hu[1]).all()


def test_a_series_uid_of_its_own_for_each_slice_is_one_volume(tmp_path):
    def own(n, data):
        data.SeriesInstanceUID = generate_uid()

    pixels = save_series(tmp_path, line(5), change=own)
    (series,) = list_series(tmp_path)
    assert series.slices == 5
    for source in (tmp_path, tmp_path / "1-003"):
        volume = read_volume(source)
        assert (volume.hu == hu_of(pixels)).all()
        assert volume.geometry.notes == (
            "each slice has a series UID of its own; they are read as one series",
        )
    mask = np.zeros((5, 4, 5), np.uint8)
    mask[1:3, 1:, 2] = 1
    write_mask(tmp_path / "m.dcm", mask, volume.geometry, ())
    assert (read_labels(tmp_path / "m.dcm", volume.geometry).mask == mask).all()
    # The segmentation lists every slice under the series that the slice itself names.
    slices = [pydicom.dcmread(path) for path in sorted(tmp_path.glob("1-*"))]
    listed = {
        str(item.SeriesInstanceUID): [
            str(image.ReferencedSOPInstanceUID) for image in item.ReferencedInstanceSequence
        ]
        for item in pydicom.dcmread(tmp_path / "m.dcm").ReferencedSeriesSequence
    }
    assert listed == {str(s.SeriesInstanceUID): [str(s.SOPInstanceUID)] for s in slices}


def test_single_slices_of_different_places_stay_apart(tmp_path):
    for n in range(3):  # as bolus tracking repeats one slice
        save_series(tmp_path, line(1), number=n)
    assert len(list_series(tmp_path)) == 3


def test_an_unmarked_scout_in_a_series_is_left_out(tmp_path):
    uid = generate_uid()
    pixels = save_series(tmp_path, line(5), series=uid)
    save_series(tmp_path, line(1), series=uid, number=2, orientation=SCOUT, rows=9)
    volume = read_volume(tmp_path)
    assert (volume.hu == hu_of(pixels)).all()
    assert volume.geometry.notes == ("1 slice across the others left out, probably a scout",)


@pytest.mark.parametrize("start", [(-10, 20, 100), (-10, 20, 205)])
def test_two_acquisitions_in_one_series_are_offered_as_two(tmp_path, start):
    def acquisition(n, data):
        data.AcquisitionNumber = 9 + n // 4

    uid = generate_uid()
    positions = line(4) + line(4, start=start)
    pixels = save_series(tmp_path / "ct", positions, series=uid, change=acquisition)
    assert [(s.uid, s.slices) for s in list_series(tmp_path)] == [(f"{uid}/1", 4), (f"{uid}/2", 4)]
    with pytest.raises(VolumeError, match=f"choose it by --series .*{uid}/2"):
        read_volume(tmp_path)
    for n in range(2):
        volume = read_volume(tmp_path, f"{uid}/{n + 1}")
        assert (volume.hu == hu_of(pixels[4 * n : 4 * n + 4])).all()
        mask = np.ones(volume.hu.shape, np.uint8)
        write_mask(tmp_path / f"{n}.dcm", mask, volume.geometry, ())
    assert read_volume(tmp_path / "ct" / "1-001").hu.shape[0] == 4


def test_acquisitions_that_make_one_volume_stay_one(tmp_path):
    def acquisition(n, data):
        data.AcquisitionNumber = n

    save_series(tmp_path, line(4), change=acquisition)
    assert read_volume(tmp_path).hu.shape[0] == 4


@pytest.mark.parametrize("tag", ["PixelSpacing", "SliceThickness", "RescaleSlope"])
def test_a_decimal_comma_is_named_with_its_tag(tmp_path, tag):
    save_series(tmp_path, line(2))
    path = tmp_path / "1-001"
    header = pydicom.dcmread(path)
    setattr(header, tag, ["0.5", "0.5"] if tag == "PixelSpacing" else "0.5")
    header.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0,5"))
    with pytest.raises(VolumeError, match=f"{path}: its {tag} is no number.*comma"):
        read_volume(tmp_path)
