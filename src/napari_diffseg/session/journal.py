"""The append-only journal of a session.

A journal is a row of records. Each has a marker, the length and CRC-32 of its payload, and the
payload: a JSON header and, where the record has one, a compressed slice mask. A record that was
torn by a crash fails its CRC and is skipped, as is one that no session writes; reading goes on at
the next marker.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.errors import UserError
from napari_diffseg.io.files import atomic_write

_MARKER = b"\xd1DSJ"
_FRAME = struct.Struct("<II")  # payload length, CRC-32
_LENGTH = struct.Struct("<I")  # header length
_MAX_SIDE = 1 << 14
"""Rows and columns of a slice mask are at most so many."""
SYNC_SECONDS = 0.5
"""From a change to the beginning of its way to the disk, so that a power cut costs a second at most
even on a slow disk; a killed process loses nothing that was appended."""
MAX_GROWTH_BYTES = 16 * 2**20
"""A journal that has grown by more is rewritten without what was painted over."""


class SessionError(UserError):
    """Something that a session refuses or cannot do; the message says what to do instead."""


class SessionInUseError(SessionError):
    """A session that another window or process has open.

    Attributes
    ----------
    process
        Its process id, or ``"unknown"``.
    """

    def __init__(self, process: str) -> None:
        super().__init__(
            f"this volume's session is open in another window (process {process}); "
            "open it read-only, take it over, or start a new session"
        )
        self.process = process


class ReadOnlyError(SessionError):
    """A change to a session that was opened read-only, or that another window has taken over."""


_CHANGE = (
    "autosave failed ({reason}); nothing is lost so far: free some space, and the next stroke "
    "saves everything"
)


@contextmanager
def saving(sentence: str = _CHANGE) -> Iterator[None]:
    """Turn a failure of the disk into a :class:`SessionError`: a sentence with ``{reason}``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SessionError(sentence.replace("{reason}", reason)) from error


@dataclass(frozen=True, eq=False)
class Record:
    """One entry of a journal: JSON values, and a slice mask ``(y, x)`` uint8 or ``None``."""

    header: dict[str, Any]
    mask: NDArray[np.uint8] | None = None


def encode(record: Record) -> bytes:
    """Return the bytes of a record."""
    header, body = dict(record.header), b""
    if record.mask is not None:
        header["shape"] = record.mask.shape
        body = zlib.compress(record.mask.tobytes(), 1)
    text = json.dumps(header, separators=(",", ":")).encode()
    payload = _LENGTH.pack(len(text)) + text + body
    return _MARKER + _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def decode(data: bytes) -> Iterator[Record]:
    """Yield every whole record in ``data``, skipping what is torn or damaged."""
    at = data.find(_MARKER)
    while at >= 0:
        start = at + len(_MARKER) + _FRAME.size
        after = at + 1
        if start <= len(data):
            length, checksum = _FRAME.unpack_from(data, at + len(_MARKER))
            payload = data[start : start + length]
            if len(payload) == length and zlib.crc32(payload) == checksum:
                with suppress(ValueError, LookupError, TypeError, struct.error, RecursionError):
                    yield _record(payload)
                after = start + length
        at = data.find(_MARKER, after)


def _record(payload: bytes) -> Record:
    (length,) = _LENGTH.unpack_from(payload)
    end = _LENGTH.size + length
    header = json.loads(payload[_LENGTH.size : end])
    if not isinstance(header, dict) or not isinstance(header.get("op"), str):
        raise ValueError("no record of a session")
    mask = None
    if "shape" in header:
        rows, columns = header.pop("shape")
        if not (0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE):
            raise ValueError("no slice is of this size")
        size = rows * columns
        try:
            data = zlib.decompressobj().decompress(payload[end:], size + 1)
        except zlib.error as error:
            raise ValueError("damaged") from error
        mask = np.frombuffer(data, np.uint8).reshape(rows, columns)
    return Record(header, mask)


class Journal:
    """An open journal file; may be appended to from any thread.

    Parameters
    ----------
    path
        The file. It is replaced at once by one that holds ``records``.
    records
        The state so far.

    Attributes
    ----------
    behind
        Whether a change could not be written, so that the journal has to be rewritten.
    """

    def __init__(self, path: Path, records: Iterable[Record]) -> None:
        self.path = path
        self.behind = False
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._stream: FileIO | None = None
        self.rewrite(records)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace the file by one with these records only."""
        with self._lock:
            if self._timer is not None:
                self._sync()  # writing the new file may take longer than a change may wait
            try:
                with atomic_write(self.path) as part:
                    with part.open("wb") as stream:
                        stream.writelines(map(encode, records))
                    if self._stream is not None:
                        self._stream.close()  # Windows replaces no open file
                self.behind = False
            finally:
                if self.path.exists() and (self._stream is None or self._stream.closed):
                    self._stream = self.path.open("ab", buffering=0)
                if self._stream is not None:
                    self._limit = self._stream.tell() + MAX_GROWTH_BYTES

    def append(self, record: Record) -> None:
        """Write one record; the system has it when this returns, the disk within a second.

        Raises
        ------
        OSError
            If it cannot be written; nothing of it stays in the file then, and ``behind`` is set.
        """
        with self._lock:
            if self._stream is None:
                raise SessionError("this session is closed; open it again to go on")
            before = self._stream.tell()
            try:
                rest = memoryview(encode(record))
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[self._stream.write(rest) :]
            except (OSError, MemoryError):
                self.behind = True
                with suppress(OSError):
                    self._stream.truncate(before)
                raise
            if self._timer is None:
                # fsync can take long on a busy disk, so it never runs on the caller's thread.
                self._timer = threading.Timer(SYNC_SECONDS, self._sync)
                self._timer.daemon = True
                self._timer.start()

    def _sync(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._stream is None:
                return
            copy = os.dup(self._stream.fileno())
        try:
            os.fsync(copy)
        except OSError:
            # The system forgets what it could not bring to the disk, so asking again is no use.
            self.behind = True
        finally:
            os.close(copy)

    @property
    def long(self) -> bool:
        """Whether the journal is due for a rewrite."""
        with self._lock:
            return self._stream is not None and self._stream.tell() > self._limit

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._stream is not None:
                os.fsync(self._stream.fileno())
                self._stream.close()
                self._stream = None
