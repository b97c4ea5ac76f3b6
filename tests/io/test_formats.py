"""NRRD, Slicer's segmentations and MetaImage, re-read by the libraries of these formats."""

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from napari_diffseg.io import (
    Geometry,
    Label,
    VolumeError,
    read_labels,
    read_volume,
    write_mask,
)

SPACE = {
    "space": "left-posterior-superior",
    "space directions": np.diag([0.8, 0.8, 2.5]),
    "space origin": [1.0, 2.0, 3.0],
}
# Slicer's names may be in any language.
LABELS = (
    Label(2, "liver", (221, 130, 101)),
    Label(5, "right kidney", (0, 51, 255)),
    Label(9, "Ösophagus 食道", (10, 20, 30)),
)


@pytest.fixture
def geometry():
    return Geometry.from_affine(np.diag([-0.8, -0.8, 2.5, 1]), (4, 5, 6))


@pytest.fixture
def mask():
    mask = np.zeros((6, 5, 4), np.uint8)
    mask[1:3, 2, 1], mask[4, 0] = 2, 5
    return mask


def test_slicer_segments_have_names_colours_and_the_keys_slicer_wants(tmp_path, geometry, mask):
    path = tmp_path / "m.seg.nrrd"
    write_mask(path, mask, geometry, LABELS)
    array, header = nrrd.read(str(path))
    assert (array == geometry.from_canonical(mask)).all()
    assert header["space"] == "left-posterior-superior"
    np.testing.assert_allclose(header["space directions"], np.diag([0.8, 0.8, 2.5]))
    assert header["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    assert header["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert header["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    for n, label in enumerate(LABELS):
        assert header[f"Segment{n}_ID"] == f"Segment_{label.id}"
        assert header[f"Segment{n}_LabelValue"] == str(label.id)
        assert header[f"Segment{n}_Layer"] == "0"
        assert header[f"Segment{n}_Extent"] == "0 3 0 4 0 5"
        colour = [float(c) for c in header[f"Segment{n}_Color"].split()]
        np.testing.assert_allclose(colour, np.array(label.colour) / 255, atol=1e-6)
    assert "Segment3_ID" not in header
    # Slicer's reader stands on ITK, which must find the same keys.
    second = sitk.ReadImage(str(path))
    for n, label in enumerate(LABELS):
        assert second.GetMetaData(f"Segment{n}_Name") == label.name


def test_slicer_segments_come_back_with_names_and_colours(tmp_path, geometry, mask):
    mask[0] = 9
    write_mask(tmp_path / "m.seg.nrrd", mask, geometry, LABELS)
    found = read_labels(tmp_path / "m.seg.nrrd", geometry)
    assert (found.mask == mask).all()
    assert found.labels == LABELS


def test_unnamed_values_of_a_mask_get_a_segment_too(tmp_path, geometry, mask):
    write_mask(tmp_path / "m.seg.nrrd", mask, geometry, LABELS[:1])
    header = nrrd.read_header(str(tmp_path / "m.seg.nrrd"))
    assert (header["Segment1_Name"], header["Segment1_LabelValue"]) == ("label 5", "5")


def test_cropped_slicer_segmentation_is_put_in_its_place(tmp_path, geometry):
    header = SPACE | {
        "space origin": [0.8, 1.6, 2.5],
        "Segment0_ID": "Segment_1",
        "Segment0_Name": "spleen",
        "Segment0_LabelValue": "3",
    }
    nrrd.write(str(tmp_path / "m.seg.nrrd"), np.full((2, 3, 4), 3, np.uint8), header)
    found = read_labels(tmp_path / "m.seg.nrrd", geometry)
    expected = np.zeros((4, 5, 6), np.uint8)
    expected[1:3, 2:5, 1:5] = 3
    assert (found.mask == geometry.to_canonical(expected)).all()
    assert [label.name for label in found.labels] == ["spleen"]


def test_cropped_segmentation_beyond_the_volume_is_refused(tmp_path, geometry):
    header = SPACE | {"space origin": [-0.8, 0, 0], "Segment0_ID": "Segment_1"}
    nrrd.write(str(tmp_path / "m.seg.nrrd"), np.ones((2, 3, 4), np.uint8), header)
    with pytest.raises(VolumeError, match="another grid"):
        read_labels(tmp_path / "m.seg.nrrd", geometry)


LAYERS = SPACE | {
    "space directions": np.vstack([[np.nan] * 3, SPACE["space directions"]]),
    "kinds": ["list", "domain", "domain", "domain"],
    "Segment0_ID": "a",
    "Segment0_Name": "liver",
    "Segment0_LabelValue": "1",
    "Segment0_Layer": "0",
    "Segment1_ID": "b",
    "Segment1_Name": "spleen",
    "Segment1_Layer": "1",
}


@pytest.mark.parametrize("value", [1, 7])
def test_layers_that_do_not_overlap_are_one_mask(tmp_path, value):
    layers = np.zeros((2, 4, 5, 6), np.uint8)
    layers[0, 1, 2], layers[1, 3, 1:3] = 1, value
    path = tmp_path / "m.seg.nrrd"
    nrrd.write(str(path), layers, LAYERS | {"Segment1_LabelValue": str(value)})
    found = read_labels(path)
    expected = np.zeros((4, 5, 6), np.uint8)
    expected[1, 2], expected[3, 1:3] = 1, 2 if value == 1 else 7
    assert (found.mask == expected.T).all()
    names = [(label.id, label.name) for label in found.labels]
    assert names == [(1, "liver"), (2 if value == 1 else 7, "spleen")]
    layers[1, 1, 2, 3] = value
    nrrd.write(str(path), layers, LAYERS | {"Segment1_LabelValue": str(value)})
    with pytest.raises(VolumeError, match="overlapping segments"):
        read_labels(path, overlap="refuse")
    for overlap, wins in (("last", 2 if value == 1 else 7), ("first", 1)):
        expected[1, 2, 3] = wins
        found = read_labels(path, overlap=overlap)
        assert (found.mask == expected.T).all()
        assert found.notes == (
            f"segments overlap in 1 voxels; the {overlap} one in the file is taken there",
        )


@pytest.mark.parametrize("name", ["ct.mhd", "ct.nhdr", "ct.hdr"])
def test_a_missing_data_file_is_named(tmp_path, name):
    path = tmp_path / name
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    sitk.WriteImage(image, str(path))
    (data,) = (file for file in tmp_path.iterdir() if file != path)
    data.unlink()
    with pytest.raises(VolumeError, match=f"{name}: its data file {data.name} is missing"):
        read_volume(path)


def test_overlapping_segments_can_be_refused(tmp_path):
    header = SPACE | {
        "space directions": np.vstack([[np.nan] * 3, np.eye(3)]),
        "kinds": ["list", "domain", "domain", "domain"],
        "Segment0_ID": "a",
        "Segment1_ID": "b",
    }
    nrrd.write(str(tmp_path / "m.seg.nrrd"), np.ones((2, 3, 4, 5), np.uint8), header)
    with pytest.raises(VolumeError, match="overlapping segments"):
        read_labels(tmp_path / "m.seg.nrrd", overlap="refuse")


@pytest.mark.parametrize(
    ("array", "header", "words"),
    [
        (np.zeros((2, 3, 4)), {}, "no anatomical space"),
        (np.zeros((2, 3, 4)), {"spacings": [1, 1, 1]}, "no anatomical space"),
        (np.zeros((2, 3, 4)), SPACE | {"space": "scanner-xyz"}, "no anatomical space"),
        (np.zeros((2, 3, 4)), SPACE | {"space units": ["inch"] * 3}, "'inch'"),
        (np.zeros((2, 3, 4)), SPACE | {"space directions": np.diag([1.0, 0, 1])}, "zero"),
        (np.full((2, 3, 4), np.nan), SPACE, "NaN"),
        (
            np.zeros((3, 2, 3, 4)),
            SPACE
            | {
                "space directions": np.vstack([[np.nan] * 3, np.eye(3)]),
                "kinds": ["RGB-color", "domain", "domain", "domain"],
            },
            "colour",
        ),
        (
            np.zeros((2, 3, 4, 5)),
            SPACE | {"space directions": np.vstack([np.eye(3), [np.nan] * 3])},
            "4D",
        ),
        (
            np.zeros((3, 4)),
            SPACE | {"space directions": np.eye(3)[:2]},
            "2D",
        ),
    ],
)
def test_unusable_nrrd_is_refused_in_one_line(tmp_path, array, header, words):
    path = tmp_path / "ct.nrrd"
    nrrd.write(str(path), array, header)
    with pytest.raises(VolumeError, match=words) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("ending", [".nrrd", ".nhdr"])
@pytest.mark.parametrize(("space", "signs"), [("LPS", (-1, -1, 1)), ("LAS", (-1, 1, 1))])
def test_nrrd_of_any_encoding_and_space_is_read(tmp_path, encoding, ending, space, signs):
    path = tmp_path / f"ct{ending}"
    array = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    nrrd.write(str(path), array, SPACE | {"space": space, "encoding": encoding})
    volume = read_volume(path)
    assert (volume.geometry.from_canonical(volume.hu) == array).all()
    np.testing.assert_array_equal(volume.geometry.affine[:3, 3], np.multiply(signs, [1, 2, 3]))
    np.testing.assert_array_equal(
        volume.geometry.affine[:3, :3], np.diag(np.multiply(signs, [0.8, 0.8, 2.5]))
    )


@pytest.mark.parametrize("axis", [0, 3])
def test_nrrd_axis_of_one_is_taken_as_3d(tmp_path, axis):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    directions = np.insert(SPACE["space directions"], axis, np.nan, axis=0)
    header = SPACE | {"space directions": directions}
    nrrd.write(str(tmp_path / "ct.nrrd"), np.expand_dims(array, axis), header)
    volume = read_volume(tmp_path / "ct.nrrd")
    assert (volume.geometry.from_canonical(volume.hu) == array).all()


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_cut_off_file_is_refused(tmp_path, geometry, mask, ending):
    path = tmp_path / f"m{ending}"
    noise = np.random.default_rng(0).integers(0, 200, mask.shape, np.uint8)
    write_mask(path, noise, geometry, ())
    data = tmp_path / "m.zraw" if ending == ".mhd" else path
    data.write_bytes(data.read_bytes()[:-40])
    with pytest.raises(VolumeError) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mhd_data_file_lies_beside_it_under_the_right_name(tmp_path, geometry, mask):
    write_mask(tmp_path / "m.mhd", mask, geometry, ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.mhd", "m.zraw"]
    again = sitk.ReadImage(str(tmp_path / "m.mhd"))
    assert (geometry.from_canonical(mask) == sitk.GetArrayFromImage(again).T).all()


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii.gz"])
def test_a_flipped_byte_in_compressed_data_is_refused(tmp_path, geometry, mask, ending):
    path = tmp_path / f"m{ending}"
    noise = np.random.default_rng(0).integers(0, 200, mask.shape, np.uint8)
    write_mask(path, noise, geometry, ())
    data = tmp_path / "m.zraw" if ending == ".mhd" else path
    damaged = bytearray(data.read_bytes())
    damaged[-noise.size // 2] ^= 4
    data.write_bytes(damaged)
    with pytest.raises(VolumeError, match=r"damaged|CRC"):
        read_volume(path)


def test_a_list_of_files_must_be_whole(tmp_path):
    planes = np.arange(60, dtype=np.int16).reshape(5, 3, 4)
    metaimage(tmp_path / "ct.mhd", planes)
    head = (tmp_path / "ct.mhd").read_text().split("ElementDataFile")[0]
    names = [f"{z}.raw" for z in range(5)]
    for name, plane in zip(names, planes, strict=True):
        plane.tofile(tmp_path / name)

    def read(*listed):
        (tmp_path / "ct.mhd").write_text("\n".join([head + "ElementDataFile = LIST", *listed, ""]))
        volume = read_volume(tmp_path / "ct.mhd")
        return volume.geometry.from_canonical(volume.hu)

    assert (read(*names) == planes.T).all()
    with pytest.raises(VolumeError, match=r"ct\.mhd: lists 4 files for 5 slices"):
        read(*names[:4])
    # Without a line break after it, ITK gives whatever lay in memory for the last one.
    text = (tmp_path / "ct.mhd").read_text() + names[4]
    (tmp_path / "ct.mhd").write_text(text)
    volume = read_volume(tmp_path / "ct.mhd")
    assert (volume.geometry.from_canonical(volume.hu) == planes.T).all()
    (tmp_path / "2.raw").write_bytes(b"short")
    with pytest.raises(VolumeError, match=r"2\.raw"):
        read(*names)


def metaimage(path, array, vector=False):
    image = sitk.GetImageFromArray(array, isVector=vector)
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize(
    ("array", "vector", "words"),
    [
        (np.zeros((3, 4), np.int16), False, "2D"),
        (np.zeros((2, 3, 4, 5), np.int16), False, "4D"),
        (np.zeros((2, 3, 4, 3), np.uint8), True, "colour"),
        (np.full((2, 3, 4), np.inf, np.float32), False, "infinite"),
    ],
)
def test_unusable_metaimage_is_refused_in_one_line(tmp_path, array, vector, words):
    metaimage(tmp_path / "ct.mha", array, vector)
    with pytest.raises(VolumeError, match=words) as caught:
        read_volume(tmp_path / "ct.mha")
    assert str(tmp_path / "ct.mha") in str(caught.value)


def test_metaimage_without_orientation_is_refused(tmp_path):
    path = tmp_path / "ct.mha"
    metaimage(path, np.zeros((2, 3, 4), np.int16))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(x for x in lines if not x.startswith(b"TransformMatrix")))
    with pytest.raises(VolumeError, match="TransformMatrix"):
        read_volume(path)


def test_unknown_ending_names_those_that_work(tmp_path):
    (tmp_path / "ct.png").write_bytes(b"")
    with pytest.raises(VolumeError, match=r"ct\.png: unknown ending; use one of .*\.nii\.gz"):
        read_volume(tmp_path / "ct.png")
