"""CT series, real and made up, against SimpleITK."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from synthetic import deleting, line, save_series

from napari_diffseg.io.dicom import list_series
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.volume import read_labels, read_volume, write_mask

REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom" / "totalseg-example"


def refused(folder, words, series=None):
    with pytest.raises(VolumeError, match=words) as caught:
        read_volume(folder, series)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "DOE" not in str(caught.value)
    return str(caught.value)


def test_series_is_read_as_hu_with_its_geometry(tmp_path):
    pixels = save_series(tmp_path, line(3))
    volume = read_volume(tmp_path)
    assert volume.hu.dtype == np.int16
    assert (volume.hu == pixels.astype(int) - 1024).all()
    # PixelSpacing is between rows, then between columns; thickness is not spacing.
    assert volume.geometry.spacing == (2.5, 0.7, 0.9)
    expected = [[-0.9, 0, 0, 10], [0, -0.7, 0, -20], [0, 0, 2.5, 100], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.geometry.affine, expected, atol=1e-9)
    assert volume.geometry.notes == ()


def test_order_of_files_and_numbers_does_not_matter(tmp_path):
    positions = line(4)
    pixels = save_series(tmp_path, positions[::-1], names=["c", "a", "d", "b"])
    volume = read_volume(tmp_path)
    assert (volume.hu == pixels[::-1].astype(int) - 1024).all()
    assert volume.geometry.affine[2, 3] == 100


@pytest.mark.parametrize(
    "orientation",
    [
        (1, 0, 0, 0, 1, 0),
        (1, 0, 0, 0, 0, -1),
        (0, 1, 0, 0, 0, -1),
        (-1, 0, 0, 0, -1, 0),
        (0.8, 0.6, 0, -0.6, 0.8, 0),
        (0.96, 0, 0.28, 0, 1, 0),
    ],
)
def test_series_of_any_orientation_lies_where_simpleitk_puts_it(tmp_path, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    save_series(tmp_path, line(3, 2.5 * normal), orientation=orientation)
    volume = read_volume(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    second = reader.Execute()
    for index in np.ndindex(*volume.hu.shape):
        ras = volume.geometry.canonical_affine @ [*index, 1]
        point = (ras * [-1, -1, 1, 1])[:3].tolist()
        assert second[second.TransformPhysicalPointToIndex(point)] == volume.hu[index]


@pytest.mark.parametrize(
    "syntax",
    [RLELossless, JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, ImplicitVRLittleEndian],
)
def test_compressed_series_are_read(tmp_path, syntax):
    pixels = save_series(tmp_path, line(2), syntax=syntax, rows=64, columns=48)
    assert (read_volume(tmp_path).hu == pixels.astype(int) - 1024).all()


def test_gantry_tilt_is_named_and_kept_in_the_affine(tmp_path):
    angle = np.radians(12)
    orientation = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    save_series(tmp_path, line(5), orientation=orientation)
    geometry = read_volume(tmp_path).geometry
    assert geometry.notes == (
        "gantry tilt 12.0°",
        "choose .seg.nrrd or .mha for 3D Slicer and ITK-SNAP, which open no sheared NIfTI",
    )
    np.testing.assert_allclose(geometry.affine[:3, 2], [0, 0, 2.5], atol=1e-6)
    write_mask(tmp_path / "m.nii.gz", np.ones((5, 4, 5), np.uint8), geometry, ())
    np.testing.assert_allclose(nib.load(tmp_path / "m.nii.gz").affine, geometry.affine, atol=1e-4)


def test_uneven_spacing_is_named(tmp_path):
    positions = line(6)
    positions[3] = positions[3] + [0, 0, 0.8]
    save_series(tmp_path, positions)
    geometry = read_volume(tmp_path).geometry
    assert geometry.notes == ("uneven slice spacing 1.7 to 3.3 mm, slices lie up to 0.8 mm off",)
    assert geometry.spacing[0] == pytest.approx(2.5)


def test_two_parts_with_a_gap_are_no_volume(tmp_path):
    save_series(tmp_path, line(6) + line(6, start=(-10, 20, 205)))
    refused(tmp_path, "gap of 92.5 mm .* keep one part in the folder")


def test_one_identifier_at_several_places_loses_no_slice(tmp_path):
    uids = [generate_uid() for _ in range(6)]

    def repeated(n, data):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uids[n // 2]

    pixels = save_series(tmp_path / "ct", line(6), change=repeated)
    volume = read_volume(tmp_path / "ct")
    assert volume.hu.shape == pixels.shape
    with pytest.raises(VolumeError, match="share identifiers"):
        write_mask(tmp_path / "m.dcm", np.ones(pixels.shape, np.uint8), volume.geometry, ())


def test_slices_shifted_sideways_are_named(tmp_path):
    positions = line(5)
    positions[2] = positions[2] + [3, 0, 0]
    save_series(tmp_path, positions)
    assert read_volume(tmp_path).geometry.notes == ("slices shifted sideways by up to 3 mm",)


def test_single_slice_takes_its_thickness_and_says_so(tmp_path):
    save_series(tmp_path, line(1))
    geometry = read_volume(tmp_path).geometry
    assert geometry.spacing[0] == 9
    assert "one slice only" in geometry.notes[0]


def test_several_series_must_be_chosen(tmp_path):
    first, second = generate_uid(), generate_uid()
    save_series(tmp_path, line(3), series=first, number=2)
    pixels = save_series(tmp_path / "deeper", line(4), series=second, number=3)
    found = {series.uid: series for series in list_series(tmp_path)}
    assert {uid: series.slices for uid, series in found.items()} == {first: 3, second: 4}
    assert found[second].description == "series 3"
    assert found[second].shape == (4, 5)
    assert found[second].spacing == (2.5, 0.7, 0.9)
    message = refused(tmp_path, "--series")
    assert first in message
    assert second in message
    for choice in (second, "3"):
        assert (read_volume(tmp_path, choice).hu == pixels.astype(int) - 1024).all()
    assert first in refused(tmp_path, "no series 9", "9")


def test_localisers_and_other_modalities_are_skipped(tmp_path):
    def localiser(n, data):
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def dose_report(n, data):
        data.Modality = "SR"

    def screenshot(n, data):
        data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        del data.ImagePositionPatient

    pixels = save_series(tmp_path, line(3))
    orientation = (0, 1, 0, 0, 0, -1)
    save_series(tmp_path, line(1), number=2, orientation=orientation, change=localiser)
    save_series(tmp_path, line(1), number=3, change=dose_report)
    save_series(tmp_path, line(1), number=4, change=screenshot)
    (tmp_path / "readme.txt").write_text("not DICOM")
    assert (read_volume(tmp_path).hu == pixels.astype(int) - 1024).all()


def test_a_slice_that_lies_there_twice_counts_once(tmp_path):
    pixels = save_series(tmp_path, line(3))
    (tmp_path / "copy").write_bytes((tmp_path / "1-001").read_bytes())
    assert read_volume(tmp_path).hu.shape == pixels.shape


def test_fractional_rescale_gives_float32(tmp_path):
    def fraction(n, data):
        data.RescaleSlope = "0.5"

    pixels = save_series(tmp_path, line(3), change=fraction)
    volume = read_volume(tmp_path)
    assert volume.hu.dtype == np.float32
    assert (volume.hu == pixels * 0.5 - 1024).all()


def setting(**values):
    def change(n, data):
        if n == 1:
            for name, value in values.items():
                setattr(data, name, value)

    return change


def setting_all(**values):
    def change(n, data):
        for name, value in values.items():
            setattr(data, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "mixes slices"),
        (setting(PixelSpacing=[0.7, 0.8]), "mixes slices"),
        (setting(Rows=2, PixelData=bytes(20)), "mixes slices"),
        (setting(ImagePositionPatient=[-10, 20, 100]), "two slices at one position"),
        (setting(PixelSpacing=[0, 0.9]), "spacing of zero"),
        (setting(SamplesPerPixel=3, PhotometricInterpretation="RGB"), "colour"),
        (setting(NumberOfFrames=2), "multi-frame"),
        (setting(PixelData=bytes(6)), "cannot be read"),
        (deleting("ImagePositionPatient"), "no position, orientation or spacing"),
        (lambda n, data: n == 1 and delattr(data, "ImagePositionPatient"), "no position"),
        (setting_all(SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1"), "only multi-frame CT"),
        (deleting("ImageOrientationPatient"), "no position, orientation or spacing"),
        (deleting("RescaleSlope"), "no rescale to HU"),
        (setting(Modality="CT", ImageOrientationPatient=[0] * 6), "mixes slices"),
        (setting_all(ImageOrientationPatient=[0] * 6), "no usable orientation"),
        (setting_all(Modality="MR"), "only MR"),
    ],
)
def test_unusable_series_is_refused_in_one_line(tmp_path, change, words):
    save_series(tmp_path, line(3), change=change)
    refused(tmp_path, words)


def test_folder_without_dicom_is_refused(tmp_path):
    refused(tmp_path, "holds no files")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, "no DICOM files")
    with pytest.raises(VolumeError, match="no DICOM files"):
        list_series(tmp_path)


def test_a_slice_is_no_dicom_seg(tmp_path):
    save_series(tmp_path, line(2), names=["a.dcm", "b.dcm"])
    with pytest.raises(VolumeError, match="no DICOM-SEG"):
        read_labels(tmp_path / "a.dcm")


def test_rescale_that_differs_from_slice_to_slice_is_applied_to_each(tmp_path):
    def rescale(n, data):
        data.RescaleSlope, data.RescaleIntercept = n + 1, -1000 - n

    pixels = save_series(tmp_path, line(4), change=rescale).astype(int)
    hu = read_volume(tmp_path).hu
    for n in range(4):
        assert (hu[n] == pixels[n] * (n + 1) - 1000 - n).all()
    second = sitk.ReadImage(str(tmp_path / "1-002"))
    assert (sitk.GetArrayFromImage(second)[0] == hu[2]).all()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("high_bit", [11, 15])
def test_overlay_in_the_bits_above_a_value_is_no_part_of_it(tmp_path, syntax, signed, high_bit):
    values = np.array([[0, 1, 2, 3, 4], [100, 200, 2047, 1024, 9]] * 2, np.int16)
    values[0] -= 3 * signed

    def overlay(n, data):
        data.PixelRepresentation, data.HighBit = signed, high_bit
        with_overlay = values.astype(np.uint16) & 0x0FFF
        with_overlay[1:3, 2] |= 0x8000
        data.PixelData = with_overlay.tobytes()

    save_series(tmp_path, line(2), syntax=syntax, change=overlay)
    hu = read_volume(tmp_path).hu
    assert (hu == values.astype(int) - 1024).all()
    if syntax == ExplicitVRLittleEndian:  # GDCM keeps them after RLE
        second = sitk.ReadImage(str(tmp_path / "1-000"))
        assert (sitk.GetArrayFromImage(second)[0] == hu[0]).all()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_overlay_that_was_compressed_with_the_values_is_no_part_of_them(tmp_path, syntax):
    def overlay(n, data):
        values = np.frombuffer(data.PixelData, np.uint16) | 0x8000
        data.PixelData, data.BitsStored, data.HighBit = values.tobytes(), 16, 15

    pixels = save_series(tmp_path, line(2), syntax=syntax, change=overlay, rows=64, columns=48)
    for path in sorted(tmp_path.iterdir()):
        data = pydicom.dcmread(path)
        data.BitsStored, data.HighBit = 12, 11
        data.save_as(path)
    assert (read_volume(tmp_path).hu == pixels.astype(int) - 1024).all()


def test_nothing_that_names_the_patient_is_kept(tmp_path):
    save_series(tmp_path, line(3))
    volume = read_volume(tmp_path)
    content = repr(volume) + repr(volume.geometry.reference) + volume.name
    for word in ("DOE", "PAT-4711", str(tmp_path)):
        assert word not in content


@pytest.mark.skipif(not REAL.is_dir(), reason="the real series is not beside the checkout")
def test_real_series_is_read_as_simpleitk_reads_it(tmp_path):
    volume = read_volume(REAL)
    assert volume.geometry.notes == ()
    assert volume.hu.shape == (20, 512, 512)
    assert volume.hu.dtype == np.int16
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(REAL)))
    second = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(second), volume.hu)
    np.testing.assert_allclose(second.GetSpacing()[::-1], volume.geometry.spacing, rtol=1e-6)
    mask = (volume.hu > 200).astype(np.uint8)
    write_mask(tmp_path / "bone.nii.gz", mask, volume.geometry, ())
    again = sitk.ReadImage(str(tmp_path / "bone.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), mask)
    np.testing.assert_allclose(again.GetOrigin(), second.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(again.GetDirection(), second.GetDirection(), atol=1e-6)
