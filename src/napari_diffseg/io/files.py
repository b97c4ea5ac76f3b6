"""Writing files: whole or not at all, and never over what is read."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from napari_diffseg.io.dicom_scan import study_beside
from napari_diffseg.io.formats import description_path
from napari_diffseg.io.geometry import VolumeError

_PREFIX, _SUFFIX, _LOCK = ".napari-diffseg-", ".part", ".lock"
_HEADER_BYTES = 1 << 16
"""A header that is searched for its data files is at most this long."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Parameters
    ----------
    path
        The file. One that is there is replaced in one step, and stays as it is on any error.

    Yields
    ------
    Where to write it: the same name in a hidden ``.part`` folder beside it. When the block ends,
    the file is flushed to the disk and takes its place with the permissions that the umask grants;
    so do data files that a header's writer put beside it. The folder that a killed process leaves
    is deleted when the next file is written beside it.

    Raises
    ------
    OSError
        If it cannot be written; nothing is left behind.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> with atomic_write(folder / "report.json") as part:
    ...     print(part.name, part.write_text("{}"))
    report.json 2
    >>> [file.name for file in folder.iterdir()]
    ['report.json']
    """
    with _hidden_folder(path.parent) as folder:
        part = folder / path.name
        part.touch()
        mode = part.stat().st_mode  # what the umask grants; some libraries give the owner only
        part.unlink()
        yield part
        data = [other for other in folder.iterdir() if other.name not in (path.name, _LOCK)]
        for file in (*data, part):
            file.chmod(mode)
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        # A header may never stand beside data, nor names of labels beside a mask, that are not its
        # own. So one is put aside first: the header, which is nothing without its data; the names.
        header = path.suffix.lower() == ".mhd"
        ordered = (*data, part) if header else (part, *data)
        aside = [path] if header and data else [path.with_name(file.name) for file in data]
        for file in aside:
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        moved = [file for file in aside if file.exists()]
        earlier = folder / "earlier"
        earlier.mkdir()
        for file in moved:
            os.replace(file, earlier / file.name)
        try:
            for file in ordered:
                os.replace(file, path.with_name(file.name))
        except OSError:
            for file in moved if ordered[0].exists() else []:  # nothing was replaced yet
                os.replace(earlier / file.name, file)
            raise
        sync_folder(path.parent)


@contextmanager
def _hidden_folder(beside: Path) -> Iterator[Path]:
    """Make a folder that is deleted at the end, or after a kill by the next one made beside it."""
    clear_up(beside)
    folder, lock = _locked_folder(beside)
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def _locked_folder(beside: Path) -> tuple[Path, filelock.BaseFileLock]:
    while True:
        folder = Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, beside))
        lock = filelock.FileLock(folder / _LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
            if (folder / _LOCK).exists():
                return folder, lock
        except (filelock.Timeout, FileNotFoundError):
            continue  # it was taken for abandoned before it was locked
        except NotImplementedError:
            return folder, lock  # no locks on this disk, so nobody can take it for abandoned
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def clear_up(folder: Path) -> None:
    """Delete the hidden folders of writers that were killed; the system has freed their locks."""
    for hidden in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        lock = filelock.FileLock(hidden / _LOCK, timeout=0, thread_local=False)
        with suppress(filelock.Timeout, NotImplementedError, OSError):
            lock.acquire()
            try:
                for file in hidden.iterdir():
                    if file.is_dir():
                        shutil.rmtree(file)
                    elif file.name != _LOCK:
                        file.unlink()
                with suppress(PermissionError):  # Windows, which deletes it with the lock
                    (hidden / _LOCK).unlink()
            finally:
                lock.release()
            hidden.rmdir()  # unless its writer was only slow and has locked it by now


def make_folder(path: Path, new: bool = False) -> None:
    """Make a folder and those above it, and bring their names to the disk.

    Parameters
    ----------
    path
        The folder.
    new
        Whether it must not be there.

    Raises
    ------
    FileExistsError
        If it must not be there and is.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=not new)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk: until then, a power cut can undo a rename."""
    if os.name == "nt":  # which opens no folder, and keeps its names in a log of its own
        return
    with suppress(OSError):  # some network drives refuse; what the files hold is safe already
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path | None] = ()) -> None:
    """Refuse outputs that would replace an input, another output, or something special.

    Files are compared by identity, so a link or another spelling of a path makes no difference.
    Nothing is opened for writing; call it before any work begins.

    Parameters
    ----------
    outputs
        Files that are going to be written; a ``.mhd`` stands for its data file too, and a NIfTI
        for the description of its labels.
    inputs
        Files and folders that are read; ``None`` is skipped. Nothing that lies in such a folder
        may be replaced.

    Raises
    ------
    VolumeError
        If an output is an input, lies over a file of an input folder, is named twice, is no
        regular file, or cannot be made in its folder.
    """
    sources = [part for path in inputs if path is not None for part in (path, *_data_files(path))]
    read = {_identity(source) for source in sources}
    folders = {_real(source) for source in sources if source.is_dir()}
    written: set[tuple[int, int] | Path] = set()
    for output in outputs:
        _check_place(output)
        for file in (output, *_companions(output)):
            own = _identity(file)
            if own in read:
                raise VolumeError(
                    f"{file}: would be overwritten, and it is also read; choose another name"
                )
            if os.path.lexists(file) and not folders.isdisjoint(_real(file).parents):
                raise VolumeError(
                    f"{file}: is a file of the folder that is read; choose another name"
                )
            if own in written:
                raise VolumeError(f"{file}: would be written twice; choose another name")
            written.add(own)


def content_sha256(path: Path) -> str:
    """Fingerprint of all that is read with a file or folder, by content and names.

    Of a file that stands alone it is the SHA-256 that other programs compute as well; otherwise
    it covers the data files of a header, the slices of a series, or all files of a folder.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    if path.is_dir():
        parts = sorted(file for file in path.rglob("*") if file.is_file())
    else:
        parts = sorted({path, *_data_files(path)})
    digests = []
    for part in parts:
        with part.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    if parts == [path]:
        return digests[0]
    root = path if path.is_dir() else path.parent
    names = [part.relative_to(root).as_posix() for part in parts]
    lines = [f"{digest} {name}\n" for digest, name in zip(digests, names, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check_place(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise VolumeError(f"{path}: its folder does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise VolumeError(f"{path}: its folder cannot be written; choose another place")
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        what = "a folder" if path.is_dir() else "not a regular file"
        raise VolumeError(f"{path}: is {what}; choose another name")


def _identity(path: Path) -> tuple[int, int] | Path:
    """What two spellings of one file share, whether it is there or not."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        real = _real(path)
        return Path(str(real).casefold()) if _ignores_case(real.parent) else real
    return found.st_dev, found.st_ino


def _ignores_case(folder: Path) -> bool:
    """Whether ``A`` and ``a`` are one file there, as on most disks of Windows and macOS."""
    other = Path(str(folder).swapcase())
    return other != folder and other.exists() and other.samefile(folder)


def _real(path: Path) -> Path:
    """Follow all links; unlike ``resolve``, in every Python, also those that lead in a circle."""
    return Path(os.path.realpath(path))


def _companions(path: Path) -> list[Path]:
    """Data files that a header's writer may write beside it."""
    if path.suffix.lower() == ".mhd":
        return [path.with_suffix(ending) for ending in (".zraw", ".raw")]
    described = description_path(path)
    return [described] if described else []


def _data_files(path: Path) -> list[Path]:
    """Data files that are read with a file: those a header refers to, slices of a series."""
    if not path.is_file():
        return []
    if path.suffix.lower() in (".hdr", ".img"):
        return [
            other for ending in (".hdr", ".img") if (other := path.with_suffix(ending)).exists()
        ]
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return study_beside(path)
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES).decode(errors="replace")
    found = re.search(r"^(?:ElementDataFile *=|data ?file:)(.*)", header, re.MULTILINE | re.DOTALL)
    lines = found[1].splitlines() if found else []
    return [path.parent / line.strip() for line in lines if _is_name(line.strip())]


def _is_name(text: str) -> bool:
    """Whether a file can be called so; of other names, systems make errors."""
    longest = max(len(part.encode()) for part in ("", *text.split("/")))
    return bool(text) and "\0" not in text and longest <= 255 and len(text.encode()) < 4096
