"""A disk that keeps only what it was asked to keep, and loses the rest in a power cut.

In the process that works, :func:`recorded` notes what each file and each folder held when it was
last synced. :func:`power_cut` makes from this, and from what the killed process has left, a folder
as it may look after the power comes back.
"""

from __future__ import annotations

import os
import pickle
import random
import struct
import time
from pathlib import Path
from typing import Literal

_LENGTH = struct.Struct("<Q")
_Names = dict[str, tuple[int, bool]]  # inode, and whether it is a folder
_SLOWEST = 0.2  # s that a sync takes at most

Mode = Literal["strict", "names", "mixed"]
"""What was not synced: all of it is lost; new names are kept, what the files hold is lost; some of
both is kept."""


class _Recorder:
    """Notes every sync in a file, by inode; keeps each inode open, so that none is used again."""

    def __init__(self, folder: Path, trace: Path) -> None:
        self._out = trace.open("wb", buffering=0)
        self._sync, self._kept = os.fsync, list[int]()
        self._random = random.Random(str(trace))
        for path in (folder, *folder.rglob("*")):  # what was there before is on the disk
            descriptor = os.open(path, os.O_RDONLY)
            self._note(descriptor)
            os.close(descriptor)

    def __call__(self, descriptor: int) -> None:
        found = self._look(descriptor)
        time.sleep(self._random.uniform(0, _SLOWEST) ** 2 / _SLOWEST)  # most are quick
        self._write(found)

    def _note(self, descriptor: int) -> None:
        self._write(self._look(descriptor))

    def _look(self, descriptor: int) -> tuple[int, bytes | _Names]:
        self._kept.append(os.dup(descriptor))
        path, inode = Path(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_ino
        if path.is_dir():
            folders = (entry.path for entry in os.scandir(path) if entry.is_dir())
            self._kept += [os.open(folder, os.O_RDONLY) for folder in folders]
            return inode, _names(path)
        return inode, path.read_bytes()

    def _write(self, found: tuple[int, bytes | _Names]) -> None:
        data = pickle.dumps(found)
        self._out.write(_LENGTH.pack(len(data)) + data)


def recorded(folder: Path) -> _Recorder:
    """From now on, note what this process syncs in a folder; in ``folder.trace``."""
    recorder = _Recorder(folder, folder.with_suffix(".trace"))
    os.fsync = recorder
    return recorder


def power_cut(folder: Path, target: Path, mode: Mode, rng: random.Random) -> None:
    """Make ``target``, which a power cut leaves of ``folder`` when its process was killed."""
    synced: dict[int, bytes | _Names] = {}
    data = folder.with_suffix(".trace").read_bytes()
    while len(data) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(data)
        record, data = data[_LENGTH.size :][:length], data[_LENGTH.size + length :]
        if len(record) == length:  # the last one may be torn: that sync had not ended
            inode, found = pickle.loads(record)
            synced[inode] = found
    seen: dict[int, bytes | _Names] = {}
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            seen[path.stat().st_ino] = _names(path)
        else:
            seen[path.stat().st_ino] = path.read_bytes()

    def put(inode: int, place: Path, folder: bool) -> None:
        before, after = synced.get(inode), seen.get(inode)
        if folder:
            place.mkdir()
            keep = mode == "names" or (mode == "mixed" and rng.random() < 0.5)
            for name, child in ((after if keep and after else before) or {}).items():
                put(child[0], place / name, child[1])
            return
        kept = before or b""
        if mode == "mixed" and after is not None and after.startswith(kept) and after != kept:
            kept = after[: rng.randint(len(kept), len(after))]
            if rng.random() < 0.3:  # the length is on the disk, the end is not
                kept += bytes(rng.randint(0, 64))
        place.write_bytes(kept)

    put(folder.stat().st_ino, target, True)


def _names(folder: Path) -> _Names:
    return {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}
