"""Volumes by path, pattern, folder and list, and what their cases are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import line, save_series

from napari_diffseg.io import VolumeError, find_volumes


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def _found(*words: str, skip: Path | None = None) -> dict[str, str]:
    return {volume.name: volume.path.as_posix() for volume in find_volumes(words, skip)}


def test_paths_keep_their_order_and_come_once():
    _touch("b.nii.gz", "a.mha")
    words = ["b.nii.gz", "gone.nii", "a.mha", "./b.nii.gz", "*.nii.gz"]
    assert [volume.name for volume in find_volumes(words)] == ["b", "gone", "a"]


def test_folder_of_images():
    _touch("data/b.nii.gz", "data/a.nrrd", "data/.c.nii.gz", "data/d.seg.nrrd", "data/notes.txt")
    _touch("data/e.hdr", "data/e.img", "data/inner/f.nii.gz")
    assert _found("data") == {"a": "data/a.nrrd", "b": "data/b.nii.gz", "e": "data/e.hdr"}


def test_nnunet_layout():
    _touch("set/imagesTs/liver_1_0000.nii.gz", "set/imagesTs/liver_2_0000.nii.gz")
    _touch("set/imagesTr/liver_3_0000.nii.gz", "set/labelsTr/liver_3.nii.gz")
    expected = {f"liver_{n}": f"set/imagesTs/liver_{n}_0000.nii.gz" for n in (1, 2)}
    assert _found("set") == _found("set/imagesTs") == _found("set/imagesTs/*.nii.gz") == expected


def test_pattern_names_cases_by_folder_where_all_files_have_one_name():
    _touch("data/s1/ct.nii.gz", "data/s2/ct.nii.gz", "data/s2/labels.nii.gz")
    expected = {"s1": "data/s1/ct.nii.gz", "s2": "data/s2/ct.nii.gz"}
    assert _found("data/*/ct.nii.gz") == expected
    assert _found(f"{Path.cwd()}/data/*/ct.nii.gz").keys() == expected.keys()
    assert _found("data/**/ct.nii.gz") == expected


def test_folder_of_patients():
    _touch("data/s1/ct.nii.gz", "data/s2/ct.nii.gz", "data/masks/x.nii.gz", "data/masks/y.nii.gz")
    expected = {"s1": "data/s1/ct.nii.gz", "s2": "data/s2/ct.nii.gz"}
    assert _found("data", skip=Path("data/masks")) == expected
    with pytest.raises(VolumeError, match=r'masks: holds 2 images; .* "data/\*/x.nii.gz"'):
        find_volumes(["data"])


def test_folders_of_dicom():
    def study(uid: str):
        return lambda n, data: setattr(data, "StudyInstanceUID", uid)

    for patient, uid in (("p1", "1.2.1"), ("p2", "1.2.2")):
        save_series(Path(f"data/{patient}"), line(2), change=study(uid))
    assert _found("data/p1") == {"p1": "data/p1"}
    assert _found("data") == {"p1": "data/p1", "p2": "data/p2"}
    # Two folders of one study are one patient: as before, which series is the CT is found later.
    for series in ("scout", "ct"):
        save_series(Path(f"one/{series}"), line(2), change=study("1.2.3"))
    assert _found("one") == {"one": "one"}


def test_list():
    _touch("a b.nii.gz", "data/c_0000.nii.gz", "data/d_0000.nii.gz")
    Path("list.txt").write_text("\ufeff# my cases\n\na b.nii.gz\ndata\ngone.nii\n", "utf-8")
    expected = {
        "a b": "a b.nii.gz",
        "c": "data/c_0000.nii.gz",
        "d": "data/d_0000.nii.gz",
        "gone": "gone.nii",
    }
    assert _found("@list.txt") == expected


def test_paths_of_a_list_start_at_its_own_folder():
    _touch("lists/a.nii.gz", "data/b.nii.gz", "data/c/ct.nii.gz", "data/d/ct.nii.gz")
    Path("lists/some.txt").write_text(
        f"a.nii.gz\n{Path.cwd()}/data/b.nii.gz\n../data/*/ct.nii.gz\n"
    )
    assert {name: Path(path).resolve() for name, path in _found("@lists/some.txt").items()} == {
        "a": Path("lists/a.nii.gz").resolve(),
        "b": Path("data/b.nii.gz").resolve(),
        "c": Path("data/c/ct.nii.gz").resolve(),
        "d": Path("data/d/ct.nii.gz").resolve(),
    }


@pytest.mark.parametrize(
    ("word", "content", "said"),
    [
        ("none*.nii.gz", "", "none.*no file has such a name"),
        ("@gone.txt", "", "gone.txt: cannot be read"),
        ("@list.txt", "# nothing\n", "list.txt: names no volume"),
        ("@list.txt", "@list.txt\n", "names another list"),
        ("@list.txt", "x*.nii\n", "no file has such a name"),
    ],
)
def test_nothing_found_is_an_error(word: str, content: str, said: str):
    Path("list.txt").write_text(content)
    with pytest.raises(VolumeError, match=said):
        find_volumes([word])
