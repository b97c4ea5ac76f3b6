"""Label files, names and colours."""

import json

import nibabel as nib
import numpy as np
import pytest
from synthetic import affine_of, distinct, save_nifti

from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label, default_colour, labels_for, load_names
from napari_diffseg.io.volume import read_labels, read_volume, write_mask


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
    for part in (False, True):
        with pytest.raises(VolumeError, match="another grid"):
            read_labels(tmp_path / "labels.nii.gz", geometry, part=part)


def test_labels_on_an_aligned_part_of_the_grid_are_placed(tmp_path):
    affine = affine_of((0, 1, 2), (1, -1, 1), degrees=(4, 0, 9))
    geometry = Geometry.from_affine(affine, (6, 7, 8))
    whole = np.zeros((6, 7, 8), np.uint8)
    whole[1:4, 2:6, 3:8] = distinct((3, 4, 5), np.uint8) + 1
    image = nib.Nifti1Image(whole, affine).slicer[1:4, 2:6, 3:8]
    nib.save(image.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]])), tmp_path / "part.nii.gz")
    found = read_labels(tmp_path / "part.nii.gz", geometry, part=True)
    assert (found.mask == geometry.to_canonical(whole)).all()
    with pytest.raises(VolumeError, match="another grid"):
        read_labels(tmp_path / "part.nii.gz", geometry)


def test_labels_that_were_quantised_are_rounded(tmp_path):
    exact = np.arange(24).reshape(2, 3, 4) % 3
    noisy = np.array([0.0, 0.988, 2.004], np.float32)[exact]
    save_nifti(tmp_path / "labels.nii.gz", noisy, np.diag([-1.0, -1, 1, 1]))
    found = read_labels(tmp_path / "labels.nii.gz")
    assert (found.mask == exact.T).all()
    save_nifti(tmp_path / "image.nii.gz", noisy * 0.97, np.diag([-1.0, -1, 1, 1]))
    with pytest.raises(VolumeError, match="fractions"):
        read_labels(tmp_path / "image.nii.gz")


def test_names_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"foie gras é": 1}), encoding="utf-8-sig")
    assert load_names(path) == {1: "foie gras é"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"liver": 1, "liver": 2}', "key 'liver' comes twice"),
        ('{"spleen": 1,\n"left\\lung": 2}', "line 2 holds a backslash"),
        ('{"spleen": 1,\n"lung" 2}', "line 2 is not JSON"),
        (b'{"\xe9": 1}', "not UTF-8"),
    ],
)
def test_what_is_wrong_with_names_is_said(tmp_path, content, words):
    path = tmp_path / "labels.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(VolumeError, match=words) as caught:
        load_names(path)
    assert "\n" not in str(caught.value)


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


def test_labels_of_another_grid_are_resampled_when_asked(tmp_path):
    fine = Geometry.from_affine(np.diag([-1.0, -1.0, 2.0, 1.0]), (20, 16, 10))
    mask = np.zeros(fine.canonical_shape, np.uint8)
    mask[2:6, 4:12, 6:14] = 3
    path = tmp_path / "fine.nii.gz"
    write_mask(path, mask, fine, ())
    affine = np.diag([-2.0, -2.0, 4.0, 1.0])
    affine[:3, 3] = (-0.5, -0.5, 1)  # the centre of each block of 2 x 2 x 2 voxels
    coarse = Geometry.from_affine(affine, (10, 8, 5))
    with pytest.raises(VolumeError, match=r"another grid .* or ask for resampling"):
        read_labels(path, coarse)
    found = read_labels(path, coarse, resample=True)
    expected = np.zeros(coarse.canonical_shape, np.uint8)
    expected[1:3, 2:6, 3:7] = 3
    assert np.array_equal(found.mask, expected)
    affine[:3, 3] = 1000
    elsewhere = Geometry.from_affine(affine, (10, 8, 5))
    with pytest.raises(VolumeError, match="outside of the volume"):
        read_labels(path, elsewhere, resample=True)
