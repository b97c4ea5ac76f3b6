"""Where a session is kept: its folder, and the log that all its parts write to."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from weakref import WeakKeyDictionary

import filelock
import numpy as np

from napari_diffseg.io.files import make_folder
from napari_diffseg.io.volume import Volume
from napari_diffseg.session.journal import Journal, Record, SessionError, SessionInUseError, saving

_IDS: WeakKeyDictionary[Volume, str] = WeakKeyDictionary()


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

    Parameters
    ----------
    path
        The folder; it is made when it is not there.
    new
        Whether it must not be there.

    Raises
    ------
    SessionInUseError
        If another window or process has it open.
    SessionError
        If it cannot be written.
    FileExistsError
        If it must not be there and is.
    """

    def __init__(self, path: Path, new: bool = False) -> None:
        self.path = path
        owner = path / "owner"
        # The operating system frees the lock of a killed process, so no lock is ever stale.
        self._lock = filelock.FileLock(path / "lock", timeout=0, thread_local=False)
        try:
            make_folder(path, new)
            for file in (path / "lock", owner):
                if file.is_symlink():  # it would be written where it leads to
                    file.unlink()
            self._lock.acquire()
            owner.write_text(str(os.getpid()))
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

    def release(self) -> None:
        """Let others open the session."""
        self._lock.release()

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
    def latest(cls, root: Path, volume: Volume) -> SessionFolder | None:
        """Lock the newest session of ``volume`` below ``root``, or return ``None``."""
        found = [p for p in _numbered(root / volume_id(volume)) if (p / "journal").exists()]
        return cls(max(found, key=lambda p: int(p.name))) if found else None


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
        self._journal: Journal | None = None

    @property
    def folder(self) -> Path | None:
        """The session's folder, or ``None`` while nothing has been written."""
        return None if self._place is None else self._place.path

    def append(self, record: Record) -> None:
        """Journal a change that has been made; the caller holds the lock.

        Raises
        ------
        SessionError
            If it cannot be written; the change itself stays.
        """
        with saving():
            # A journal that is opened or rewritten now holds the change already.
            if self.open() or self._journal is None:
                return
            if not self._journal.behind:
                self._journal.append(record)
            if self._journal.behind or self._journal.long:
                self._journal.rewrite(self._state())

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
        self._place = place

    def resume(self, root: Path) -> None:
        """Go on writing in the folder that was read."""
        self.root = root
        self.open()

    def save(self) -> None:
        """Rewrite the journal without what was painted over, and bring it to the disk."""
        with self.lock, saving():
            if self._journal is not None:
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
                except SessionError:
                    if self._journal.behind:
                        raise
                self._journal.close()
                self._place.release()
                self._journal, self.root = None, None
