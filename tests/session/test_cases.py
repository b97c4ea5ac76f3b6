"""Lists of cases: CSV, JSON, nnU-Net's layout, sessions."""

import json

import nibabel as nib
import numpy as np
import pytest
from session_tools import tiny_backbone

from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import read_volume
from napari_diffseg.session.cases import CasesError, painted_slices, read_cases
from napari_diffseg.session.session import Session

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])


def save(path, mask):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(mask, np.uint8), AFFINE), path)
    return path


@pytest.fixture
def folder(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 9)).astype(np.int16)
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(hu + (name == "b"), AFFINE), tmp_path / f"{name}.nii.gz")
    mask = np.zeros((12, 10, 9), np.uint8)
    mask[3:6, 3:6, 4], mask[6:8, 6:8, 6] = 1, 2
    save(tmp_path / "la.nii.gz", mask)
    save(tmp_path / "lb.nii.gz", mask == 1)
    return tmp_path


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("separator", [",", ";"])
def test_csv(folder, separator):
    text = "volume,labels,slices\na.nii.gz,la.nii.gz,4 6\nb.nii.gz,lb.nii.gz,\n"
    path = write(folder, "cases.csv", text.replace(",", separator))
    a, b = (case() for case in read_cases(path, {1: "liver", 2: "spleen"}))
    assert [(slice_.z, slice_.full) for slice_ in a.painted] == [(4, True), (6, True)]
    assert [label.name for label in a.labels] == ["liver", "spleen"]
    assert [slice_.z for slice_ in b.painted] == [4]
    # Nobody says that the second one was looked through for a spleen.
    assert [label.name for label in b.labels] == ["liver"]
    assert a.painted[0].mask.sum() == 9


def test_json_and_all_slices(folder):
    rows = [{"volume": "a.nii.gz", "labels": "la.nii.gz", "slices": "all"}]
    (case,) = read_cases(write(folder, "cases.json", json.dumps(rows)))
    assert len(case().painted) == 9
    rows[0]["slices"] = [6, 4]
    (case,) = read_cases(write(folder, "cases.json", json.dumps(rows)))
    assert [slice_.z for slice_ in case().painted] == [4, 6]


def test_nnunet_layout_knows_every_label_and_ignores_what_is_not_labelled(folder):
    images, labels = folder / "imagesTr", folder / "labelsTr"
    images.mkdir()
    (folder / "a.nii.gz").rename(images / "p1_0000.nii.gz")
    mask = np.zeros((12, 10, 9), np.uint8)
    mask[..., :3] = 3  # nobody looked at three slices
    mask[:6, :, 4], mask[2, 2, 4] = 3, 1
    save(labels / "p1.nii.gz", mask)
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 3},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    write(folder, "dataset.json", json.dumps(about))
    (files,) = read_cases(folder)
    case = files()
    assert [label.name for label in case.labels] == ["liver", "spleen"]
    assert [slice_.z for slice_ in case.painted] == [3, 4, 5, 6, 7, 8]
    scribbled = case.painted[1]
    assert not scribbled.full
    assert np.count_nonzero(scribbled.mask == 1) == 1
    assert np.count_nonzero(scribbled.mask == 0) == 59  # unknown
    assert np.count_nonzero(scribbled.mask == 255) == 60  # painted background


def test_a_volume_without_labels_is_learnt_from_its_session(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path / "home"))
    path = write(folder, "cases.csv", "volume\na.nii.gz\n")
    (case,) = read_cases(path)
    with pytest.raises(CasesError, match="no session"):
        case()
    volume = read_volume(folder / "a.nii.gz")
    with Session(volume, [Label(5, "tumour", (1, 2, 3))], tiny_backbone()) as session:
        session.paint.set_slice(4, np.full(volume.hu.shape[1:], 5, np.uint8))
    found = case()
    assert [label.name for label in found.labels] == ["tumour"]
    assert [slice_.z for slice_ in found.painted] == [4]
    assert case().labels == found.labels  # the session is closed again


def test_a_whole_segmentation_is_told_from_painted_slices():
    mask = np.zeros((40, 16, 16), np.uint8)
    for z in range(10, 30):
        mask[z, : 8 - abs(z - 20) // 2] = 1
    assert painted_slices(mask) == range(40)
    cut = mask.copy()
    cut[26:] = 0
    cut[10:16] = 0
    assert painted_slices(cut) == list(range(16, 26))  # it does not taper off
    mask[:, :3] = 2  # leaves the volume at both ends
    assert painted_slices(mask) == range(40)
    assert painted_slices(mask[:5]) == list(range(5))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.csv", "volume,labels\nmissing.nii.gz,la.nii.gz\n", "missing.nii.gz does not exist"),
        ("c.csv", "volume,labels\na.nii.gz,la.nii.gz\na.nii.gz,lb.nii.gz\n", "listed twice"),
        ("c.csv", "image,label\na.nii.gz,la.nii.gz\n", "unknown entry 'image'"),
        ("c.csv", "volume,slices\na.nii.gz,first\n", "neither 'all' nor indices"),
        ("c.csv", "", "lists no case"),
        ("c.json", "{}", "no list of objects"),
        ("c.json", "[", "is not JSON"),
        ("c.csv", "volume,labels,slices\na.nii.gz,la.nii.gz,40\n", "slice 40 is named"),
        ("c.csv", "volume,labels,slices\na.nii.gz,la.nii.gz,0\n", "holds no label"),
    ],
)
def test_bad_lists_are_refused_in_one_line(folder, name, text, says):
    path = write(folder, name, text)
    with pytest.raises(CasesError, match=says):
        [case() for case in read_cases(path)]


def test_a_folder_without_dataset_json_is_refused(folder):
    with pytest.raises(CasesError, match=r"dataset\.json"):
        read_cases(folder)
