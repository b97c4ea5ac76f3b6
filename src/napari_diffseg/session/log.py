"""Where a session is kept: its folder, and the log that all its parts write to."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import filelock
import numpy as np

from napari_diffseg.io.files import atomic_write, make_folder
from napari_diffseg.io.volume import Volume
from napari_diffseg.session.journal import (
    Journal,
    ReadOnlyError,
    Record,
    SessionError,
    SessionInUseError,
    saving,
)

_IDS: WeakKeyDictionary[Volume, str] = WeakKeyDictionary()
_WRITE_SECONDS = 10.0
"""How long a take-over waits for a record that is being written, which takes milliseconds."""


def volume_id(volume: Volume) -> str:
    """Name a volume by the SHA-256 of its HU values, affine and shape (hashed once)."""
    if volume not in _IDS:
        shape = ",".join(map(str, volume.hu.shape))
        digest = hashlib.sha256(f"{volume.hu.dtype.str} {shape} ".encode())
        digest.update(np.ascontiguousarray(volume.geometry.affine, "<f8").tobytes())
        for plane in volume.hu:
            digest.update(plane.tobytes())
        _IDS[volume] = digest.hexdigest()[:32]
    return _IDS[volume]


class SessionFolder:
    """A folder for one session, locked for one process at a time.

    Whoever has it locked may write to it until another process takes it over: a mark in the folder
    says so, and is looked for under a second lock before each record. So a record is written either
    before the mark, and then the other process reads it, or not at all.

    Parameters
    ----------
    path
        The folder; it is made when it is not there.
    new
        Whether it must not be there.
    lock
        Whether to lock it; without, it can only be read.

    Raises
    ------
    SessionInUseError
        If another window or process has it open.
    SessionError
        If it cannot be written.
    FileExistsError
        If it must not be there and is.
    """

    def __init__(self, path: Path, new: bool = False, lock: bool = True) -> None:
        self.path, self.locked = path, lock
        owner = path / "owner"
        self._mark = path / "taken"
        # The operating system frees the lock of a killed process, so no lock is ever stale.
        self._lock = filelock.FileLock(path / "lock", timeout=0, thread_local=False)
        self._write_lock = filelock.FileLock(path / "writing", thread_local=False)
        if not lock:
            return
        try:
            make_folder(path, new)
            for file in (path / "lock", path / "writing", owner):
                if file.is_symlink():  # it would be written where it leads to
                    file.unlink()
            self._lock.acquire()
            owner.write_text(str(os.getpid()))
            self._mark.unlink(missing_ok=True)  # whom it was meant for is gone
        except filelock.Timeout as error:
            pid = owner.read_text(errors="replace")[:20] if owner.is_file() else ""
            raise SessionInUseError(pid or "unknown") from error
        except OSError as error:
            if new and isinstance(error, FileExistsError):
                raise
            raise SessionError(
                f"{path}: the session cannot be saved here ({error.strerror}); "
                "free some space or set NAPARI_DIFFSEG_HOME to a folder that can be written"
            ) from error

    @property
    def journal(self) -> Path:
        """The journal file."""
        return self.path / "journal"

    @property
    def refusal(self) -> str:
        """Why nothing can be written here; empty where it can."""
        if not self.locked:
            return (
                "this session was opened read-only; take it over, or begin a new one, to change it"
            )
        if not self._mark.exists():
            return ""
        return (
            "another window has taken this session over and goes on with it; "
            "nothing is changed here any more: close it, take it back, or begin a new session"
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write a record, or refuse to where another process has taken the session over."""
        with self._write_lock.acquire(_WRITE_SECONDS):
            if self.refusal:
                raise ReadOnlyError(self.refusal)
            yield

    def release(self) -> None:
        """Let others open the session."""
        self._lock.release()

    @classmethod
    def taken_over(cls, root: Path, volume: Volume) -> SessionFolder | None:
        """Lock the newest session of ``volume``, or a copy of it where another process has it.

        That process can write to its own folder no more, and what it wrote before is in the copy.
        """
        try:
            return cls.latest(root, volume)
        except SessionInUseError as error:
            found = cls.latest(root, volume, lock=False)
            if found is None:
                raise
            found._take(error)
            return found._copied(cls.fresh(root, volume))

    def _take(self, error: SessionInUseError) -> None:
        try:
            held = self._write_lock.acquire(_WRITE_SECONDS)
        except filelock.Timeout:
            raise SessionError(
                f"the other window (process {error.process}) hangs while it saves, so it cannot "
                "be taken over; end it, or start a new session"
            ) from error
        with held, saving():
            self._mark.write_text(str(os.getpid()))

    def _copied(self, to: SessionFolder) -> SessionFolder:
        """Copy models, predictions and, last, the journal: without it a folder is no session."""
        try:
            with saving():
                for file in sorted(self.path.iterdir()):
                    if file.suffix in (".json", ".safetensors", ".npz") and file.is_file():
                        with atomic_write(to.path / file.name) as part:
                            shutil.copyfile(file, part)
                with atomic_write(to.journal) as part:
                    shutil.copyfile(self.journal, part)
        except BaseException:
            to.release()
            raise
        return to

    @classmethod
    def fresh(cls, root: Path, volume: Volume) -> SessionFolder:
        """Make a new folder for ``volume`` below ``root``; never one that was used before."""
        place = root / volume_id(volume)
        number = max((int(p.name) for p in _numbered(place)), default=0) + 1
        while True:
            try:
                return cls(place / f"{number:04}", new=True)
            except FileExistsError:
                number += 1

    @classmethod
    def latest(cls, root: Path, volume: Volume, lock: bool = True) -> SessionFolder | None:
        """Lock the newest session of ``volume`` below ``root``, or return ``None``."""
        found = [p for p in _numbered(root / volume_id(volume)) if (p / "journal").exists()]
        return cls(max(found, key=lambda p: int(p.name)), lock=lock) if found else None


def _numbered(place: Path) -> list[Path]:
    return [p for p in place.iterdir() if p.name.isdecimal()] if place.is_dir() else []


class SessionLog:
    """What the parts of a session share: one lock, and one journal of all their changes.

    Parameters
    ----------
    volume
        The CT.
    root
        Where sessions are kept, each in a folder of its own; ``None`` keeps nothing on disk.
    state
        Gives the records of the whole state, as the shortest journal that leads to it.

    Attributes
    ----------
    lock
        Held while a part is changed, and while its arrays must not change.
    root
        As given; ``None`` after :meth:`close`.
    shape
        Of the volume, ``(z, y, x)``.
    """

    def __init__(
        self, volume: Volume, root: Path | None, state: Callable[[], Iterable[Record]]
    ) -> None:
        self.lock = threading.RLock()
        self.root = root
        self.shape: tuple[int, int, int] = volume.hu.shape
        self._volume, self._state = volume, state
        self._place: SessionFolder | None = None
        self._reading = False  # an earlier session, whose changes are no new ones
        self._journal: Journal | None = None

    @property
    def folder(self) -> Path | None:
        """The session's folder, or ``None`` while nothing has been written."""
        return None if self._place is None else self._place.path

    @property
    def refusal(self) -> str:
        """Why the session cannot be changed; empty where it can."""
        return "" if self._place is None or self._reading else self._place.refusal

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for a change, and refuse it before it is made.

        Raises
        ------
        ReadOnlyError
            If the session was opened read-only, or another process has taken it over.
        """
        with self.lock:
            if self.refusal:
                raise ReadOnlyError(self.refusal)
            yield

    def append(self, record: Record) -> None:
        """Journal a change that has been made; the caller holds the lock.

        Raises
        ------
        SessionError
            If it cannot be written; the change itself stays.
        """
        with saving():
            # A journal that is opened or rewritten now holds the change already.
            if self.open() or self._journal is None or self._place is None:
                return
            self._append(record, self._place, self._journal)

    def _append(self, record: Record, place: SessionFolder, journal: Journal) -> None:
        with place.writing():
            if not journal.behind:
                journal.append(record)
            if journal.behind or journal.long:
                journal.rewrite(self._state())

    def open(self) -> bool:
        """Make folder and journal where that is still to be done, and say whether it was."""
        if self.root is None or self._journal is not None:
            return False
        with saving():
            self._place = self._place or SessionFolder.fresh(self.root, self._volume)
            self._journal = Journal(self._place.journal, self._state())
        return True

    def read(self, place: SessionFolder) -> None:
        """Make an earlier session's folder this one's; nothing is written before :meth:`resume`."""
        self._place, self._reading = place, True

    def resume(self, root: Path) -> None:
        """Go on in the folder that was read; one that is not locked is never written to."""
        self._reading = False
        if self._place is not None and self._place.locked:
            self.root = root
            self.open()

    def save(self) -> None:
        """Rewrite the journal without what was painted over, and bring it to the disk."""
        with self.lock, saving():
            if self._journal is not None and self._place is not None:
                with self._place.writing():
                    self._journal.rewrite(self._state())

    def close(self) -> None:
        """Save, and let others open the folder; nothing is written afterwards.

        Raises
        ------
        SessionError
            If a change could not be written; the session stays open then.
        """
        with self.lock:
            if self._journal is not None and self._place is not None:
                try:
                    self.save()
                except ReadOnlyError:
                    pass  # what is in the journal is what the other window has taken over
                except SessionError:
                    if self._journal.behind:
                        raise
                self._journal.close()
                self._place.release()
                self._journal, self.root = None, None
