"""Volumes and masks: values, refusals, and writing that never leaves half a file."""

import gzip
import shutil

import nibabel as nib
import numpy as np
import pytest
from synthetic import affine_of, distinct, save_nifti

from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.volume import Volume, read_labels, read_volume, write_mask, write_volume


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_volume_written_and_read_again_is_the_same(tmp_path, ending, dtype):
    affine = affine_of((2, 0, 1), (1, -1, 1), degrees=(5, -7, 3))
    hu = (distinct((4, 3, 2)) - 7).astype(dtype) + (0.25 if dtype == np.float32 else 0)
    geometry = Geometry.from_affine(affine, (2, 4, 3))
    hu = np.ascontiguousarray(geometry.to_canonical(hu.reshape(2, 4, 3)))
    write_volume(tmp_path / f"ct{ending}", Volume(hu, geometry, "ct"))
    again = read_volume(tmp_path / f"ct{ending}")
    assert again.name == "ct"
    assert again.hu.dtype == dtype
    assert (again.hu == hu).all()
    np.testing.assert_allclose(again.geometry.affine, affine, atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "dtype"),
    [
        (np.array([0, 4095], np.uint16), 1, -1024, np.int16),
        (np.array([-1000, 3000], np.int32), 1, 0, np.int16),
        (np.array([0, 255], np.uint8), 4, -1000, np.int16),
        (np.array([-1000, 2000], np.float32), 1, 0, np.int16),
        (np.array([-1000, 2000.5], np.float64), 1, 0, np.float32),
        (np.array([-1000, 2000], np.int16), 0.5, 0.25, np.float32),
        (np.array([-1000, 40000], np.int32), 1, 0, np.float32),
    ],
)
def test_hu_are_int16_when_they_are_whole(tmp_path, stored, slope, intercept, dtype):
    header = nib.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    header.set_data_shape((2, 3, 4))
    header.set_sform(affine_of((0, 1, 2), (1, 1, 1)), 1)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, slope, intercept
    raw = np.resize(stored, (2, 3, 4)).tobytes(order="F")
    (tmp_path / "ct.nii").write_bytes(header.binaryblock + bytes(4) + raw)
    volume = read_volume(tmp_path / "ct.nii")
    assert volume.hu.dtype == dtype
    found = np.asarray(nib.load(tmp_path / "ct.nii").dataobj)
    np.testing.assert_array_equal(volume.geometry.from_canonical(volume.hu), found)
    assert set(np.unique(volume.hu)) == set((stored.astype(float) * slope + intercept).tolist())


def test_trailing_axis_of_one_is_taken_as_3d(tmp_path):
    save_nifti(tmp_path / "ct.nii", distinct((2, 3, 4, 1)), affine_of((0, 1, 2), (1, 1, 1)))
    assert read_volume(tmp_path / "ct.nii").geometry.shape == (2, 3, 4)


def test_nifti_is_compressed_or_not_whatever_its_name(tmp_path):
    affine = affine_of((0, 1, 2), (-1, -1, 1))
    raw = save_nifti(tmp_path / "x.nii", distinct((2, 3, 4)), affine).read_bytes()
    (tmp_path / "ct.nii.gz").write_bytes(raw)
    (tmp_path / "ct.nii").write_bytes(gzip.compress(raw))
    for name in ("ct.nii.gz", "ct.nii"):
        volume = read_volume(tmp_path / name)
        assert (volume.hu == distinct((2, 3, 4)).T).all()
        np.testing.assert_allclose(volume.geometry.affine, affine)


@pytest.mark.parametrize("pair", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("ending", [".hdr", ".img"])
def test_pair_of_header_and_image_is_read(tmp_path, pair, ending):
    affine = affine_of((1, 0, 2), (-1, 1, 1), degrees=(3, 0, 9))
    nib.save(pair(distinct((4, 3, 5)), affine), tmp_path / "ct.img")
    volume = read_volume(tmp_path / f"ct{ending}")
    assert volume.name == "ct"
    found = volume.geometry.from_canonical(volume.hu)
    assert (found == distinct((4, 3, 5))).all()
    np.testing.assert_allclose(volume.geometry.affine, affine, atol=1e-5)
    mask = (volume.hu > 30).astype(np.uint8)
    write_mask(tmp_path / "m.nii.gz", mask, volume.geometry, ())
    np.testing.assert_allclose(nib.load(tmp_path / "m.nii.gz").affine, affine, atol=1e-5)


def test_analyze_is_refused(tmp_path):
    nib.save(nib.AnalyzeImage(distinct((4, 3, 5)), np.eye(4)), tmp_path / "ct.img")
    with pytest.raises(VolumeError, match="Analyze"):
        read_volume(tmp_path / "ct.img")


def nifti(array, affine=None):
    return lambda path: save_nifti(
        path, array, affine_of((0, 1, 2), (1, 1, 1)) if affine is None else affine
    )


def without_orientation(path):
    nib.save(nib.Nifti1Image(distinct((2, 3, 4)), None), path)


def singular(path):
    nib.save(nib.Nifti1Image(distinct((2, 3, 4)), affine_of((0, 1, 2), (1, 1, 1))), path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[280:328] = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], np.float32).tobytes()
    path.write_bytes(gzip.compress(raw))


def cut_off(path):
    save_nifti(path, np.random.default_rng(0).integers(0, 99, (9, 9, 9), np.int16), np.eye(4))
    path.write_bytes(path.read_bytes()[:-300])


def without_its_checksum(path):
    save_nifti(path, distinct((9, 9, 9)), np.eye(4))
    path.write_bytes(path.read_bytes()[:-4])


def in_colour(path):
    rgb = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (without_orientation, "no orientation"),
        (singular, "spacing is zero|singular"),
        (nifti(distinct((4, 5))), "2D|3D"),
        (nifti(distinct((2, 3, 4, 5))), "4D"),
        (nifti(np.full((2, 3, 4), np.nan, np.float32)), "NaN"),
        (nifti(np.full((2, 3, 4), np.inf, np.float32)), "infinite"),
        (cut_off, "cut off"),
        (without_its_checksum, "cut off"),
        (in_colour, "colour"),
        (lambda path: path.write_bytes(b"not a volume"), "cannot be read|cut off"),
        (lambda path: path.write_bytes(b""), "cannot be read|cut off"),
        (lambda path: None, "no such file"),
    ],
)
def test_unusable_nifti_is_refused_in_one_line(tmp_path, make, words):
    path = tmp_path / "ct.nii.gz"
    make(path)
    for read in (read_volume, read_labels):
        with pytest.raises(VolumeError, match=words) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_cut_off_plain_nifti_is_refused(tmp_path):
    path = save_nifti(tmp_path / "ct.nii", distinct((5, 5, 5)), np.eye(4))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(VolumeError, match=str(path)):
        read_volume(path)


@pytest.mark.parametrize(
    ("name", "mask", "words"),
    [
        ("m.nii.gz", np.full((2, 3, 4), 255, np.uint8), "0 to 254"),
        ("m.nii.gz", np.full((2, 3, 4), -1, np.int16), "0 to 254"),
        ("m.nii.gz", np.zeros((4, 3, 2), np.float32), "0 to 254"),
        ("m.nii.gz", np.zeros((4, 3, 3), np.uint8), "shape"),
        ("m.png", np.zeros((4, 3, 2), np.uint8), "unknown ending"),
        ("m.dcm", np.zeros((4, 3, 2), np.uint8), "DICOM folder"),
        ("no/such/m.nii.gz", np.zeros((4, 3, 2), np.uint8), "does not exist"),
    ],
)
def test_unusable_mask_is_refused_and_nothing_written(tmp_path, name, mask, words):
    geometry = Geometry.from_affine(np.eye(4), (2, 3, 4))
    with pytest.raises(VolumeError, match=words) as caught:
        write_mask(tmp_path / name, mask, geometry, ())
    assert str(tmp_path / name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    geometry = Geometry.from_affine(np.eye(4), (2, 3, 4))
    target = tmp_path / "m.nii.gz"
    write_mask(target, np.ones((4, 3, 2), np.uint8), geometry, ())
    before = target.read_bytes()

    def full_disk(self, stream):
        stream.write(b"half a header")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", full_disk)
    with pytest.raises(VolumeError, match=r"m\.nii\.gz: cannot be written \(No space left"):
        write_mask(target, np.zeros((4, 3, 2), np.uint8), geometry, ())
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_mask_that_reads_back_differently_is_not_kept(tmp_path, monkeypatch):
    geometry = Geometry.from_affine(np.eye(4), (2, 3, 4))
    write = nib.Nifti1Image.to_stream

    def flip_a_voxel(self, stream):
        write(nib.Nifti1Image(1 - np.asarray(self.dataobj), None, self.header), stream)

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", flip_a_voxel)
    with pytest.raises(VolumeError, match="reads back differently"):
        write_mask(tmp_path / "m.nii.gz", np.ones((4, 3, 2), np.uint8), geometry, ())
    assert list(tmp_path.iterdir()) == []


def test_no_patient_data_in_geometry(tmp_path):
    image = nib.Nifti1Image(distinct((2, 3, 4)), np.eye(4))
    image.header["descrip"] = b"DOE^JANE"
    image.header["db_name"] = b"4711"
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    nib.save(image, folder / "ct.nii")
    volume = read_volume(folder / "ct.nii")
    shutil.rmtree(folder)
    content = repr(volume.geometry) + repr(volume.geometry.reference)
    assert "DOE" not in content
    assert "4711" not in content
    assert "secret" not in content


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_a_volume_that_does_not_fit_into_memory_is_named(tmp_path, monkeypatch, error):
    path = save_nifti(tmp_path / "ct.nii", np.zeros((3, 3, 3), np.int16), np.eye(4))

    def full(*_):
        raise error

    monkeypatch.setattr("nibabel.arrayproxy.ArrayProxy.get_unscaled", full)
    with pytest.raises(VolumeError, match=r"ct\.nii: does not fit into memory; close other"):
        read_volume(path)
