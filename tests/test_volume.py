"""Volumes and masks land where they belong: read and written against a second library."""

import gzip
import itertools
import json
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_diffseg.volume import (
    Geometry,
    Label,
    Volume,
    VolumeError,
    default_colour,
    labels_for,
    load_names,
    read_labels,
    read_volume,
    write_mask,
    write_volume,
)

ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(order, signs, spacing=(1.5, 0.75, 3.0), origin=(-20.0, 31.0, 7.5), degrees=(0, 0, 0)):
    """Affine whose source axis n runs along RAS axis order[n], then turned by the angles."""
    affine = np.eye(4)
    axes = np.zeros((3, 3))
    for n in range(3):
        axes[order[n], n] = signs[n]
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ axes * spacing
    affine[:3, 3] = origin
    return affine


def save_nifti(path, array, affine, qform=1, sform=1):
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    nib.save(image, path)
    return path


def distinct(shape, dtype=np.int16):
    """Array in which every voxel differs, so that no flip or swap goes unseen."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def at_world(image, affine_zyx, shape_zyx):
    """Values of a SimpleITK image at the world points of a canonical grid."""
    values = np.empty(shape_zyx, int)
    for index in np.ndindex(*shape_zyx):
        point = (LPS @ affine_zyx @ [*index, 1])[:3]
        values[index] = image[image.TransformPhysicalPointToIndex(point.tolist())]
    return values


def check_against_simpleitk(folder, affine, shape, ending):
    source = save_nifti(folder / "ct.nii.gz", distinct(shape), affine)
    volume = read_volume(source)
    geometry = volume.geometry
    second = sitk.ReadImage(str(source))
    assert (
        at_world(second, geometry.canonical_affine, geometry.canonical_shape) == volume.hu
    ).all()

    mask = (volume.hu % 251).astype(np.uint8)
    target = folder / f"mask{ending}"
    write_mask(target, mask, geometry, labels_for(range(1, 251)))
    again = sitk.ReadImage(str(target))
    assert again.GetSize() == second.GetSize() == shape
    np.testing.assert_allclose(again.GetOrigin(), second.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(again.GetSpacing(), second.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(again.GetDirection(), second.GetDirection(), atol=1e-5)
    assert (sitk.GetArrayFromImage(again) == sitk.GetArrayFromImage(second) % 251).all()
    assert (at_world(again, geometry.canonical_affine, geometry.canonical_shape) == mask).all()


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_axis_orientation_lands_where_simpleitk_finds_it(tmp_path, order, signs):
    check_against_simpleitk(tmp_path, affine_of(order, signs), (2, 3, 4), ".nii.gz")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.floats(-40, 40)] * 3),
    st.tuples(*[st.floats(0.3, 9)] * 3),
    st.tuples(*[st.floats(-900, 900)] * 3),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.sampled_from([".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".mhd"]),
)
def test_oblique_grids_land_where_simpleitk_finds_them(
    orientation, degrees, spacing, origin, shape, ending
):
    affine = affine_of(*orientation, spacing, origin, degrees)
    with tempfile.TemporaryDirectory() as folder:
        check_against_simpleitk(Path(folder), affine, shape, ending)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.floats(-44, 44)] * 3))
def test_canonical_order_and_back_is_exact_and_runs_up_back_and_left(orientation, degrees):
    geometry = Geometry.from_affine(affine_of(*orientation, degrees=degrees), (3, 4, 5))
    array = distinct((3, 4, 5))
    canonical = geometry.to_canonical(array)
    assert canonical.shape == geometry.canonical_shape
    assert (geometry.from_canonical(canonical) == array).all()
    assert np.shares_memory(canonical, array)
    steps = geometry.canonical_affine[:3, :3]
    np.testing.assert_allclose(np.linalg.norm(steps, axis=0), geometry.spacing)
    for index in np.ndindex(*canonical.shape):
        world = geometry.canonical_affine @ [*index, 1]
        i, j, k = np.rint(np.linalg.inv(geometry.affine) @ world)[:3].astype(int)
        assert canonical[index] == array[i, j, k]
    if max(np.abs(degrees)) < 20:
        assert steps[2, 0] > 0 > max(steps[1, 1], steps[0, 2])  # superior, posterior, left


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


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".seg.nrrd", ".mha"])
def test_sheared_grid_of_a_tilted_gantry_is_kept(tmp_path, ending):
    affine = affine_of((0, 1, 2), (-1, -1, 1))
    affine[1, 2] = 0.6
    geometry = Geometry.from_affine(affine, (3, 4, 5))
    mask = np.ascontiguousarray(geometry.to_canonical(distinct((3, 4, 5), np.uint8)))
    write_mask(tmp_path / f"m{ending}", mask, geometry, ())
    assert (read_labels(tmp_path / f"m{ending}", geometry).mask == mask).all()
    if ending == ".nii.gz":
        header = nib.load(tmp_path / "m.nii.gz").header
        assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
        np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)


def test_nifti_mask_keeps_the_qform_and_sform_of_its_source_bit_for_bit(tmp_path):
    image = nib.Nifti1Image(distinct((4, 3, 5)), None)
    image.set_qform(affine_of((1, 0, 2), (-1, 1, 1), degrees=(3, 0, 9)), 2)
    image.set_sform(affine_of((1, 0, 2), (-1, 1, 1), degrees=(3, 0.001, 9)), 4)
    nib.save(image, tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    write_mask(tmp_path / "m.nii.gz", volume.hu.astype(np.uint8), volume.geometry, ())
    mask = nib.load(tmp_path / "m.nii.gz")
    for name in ("qform_code", "sform_code", "pixdim", "quatern_b", "quatern_c", "quatern_d"):
        assert (mask.header[name] == image.header[name]).all(), name
    for name in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
        assert (mask.header[name] == image.header[name]).all(), name
    assert mask.get_data_dtype() == np.uint8


def test_disagreeing_qform_and_sform_are_named(tmp_path):
    image = nib.Nifti1Image(distinct((4, 3, 5)), affine_of((0, 1, 2), (1, 1, 1)))
    image.set_qform(affine_of((0, 1, 2), (1, 1, 1), origin=(0, 0, 0)), 1)
    nib.save(image, tmp_path / "ct.nii")
    assert read_volume(tmp_path / "ct.nii").geometry.notes == (
        "qform and sform disagree; the sform is used",
    )


def test_nrrd_mask_keeps_the_space_of_its_source(tmp_path):
    header = {
        "space": "right-anterior-superior",
        "space directions": np.diag([1.0, 2.0, 3.0]),
        "space origin": [4.0, 5.0, 6.0],
    }
    nrrd.write(str(tmp_path / "ct.nrrd"), distinct((2, 3, 4)), header)
    volume = read_volume(tmp_path / "ct.nrrd")
    np.testing.assert_array_equal(volume.geometry.affine[:3, 3], [4, 5, 6])
    write_mask(tmp_path / "m.nrrd", volume.hu.astype(np.uint8), volume.geometry, ())
    array, again = nrrd.read(str(tmp_path / "m.nrrd"))
    assert (array == distinct((2, 3, 4))).all()
    assert again["space"] == header["space"]
    np.testing.assert_array_equal(again["space directions"], header["space directions"])
    np.testing.assert_array_equal(again["space origin"], header["space origin"])


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


def test_labels_in_another_order_of_axes_are_turned_onto_the_volume(tmp_path):
    affine = affine_of((0, 1, 2), (1, 1, 1), degrees=(4, 0, 9))
    volume = read_volume(save_nifti(tmp_path / "ct.nii", distinct((3, 4, 5)), affine))
    image = nib.Nifti1Image(distinct((3, 4, 5), np.uint8), affine)
    turned = image.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    nib.save(turned, tmp_path / "labels.nii.gz")
    assert turned.shape == (4, 5, 3)
    assert (read_labels(tmp_path / "labels.nii.gz", volume.geometry).mask == volume.hu).all()


def test_labels_have_default_names_and_only_those_in_the_mask(tmp_path):
    array = np.zeros((3, 4, 5), np.float64)
    array[0, 0, 0], array[1, 1, 1] = 2, 254
    save_nifti(tmp_path / "labels.nii.gz", array, affine_of((0, 1, 2), (1, 1, 1)))
    found = read_labels(tmp_path / "labels.nii.gz")
    assert found.mask.dtype == np.uint8
    assert found.labels == (
        Label(2, "label 2", default_colour(2)),
        Label(254, "label 254", default_colour(254)),
    )


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


def in_microns(path):
    image = nib.Nifti1Image(distinct((2, 3, 4)), np.eye(4))
    image.header.set_xyzt_units("micron")
    nib.save(image, path)


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
        (in_microns, "millimetres"),
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
    ("array", "words"),
    [
        (np.full((2, 3, 4), 255, np.uint8), "outside 0 to 254"),
        (np.full((2, 3, 4), 1000, np.int16), "outside 0 to 254"),
        (np.full((2, 3, 4), -1, np.int16), "outside 0 to 254"),
        (np.full((2, 3, 4), 1.5, np.float32), "fractions"),
    ],
)
def test_unusable_labels_are_refused(tmp_path, array, words):
    save_nifti(tmp_path / "labels.nii.gz", array, np.eye(4))
    with pytest.raises(VolumeError, match=words) as caught:
        read_labels(tmp_path / "labels.nii.gz")
    assert "labels.nii.gz" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((2, 3, 5), affine_of((0, 1, 2), (1, 1, 1))),
        ((2, 3, 4), affine_of((0, 1, 2), (1, 1, 1), spacing=(1.5, 0.75, 2.9))),
        ((2, 3, 4), affine_of((0, 1, 2), (1, 1, 1), origin=(-20, 31, 8.5))),
        ((2, 3, 4), affine_of((0, 1, 2), (1, 1, 1), degrees=(0, 9, 0))),
        ((2, 3, 4), affine_of((0, 1, 2), (1, 1, -1))),
    ],
)
def test_labels_on_another_grid_are_refused(tmp_path, shape, affine):
    geometry = Geometry.from_affine(affine_of((0, 1, 2), (1, 1, 1)), (2, 3, 4))
    save_nifti(tmp_path / "labels.nii.gz", np.ones(shape, np.uint8), affine)
    with pytest.raises(VolumeError, match="another grid"):
        read_labels(tmp_path / "labels.nii.gz", geometry)


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


@pytest.mark.parametrize(
    "affine",
    [
        np.zeros((4, 4)),
        np.diag([1.0, 0.0, 1.0, 1.0]),
        np.diag([1.0, np.nan, 1.0, 1.0]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    ],
)
def test_degenerate_affine_is_no_geometry(affine):
    with pytest.raises(VolumeError):
        Geometry.from_affine(affine, (2, 3, 4))


def test_names_are_read_either_way_round(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"background": 0, "spleen": 3, "liver": 1}))
    assert load_names(path) == {1: "liver", 3: "spleen"}
    path.write_text(json.dumps({"1": "liver", "3": "spleen"}))
    assert load_names(path) == {1: "liver", 3: "spleen"}


@pytest.mark.parametrize(
    "content", ["[1]", "{", '{"liver": 300}', '{"liver": 1.5}', '{"x": "y"}', '{"a": 1, "b": 1}']
)
def test_unusable_names_are_refused(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(VolumeError, match=r"labels\.json"):
        load_names(path)


def test_colours_differ_and_names_win():
    colours = [default_colour(n) for n in range(1, 31)]
    assert len(set(colours)) == 30
    assert all(0 <= c <= 255 for colour in colours for c in colour)
    known = [Label(2, "old", (1, 2, 3))]
    assert labels_for([0, 2, 7, 255], known, {2: "spleen"}) == (
        Label(2, "spleen", (1, 2, 3)),
        Label(7, "label 7", default_colour(7)),
    )


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
