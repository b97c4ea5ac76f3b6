"""Writing files: whole or not at all."""

import hashlib
import os
import stat
import subprocess
import sys

import filelock
import pytest

from napari_diffseg.io import VolumeError, atomic_write, check_outputs, files
from napari_diffseg.io.files import content_sha256


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "mask.nii.gz"
    path.write_text("old")
    return path


def test_the_old_file_stands_until_the_new_one_is_whole(target):
    with atomic_write(target) as part:
        part.write_text("ne")
        assert target.read_text() == "old"
        part.write_text("new")
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_format_libraries_find_the_ending_and_a_place_on_the_same_disk(target):
    with atomic_write(target) as part:
        assert part.name == target.name
        assert not part.exists()
        hidden = part.relative_to(target.parent).parts[0]
        assert hidden.startswith(".")
        assert part.parent.stat().st_dev == target.parent.stat().st_dev
        part.touch()


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(target, error):
    def write_half():
        with atomic_write(target) as part:
            part.write_text("half")
            part.with_suffix(".zraw").write_text("data")
            raise error("full")

    with pytest.raises(error, match="full"):
        write_half()
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_what_was_not_written_is_an_error(target):
    with pytest.raises(FileNotFoundError), atomic_write(target):
        pass
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_killed_process_leaves_the_old_file(target):
    code = (
        "import os, sys, pathlib; from napari_diffseg.io import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], timeout=120).returncode == 9
    assert target.read_text() == "old"


def test_everything_is_on_the_disk_before_a_name_is_given_the_header_last(target, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace

    def kind(fd):
        return "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"

    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(kind(fd)), sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(b.name), replace(a, b))[1])
    header = target.with_name("a.mhd")
    with atomic_write(header) as part:
        part.write_text("header")
        part.with_suffix(".zraw").write_text("data")
    assert events == ["file", "file", "a.zraw", "a.mhd", "folder"]
    assert header.with_suffix(".zraw").read_text() == "data"


def test_a_header_never_stands_beside_data_that_it_does_not_describe(tmp_path, monkeypatch):
    header, data = tmp_path / "a.mhd", tmp_path / "a.zraw"

    def write(text):
        with atomic_write(header) as part:
            part.write_text(text)
            part.with_suffix(".zraw").write_text(text)

    write("old")
    replace, seen = os.replace, []

    def look(a, b):
        replace(a, b)
        seen.append((header.exists() and header.read_text(), data.read_text()))

    monkeypatch.setattr(os, "replace", look)
    write("new")
    assert seen == [(False, "old"), (False, "new"), ("new", "new")]

    def full(a, b):
        if b == data:
            raise OSError("full")
        replace(a, b)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="full"):
        write("newest")
    assert (header.read_text(), data.read_text()) == ("new", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"a.mhd", "a.zraw"}


def test_a_mask_is_always_there_and_never_beside_names_of_another(tmp_path, monkeypatch):
    mask, names = tmp_path / "m.nii.gz", tmp_path / "m.labels.txt"

    def write(text):
        with atomic_write(mask) as part:
            part.write_text(text)
            part.with_name(names.name).write_text(text)

    write("old")
    replace, seen = os.replace, []

    def look(a, b):
        replace(a, b)
        seen.append((mask.read_text(), names.exists() and names.read_text()))

    monkeypatch.setattr(os, "replace", look)
    write("new")
    assert seen == [("old", False), ("new", False), ("new", "new")]
    for failing, left in ((mask, "new"), (names, False)):

        def full(a, b, failing=failing):
            if b == failing:
                raise OSError("full")
            replace(a, b)

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="full"):
            write("newest")
        assert (names.exists() and names.read_text()) == left
    assert mask.read_text() == "newest"
    assert {path.name for path in tmp_path.iterdir()} == {mask.name}


def test_what_a_killed_process_left_is_deleted_and_what_a_live_one_writes_is_not(target):
    code = (
        "import os, sys, pathlib; from napari_diffseg.io import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); os._exit(9)"
    )
    with atomic_write(target) as live:
        live.write_text("live")
        subprocess.run([sys.executable, "-c", code, str(target)], timeout=120)
        assert len(list(target.parent.glob(".*.part"))) == 2
        foreign = target.with_name(".download.part")
        foreign.mkdir()
        with atomic_write(target.with_name("other")) as part:
            part.write_text("other")
        assert live.exists()
        assert len(list(target.parent.glob(".*.part"))) == 2
    assert {path.name for path in target.parent.iterdir()} == {target.name, "other", foreign.name}
    assert target.read_text() == "live"


def test_a_writer_that_locks_its_folder_late_keeps_it(target, monkeypatch):
    """Another writer takes the folder for abandoned in between, and learns at the last moment."""
    folder = target.with_name(".napari-diffseg-late.part")
    folder.mkdir()
    late = filelock.FileLock(folder / ".lock", timeout=0)
    released = filelock.FileLock.release

    def release(lock, force=False):
        released(lock, force)
        if lock is not late and not late.is_locked and folder.exists():
            late.acquire()

    # Put back before the test ends: the last reference to `late` would go with the method that
    # its own finalizer calls, and Python 3.11 crashes there.
    with monkeypatch.context() as patched:
        patched.setattr(filelock.FileLock, "release", release)
        with atomic_write(target) as part:
            part.write_text("new")
    assert late.is_locked == folder.exists()
    assert (folder / ".lock").exists() == folder.exists()
    late.release()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_file_may_be_read_by_whom_the_umask_says(target, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_write(target) as part:
            part.write_text("new")
            part.chmod(0o400)  # as writers that think of the owner only
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(OSError, match="no"), atomic_write(tmp_path / "no" / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_fingerprint_of_one_file_is_its_sha256(target):
    assert content_sha256(target) == hashlib.sha256(b"old").hexdigest()


@pytest.mark.parametrize("header", ["ct.mhd", "ct.hdr", ""])
def test_fingerprint_covers_all_files_that_are_read(tmp_path, header):
    """A header and its data, or a folder."""
    (tmp_path / "ct.mhd").write_text("ElementDataFile = ct.raw\n")
    (tmp_path / "ct.hdr").write_text("header")
    (tmp_path / "ct.img").write_text("data")
    (tmp_path / "ct.raw").write_text("data")
    found = [content_sha256(tmp_path / header)]
    (tmp_path / "ct.raw").write_text("date")
    (tmp_path / "ct.img").write_text("date")
    found.append(content_sha256(tmp_path / header))
    if not header:
        (tmp_path / "ct.raw").rename(tmp_path / "other.raw")
        found.append(content_sha256(tmp_path / header))
    assert len(set(found)) == len(found)


def test_names_that_differ_in_case_only_are_one_file_where_the_disk_says_so(tmp_path, monkeypatch):
    pair = [tmp_path / "mask.nii.gz", tmp_path / "MASK.nii.gz"]
    if not files._ignores_case(tmp_path):
        check_outputs(pair)
    monkeypatch.setattr(files, "_ignores_case", lambda folder: True)
    with pytest.raises(VolumeError, match=r"MASK\.nii\.gz: would be written twice"):
        check_outputs(pair)
