"""Files that are in order and still not what a reader may expect: the right value, or a refusal."""

import itertools
import shutil
import zipfile

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.fileset import FileSet
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from synthetic import affine_of, distinct, line, save_nifti, save_series

from napari_diffseg.io import Label, VolumeError, read_labels, read_volume, write_mask


def hu_of(pixels):
    return pixels.astype(np.int16)[:, ::1, :] - 1024


def placed(volume, points_ras):
    """HU of a volume at points in RAS+ mm, by its own affine."""
    inverse = np.linalg.inv(volume.geometry.canonical_affine)
    index = np.rint(points_ras @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    return volume.hu[tuple(index.T)]


def test_qform_and_sform_50_mm_apart_say_which_is_used(tmp_path):
    array, affine = distinct((4, 5, 6)), affine_of((0, 1, 2), (1, 1, 1))
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    moved = affine.copy()
    moved[0, 3] += 50
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "ct.nii.gz")
    volume = read_volume(tmp_path / "ct.nii.gz")
    assert volume.geometry.notes == ("qform and sform lie 50 mm apart; the sform is used",)
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    ("unit", "millimetres"), [("m", 1000), ("cm", 10), ("um", 0.001), ("µm", 0.001), ("mm", 1)]
)
def test_units_of_nrrd_are_converted(tmp_path, unit, millimetres):
    array, steps = distinct((3, 4, 5)), np.diag([0.5, 2, 3])
    header = {"space": "LPS", "space directions": steps, "space origin": [1.0, 2, 3]}
    path = tmp_path / "ct.nhdr"
    nrrd.write(str(path), array, header | {"space units": ["xx"] * 3})
    path.write_bytes(path.read_bytes().replace(b'"xx"', f'"{unit}"'.encode()))
    volume = read_volume(path)
    expected = np.diag([-1, -1, 1]) @ steps * millimetres
    np.testing.assert_allclose(volume.geometry.affine[:3, :3], expected)
    np.testing.assert_allclose(volume.geometry.affine[:3, 3], np.array([-1, -2, 3]) * millimetres)
    said = () if unit == "mm" else (f"lengths in {unit} are converted to millimetres",)
    assert volume.geometry.notes == said
    write_mask(tmp_path / "m.nrrd", (volume.hu > 9).astype(np.uint8), volume.geometry, ())
    again = sitk.ReadImage(str(tmp_path / "m.nrrd"))
    np.testing.assert_allclose(again.GetSpacing(), steps.diagonal() * millimetres)


@pytest.mark.parametrize("padding", [-3024, -2000, 32767])
def test_padding_and_metal_stay_as_they_are(tmp_path, padding):
    array = np.full((8, 9, 10), 40, np.int16)
    array[0], array[1] = padding, -1000
    save_nifti(tmp_path / "ct.nii.gz", array, affine_of((0, 1, 2), (1, 1, 1)))
    volume = read_volume(tmp_path / "ct.nii.gz")
    assert volume.hu.dtype == np.int16
    assert (volume.geometry.from_canonical(volume.hu) == array).all()


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((64, 48, 2000), (6.0, 6.0, 0.5)),
        ((2048, 2048, 2), (0.2, 0.2, 1.0)),
        ((64, 64, 20), (0.5, 0.5, 10.0)),
        ((512, 300, 3), (0.7, 1.1, 2.0)),
        ((40, 50, 1), (1.0, 1.0, 5.0)),
    ],
    ids=["2,000 slices", "2,048 pixels", "anisotropy 20:1", "not square", "one slice"],
)
def test_sizes_and_spacings_at_the_ends_of_what_there_is(tmp_path, shape, spacing):
    array = distinct(shape)
    save_nifti(tmp_path / "ct.nii", array, affine_of((0, 1, 2), (-1, 1, 1), spacing))
    volume = read_volume(tmp_path / "ct.nii")
    assert (volume.geometry.from_canonical(volume.hu) == array).all()
    np.testing.assert_allclose(volume.geometry.spacing, spacing[::-1], rtol=1e-6)
    mask = (volume.hu % 7).astype(np.uint8) % 2
    write_mask(tmp_path / "m.nii", mask, volume.geometry, ())
    assert (read_labels(tmp_path / "m.nii", volume.geometry).mask == mask).all()


# Row and column directions of a patient lying on the back or on the face, head or feet first; the
# table moves along z in patient coordinates all the same.
LYING = {
    "HFS": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
    "HFP": ((-1, 0, 0, 0, -1, 0), (0, 0, 2.5)),
    "FFS": ((1, 0, 0, 0, 1, 0), (0, 0, -2.5)),
    "FFP": ((-1, 0, 0, 0, -1, 0), (0, 0, -2.5)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (2.5, 0, 0)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 2.5, 0)),
}


@pytest.mark.parametrize("lying", LYING)
def test_a_patient_lying_anyhow_comes_out_the_same_way_up(tmp_path, lying):
    orientation, step = LYING[lying]
    count, rows, columns = 5, 4, 6
    positions = line(count, step)
    pixels = save_series(
        tmp_path, positions, rows=rows, columns=columns, orientation=orientation,
        change=lambda n, data: setattr(data, "PatientPosition", lying[:3]),
    )  # fmt: skip
    volume = read_volume(tmp_path)
    along_row, along_column = np.reshape(orientation, (2, 3))
    for k, r, c in itertools.product(range(count), range(rows), range(columns)):
        # 0.7 mm between rows, 0.9 mm between columns; LPS to RAS
        point = positions[k] + along_row * 0.9 * c + along_column * 0.7 * r
        (value,) = placed(volume, point[None] * [-1, -1, 1])
        assert value == int(pixels[k, r, c]) - 1024


def test_positions_twice_are_refused_and_overlapping_slices_read(tmp_path):
    pixels = save_series(tmp_path / "thick", line(5, (0, 0, 2)), change=None)  # 9 mm thick
    volume = read_volume(tmp_path / "thick")
    assert volume.geometry.spacing[0] == pytest.approx(2)
    assert (volume.hu == hu_of(pixels)).all()
    save_series(tmp_path / "twice", [*line(5), line(5)[2]])
    with pytest.raises(VolumeError, match="two slices at one position"):
        read_volume(tmp_path / "twice")


@pytest.mark.parametrize("turned", ["transverse", "prone", "sagittal"])
def test_a_missing_slice_leaves_the_others_where_they_are(tmp_path, turned):
    """A place for it is filled in from its neighbours."""
    turn, step, gaps = {
        "transverse": ((1, 0, 0, 0, 1, 0), (0, 0, 2.5), "4, 7, 8"),
        "prone": ((-1, 0, 0, 0, -1, 0), (0, 0, -2.5), "2, 3, 6"),
        "sagittal": ((0, 1, 0, 0, 0, -1), (-2.5, 0, 0), "2, 3, 6"),
    }[turned]
    kept = [0, 1, 2, 3, 5, 6, 9, 10]
    whole = line(11, step)
    pixels = save_series(tmp_path / "ct", [whole[k] for k in kept], orientation=turn)
    volume = read_volume(tmp_path / "ct")
    assert volume.geometry.notes == (
        f"slices {gaps} are missing in the series and filled in from the neighbours",
    )
    assert sorted(np.round(volume.geometry.spacing, 9)) == [0.7, 0.9, 2.5]
    along_row, along_column = np.reshape(turn, (2, 3))
    for plane, k in zip(pixels, kept, strict=True):
        for r, c in np.ndindex(plane.shape):
            point = whole[k] + along_row * 0.9 * c + along_column * 0.7 * r
            assert placed(volume, point[None] * [-1, -1, 1]) == int(plane[r, c]) - 1024
    point = whole[7][None] * [-1, -1, 1]  # a third of the way from 6 to 9
    mean = (2 * int(pixels[5, 0, 0]) + int(pixels[6, 0, 0])) / 3 - 1024
    assert placed(volume, point) == np.rint(mean)

    geometry = volume.geometry
    mask = np.ones(volume.hu.shape, np.uint8)
    for ending in (".nii.gz", ".mha", ".seg.nrrd", ".dcm", ".rtstruct.dcm"):
        write_mask(tmp_path / f"m{ending}", mask, geometry, [Label(1, "liver", (1, 2, 3))])
        assert (read_labels(tmp_path / f"m{ending}", geometry).mask == 1).all()
    # Each frame lies in its place, and those of the series' own slices refer to them.
    files = {
        tuple(map(float, pydicom.dcmread(file).ImagePositionPatient)): file
        for file in (tmp_path / "ct").iterdir()
    }
    frames = pydicom.dcmread(tmp_path / "m.dcm").PerFrameFunctionalGroupsSequence
    seen = []
    for frame in frames:
        place = tuple(map(float, frame.PlanePositionSequence[0].ImagePositionPatient))
        seen.append(place)
        source = frame.get("DerivationImageSequence")
        assert bool(source) == (place in files)
        if source:
            uid = source[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            assert uid == pydicom.dcmread(files[place]).SOPInstanceUID
    assert sorted(seen) == sorted(map(tuple, whole))


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 0.9999, 0.0141), (1, 0, 0, 0, 1, 0)])
def test_masks_of_directions_that_are_rounded_open_in_itk(tmp_path, orientation):
    """Without a qform ITK opens no NIfTI that is sheared ever so little."""
    save_series(tmp_path / "ct", line(9, (0.002, -0.004, 2.5)), orientation=orientation)
    volume = read_volume(tmp_path / "ct")
    assert not [note for note in volume.geometry.notes if "sheared" in note]
    write_mask(tmp_path / "m.nii.gz", (volume.hu % 2).astype(np.uint8), volume.geometry, ())
    again = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    corner = again.TransformIndexToPhysicalPoint([n - 1 for n in again.GetSize()])
    expected = volume.geometry.affine @ [*(n - 1 for n in volume.geometry.shape), 1]
    assert np.abs(np.multiply(corner, [-1, -1, 1]) - expected[:3]).max() < 0.5


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".seg.nrrd"])
def test_masks_of_a_tilted_gantry_open_in_itk_in_other_formats(tmp_path, ending):
    angle = np.radians(12)
    tilted = (1, 0, 0, 0, np.cos(angle), np.sin(angle))
    save_series(tmp_path / "ct", line(9), orientation=tilted)
    volume = read_volume(tmp_path / "ct")
    assert "choose .seg.nrrd or .mha for 3D Slicer and ITK-SNAP" in volume.geometry.notes[1]
    write_mask(tmp_path / f"m{ending}", np.ones(volume.hu.shape, np.uint8), volume.geometry, ())
    again = sitk.ReadImage(str(tmp_path / f"m{ending}"))
    corner = again.TransformIndexToPhysicalPoint([n - 1 for n in again.GetSize()])
    expected = volume.geometry.affine @ [*(n - 1 for n in volume.geometry.shape), 1]
    np.testing.assert_allclose(np.multiply(corner, [-1, -1, 1]), expected[:3], atol=1e-4)


def test_a_rescale_for_each_slice_is_applied(tmp_path):
    def rescale(n, data):
        data.RescaleSlope, data.RescaleIntercept = 1 + n, -1000 - n

    pixels = save_series(tmp_path, line(4), change=rescale).astype(int)
    volume = read_volume(tmp_path)
    for n in range(4):
        assert (volume.hu[n] == pixels[n] * (1 + n) - 1000 - n).all()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_transfer_syntaxes_give_the_values_that_were_stored(tmp_path, syntax):
    pixels = save_series(tmp_path, line(4), rows=40, columns=36, syntax=syntax)
    assert (read_volume(tmp_path).hu == hu_of(pixels)).all()


def test_big_endian_is_read(tmp_path):
    pixels = save_series(tmp_path, line(4))
    for path in tmp_path.iterdir():
        little, big = pydicom.dcmread(path), pydicom.Dataset()
        big.update(little)
        big.PixelData = np.frombuffer(little.PixelData, "<u2").astype(">u2").tobytes()
        big.file_meta, big.preamble = little.file_meta, bytes(128)
        big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, big, enforce_file_format=True)
    assert (read_volume(tmp_path).hu == hu_of(pixels)).all()


def test_a_zip_is_refused_and_its_content_read(tmp_path):
    pixels = save_series(tmp_path / "ct", line(3))
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        for file in (tmp_path / "ct").iterdir():
            archive.write(file, file.name)
    with pytest.raises(VolumeError, match=r"ct\.zip: is a zip archive; unpack it"):
        read_volume(tmp_path / "ct.zip")
    shutil.unpack_archive(tmp_path / "ct.zip", tmp_path / "out")
    assert (read_volume(tmp_path / "out").hu == hu_of(pixels)).all()


def test_a_dicomdir_opens_what_it_lists(tmp_path):
    def complete(n, data):
        data.StudyTime, data.StudyID = "120000", "1"

    pixels = save_series(tmp_path / "ct", line(3), change=complete)
    disc = FileSet()
    for file in sorted((tmp_path / "ct").iterdir()):
        disc.add(file)
    disc.write(tmp_path / "disc")
    for source in (tmp_path / "disc", tmp_path / "disc" / "DICOMDIR"):
        assert (read_volume(source).hu == hu_of(pixels)).all()


def test_secondary_captures_among_the_slices_are_left_out(tmp_path):
    def capture(n, data):
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage

    pixels = save_series(tmp_path, line(4), series="1.2.3")
    save_series(tmp_path, line(1, start=(0, 0, 101)), series="1.2.3", number=2, change=capture)
    assert (read_volume(tmp_path).hu == hu_of(pixels)).all()


@pytest.mark.parametrize("folder", ["Müller 肝臓", "a b'c", "кт"])
def test_names_in_any_language(tmp_path, folder):
    place = tmp_path / folder
    pixels = save_series(place / "dicom", line(3), names=["ä 1", "肝 2", "ж"])
    volume = read_volume(place / "dicom")
    assert (volume.hu == hu_of(pixels)).all()
    mask = (volume.hu > -1000).astype(np.uint8)
    for ending in (".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".mhd", ".dcm"):
        path = place / f"маска 1{ending}"
        write_mask(path, mask, volume.geometry, ())
        assert (read_labels(path, volume.geometry).mask == mask).all()
    assert pydicom.dcmread(place / "маска 1.dcm").Modality == "SEG"


def test_names_of_a_nifti_mask_lie_beside_it_for_itk_snap(tmp_path):
    save_nifti(tmp_path / "ct.nii", distinct((4, 5, 6)), affine_of((0, 1, 2), (1, 1, 1)))
    volume = read_volume(tmp_path / "ct.nii")
    mask = np.ones(volume.hu.shape, np.uint8)
    labels = [Label(1, 'left "kidney" – 腎', (1, 2, 3)), Label(9, "liver", (255, 0, 128))]
    write_mask(tmp_path / "m.nii.gz", mask, volume.geometry, labels)
    text = (tmp_path / "m.labels.txt").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    assert rows == [
        '0 0 0 0 0 0 0 "Clear Label"',
        "1 1 2 3 1 1 1 \"left 'kidney' – 腎\"",
        '9 255 0 128 1 1 1 "liver"',
    ]
    write_mask(tmp_path / "plain.nii.gz", mask, volume.geometry, ())  # nothing has a name
    assert not (tmp_path / "plain.labels.txt").exists()
    (tmp_path / "m2.labels.txt").mkdir()
    with pytest.raises(VolumeError, match="cannot be written"):
        write_mask(tmp_path / "m2.nii.gz", mask, volume.geometry, labels)
    assert not (tmp_path / "m2.nii.gz").exists()
