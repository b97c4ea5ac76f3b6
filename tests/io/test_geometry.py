"""Every voxel lands where it belongs: re-read with a second library."""

import tempfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import ORIENTATIONS, affine_of, distinct, save_nifti

from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import labels_for
from napari_diffseg.io.volume import read_labels, read_volume, write_mask

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


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
    image.set_qform(affine_of((0, 1, 2), (1, 1, 1), origin=(-20, 81, 7.5)), 1)
    nib.save(image, tmp_path / "ct.nii")
    geometry = read_volume(tmp_path / "ct.nii").geometry
    assert geometry.notes == ("qform and sform lie 50 mm apart; the sform is used",)
    np.testing.assert_allclose(geometry.affine, image.get_sform())


@pytest.mark.parametrize(
    ("unit", "factor", "name"), [("meter", 1e-3, "metres"), ("micron", 1e3, "microns")]
)
def test_metres_and_microns_are_converted(tmp_path, unit, factor, name):
    affine = affine_of((1, 0, 2), (-1, 1, 1), degrees=(3, 0, 9))
    stored = np.diag([factor] * 3 + [1]) @ affine
    image = nib.Nifti1Image(distinct((4, 3, 5)), stored)
    image.header.set_xyzt_units(unit)
    image.set_qform(stored, 1)
    nib.save(image, tmp_path / "ct.nii.gz")
    volume = read_volume(tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(volume.geometry.affine, affine, rtol=1e-5, atol=1e-4)
    assert volume.geometry.notes == (f"lengths in {name} are converted to millimetres",)
    # A mask lies on its source for readers that convert and for those that do not.
    write_mask(tmp_path / "m.nii.gz", volume.hu.astype(np.uint8), volume.geometry, ())
    again = nib.load(tmp_path / "m.nii.gz")
    assert again.header.get_xyzt_units()[0] == unit
    np.testing.assert_array_equal(again.affine, image.affine)
    write_mask(tmp_path / "m.mha", volume.hu.astype(np.uint8), volume.geometry, ())
    spacing = sitk.ReadImage(str(tmp_path / "m.mha")).GetSpacing()
    np.testing.assert_allclose(spacing, (1.5, 0.75, 3), rtol=1e-5)


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
