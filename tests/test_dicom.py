"""CT series and DICOM-SEG: real and made-up series, re-read by highdicom and SimpleITK."""

from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from napari_diffseg.volume import (
    Label,
    VolumeError,
    list_series,
    read_labels,
    read_volume,
    write_mask,
)

REAL = Path(__file__).parents[2] / "shared" / "data" / "dicom" / "totalseg-example"
LABELS = (
    Label(1, "liver", (221, 130, 101)),
    Label(2, "left kidney", (0, 51, 255)),
    Label(3, "Ösophagus 食道", (200, 200, 0)),
)
STUDY, FRAME = generate_uid(), generate_uid()


def stored(shape):
    """12-bit values (k, rows, columns) in which every voxel differs from those around it."""
    return (np.arange(np.prod(shape)) % 4093).astype(np.uint16).reshape(shape)


def jpeg_lossless(path, plane):
    """Encode a plane as scanners most often do; pydicom has no encoder for it, ITK's GDCM has."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(plane[None]))
    data = pydicom.dcmread(path)
    path.unlink()
    assert data.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return data.PixelData


def save_series(
    folder,
    positions,
    *,
    rows=4,
    columns=5,
    series=None,
    number=1,
    orientation=(1, 0, 0, 0, 1, 0),
    syntax=ExplicitVRLittleEndian,
    names=None,
    change=None,
):
    """Write one slice for each position, in (L, P, S) mm; HU = stored - 1024."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    pixels = stored((len(positions), rows, columns))
    for n, position in enumerate(positions):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / (names[n] if names else f"{number}-{n:03}")
        data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SpecificCharacterSet = "ISO_IR 100"
        data.PatientName, data.PatientID = "DOE^JÄNE", "4711"
        data.PatientBirthDate, data.PatientSex = "", ""
        data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, series
        data.FrameOfReferenceUID, data.Modality = FRAME, "CT"
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "", "", ""
        data.ReferringPhysicianName, data.PositionReferenceIndicator = "", ""
        data.SeriesNumber, data.InstanceNumber = number, n + 1
        data.SeriesDescription = f"series {number}"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImagePositionPatient = [f"{p:.6g}" for p in position]
        data.ImageOrientationPatient = [f"{o:.10g}" for o in orientation]
        data.PixelSpacing, data.SliceThickness = [0.7, 0.9], 9
        data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.PixelRepresentation = 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = pixels[n].tobytes()
        if change:
            change(n, data)
        if syntax == JPEGLosslessSV1:
            data.PixelData = jpeg_lossless(folder / "frame.dcm", pixels[n])
            data["PixelData"].is_undefined_length = True
            meta.TransferSyntaxUID = syntax
        elif syntax.is_compressed:
            data.compress(syntax, generate_instance_uid=False)
        else:
            meta.TransferSyntaxUID = syntax
        data.save_as(path, enforce_file_format=True)
    return pixels


def line(count, step=(0, 0, 2.5), start=(-10, 20, 100)):
    return [np.array(start, float) + n * np.array(step, float) for n in range(count)]


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
    assert geometry.notes == ("gantry tilt 12.0°",)
    np.testing.assert_allclose(geometry.affine[:3, 2], [0, 0, 2.5], atol=1e-6)
    write_mask(tmp_path / "m.nii.gz", np.ones((5, 4, 5), np.uint8), geometry, ())
    np.testing.assert_allclose(nib.load(tmp_path / "m.nii.gz").affine, geometry.affine, atol=1e-4)


def test_uneven_spacing_is_named(tmp_path):
    positions = line(6)
    del positions[3]
    save_series(tmp_path, positions)
    geometry = read_volume(tmp_path).geometry
    assert geometry.notes == ("uneven slice spacing 2.5 to 5 mm",)
    assert geometry.spacing[0] == pytest.approx(12.5 / 4)


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

    pixels = save_series(tmp_path, line(3))
    orientation = (0, 1, 0, 0, 0, -1)
    save_series(tmp_path, line(1), number=2, orientation=orientation, change=localiser)
    save_series(tmp_path, line(1), number=3, change=dose_report)
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


def deleting(name):
    return lambda n, data: delattr(data, name)


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
        (deleting("ImageOrientationPatient"), "no position, orientation or spacing"),
        (deleting("RescaleSlope"), "no rescale to HU"),
        (setting(Modality="CT", ImageOrientationPatient=[0] * 6), "mixes slices"),
        (lambda n, data: setattr(data, "ImageOrientationPatient", [0] * 6), "no usable orient"),
        (lambda n, data: setattr(data, "Modality", "MR"), "only MR"),
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


def test_one_dicom_file_is_no_volume(tmp_path):
    save_series(tmp_path, line(2), names=["a.dcm", "b.dcm"])
    refused(tmp_path / "a.dcm", "give the folder")
    with pytest.raises(VolumeError, match="no DICOM-SEG"):
        read_labels(tmp_path / "a.dcm")


def test_nothing_that_names_the_patient_is_kept(tmp_path):
    save_series(tmp_path, line(3))
    volume = read_volume(tmp_path)
    content = repr(volume) + repr(volume.geometry.reference) + volume.name
    for word in ("DOE", "4711", str(tmp_path)):
        assert word not in content


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
    assert (found.PatientID, found.StudyInstanceUID) == ("4711", STUDY)
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
    write_mask(tmp_path / "bone.nii.gz", mask, volume.geometry, LABELS)
    again = sitk.ReadImage(str(tmp_path / "bone.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), mask)
    np.testing.assert_allclose(again.GetOrigin(), second.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(again.GetDirection(), second.GetDirection(), atol=1e-6)
