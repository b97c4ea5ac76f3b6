"""Reading the voxels of a file no matter what its header claims.

A header may claim terabytes, name a data file anywhere on the disk, or lead to data that inflate a
thousandfold. What is claimed is compared with the file and with the memory that is free before
anything is read, and no more is unpacked than was claimed.
"""

from __future__ import annotations

import bz2
import math
import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_diffseg.io.geometry import VolumeError

Packing = Literal["", "gzip", "bzip2"]
_BLOCK = 1 << 20
_LARGEST_RATIO = 1040
"""Deflate shrinks nothing to less than one part in 1032."""
_SUSPICIOUS_RATIO, _SUSPICIOUS_BYTES = 100, 3 << 29
"""A file that grows more than this many times may need 1.5 GiB at most: no CT shrinks so much, and
masks that do need less unless they are stored as floating-point numbers."""


def check_regular(path: Path) -> None:
    """Refuse what is no file: a pipe would wait for ever, a device has no end.

    Raises
    ------
    VolumeError
        If the path is something else than a regular file.
    FileNotFoundError
        If there is nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise VolumeError(f"{path}: is not a regular file; choose a file")


def read_text(path: Path, most: int = 1 << 24) -> str:
    """Text of a UTF-8 file that has at most so many bytes.

    Raises
    ------
    VolumeError
        If it is no file, or larger.
    OSError
        If it cannot be read.
    UnicodeDecodeError
        If it is no UTF-8.
    """
    check_regular(path)
    if path.stat().st_size > most:
        raise VolumeError(f"{path}: has {_size(path.stat().st_size)}, which is too much; delete it")
    return path.read_text(encoding="utf-8-sig")  # Windows' editors begin with a mark


def data_file(header: Path, name: str) -> Path:
    """File that a detached header names, if it lies in the header's folder or in one below.

    Raises
    ------
    VolumeError
        If the name leads out of the folder, or to something that is no file.
    FileNotFoundError
        If there is no such file.
    """
    inside = "\0" not in name
    if inside:
        # Links are not followed here: data that are kept elsewhere are often linked to.
        folder = Path(os.path.abspath(header.parent))  # noqa: PTH100
        place = Path(os.path.abspath(folder / name))  # noqa: PTH100
        inside = folder in place.parents
    if not inside:
        raise VolumeError(
            f"{header}: names a data file outside its folder ({name[:100]}); put it beside the "
            "header and correct the name"
        )
    check_regular(place)
    return place


def check_claim(
    path: Path | str, shape: Iterable[int], itemsize: int, stored: int, packing: Packing = ""
) -> int:
    """Bytes that an array needs; refused if the file cannot hold them, or this machine.

    Parameters
    ----------
    path
        Named in the errors, or words that name it.
    shape, itemsize
        As the header claims them.
    stored
        Bytes of the file.
    packing
        How they are compressed.

    Raises
    ------
    VolumeError
        If sizes are not positive, or too much is claimed.
    """
    sizes = [int(n) for n in shape]
    if not sizes or min(sizes) < 1:
        raise VolumeError(
            f"{path}: its size {tuple(sizes)} is not that of a volume; export it again"
        )
    voxels = math.prod(sizes)
    claimed = voxels * itemsize
    most = {"": stored, "gzip": stored * _LARGEST_RATIO}.get(packing)
    if most is not None and claimed > most:
        raise VolumeError(
            f"{path}: is cut off or damaged: it claims {_size(claimed)} of voxels, and has "
            f"{_size(stored)}; copy or download it again"
        )
    needed = claimed + 2 * voxels  # the volume that is made of it
    if needed > _SUSPICIOUS_BYTES and claimed > stored * _SUSPICIOUS_RATIO:
        raise VolumeError(
            f"{path}: would grow from {_size(stored)} to {_size(claimed)}, as no CT does; "
            "if it is a mask, save it as 8-bit numbers"
        )
    check_memory(path, needed)
    return claimed


def check_memory(path: Path | str, needed: int) -> None:
    """Refuse what this machine has no memory for.

    Raises
    ------
    VolumeError
        If more is needed than is free.
    """
    free = psutil.virtual_memory().available
    if needed > free:
        raise VolumeError(
            f"{path}: needs {_size(needed)} of memory, and {_size(free)} are free; close other "
            "programs, or crop it"
        )


def read_array(
    path: Path | str,
    stream: BinaryIO,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    packing: Packing = "",
    skip: int = 0,
) -> NDArray[np.generic]:
    """Read an array (i, j, k, ...) whose first axis is contiguous, and nothing beyond it.

    Parameters
    ----------
    path
        Named in the errors, or words that name it.
    stream
        Stands where the data begin.
    shape, dtype
        What they are.
    packing
        How they are compressed; the checksum at the end is compared.
    skip
        Bytes to leave out, after unpacking.

    Raises
    ------
    VolumeError
        If there is too little, or it is damaged.
    """
    stored = os.fstat(stream.fileno()).st_size
    size = check_claim(path, shape, dtype.itemsize, stored, packing)
    if not 0 <= skip <= stored * (_LARGEST_RATIO if packing else 1):
        raise VolumeError(f"{path}: is damaged: its data would begin elsewhere; copy it again")
    data = bytearray(size)
    if packing:
        _unpack(path, stream, data, skip, packing)
    else:
        stream.seek(skip, os.SEEK_CUR)
        if stream.readinto(data) < size:  # type: ignore[attr-defined]
            raise VolumeError(f"{path}: is cut off; copy or download it again")
    return np.frombuffer(data, dtype).reshape(shape, order="F")


def _unpack(
    path: Path | str, stream: BinaryIO, data: bytearray, skip: int, packing: Packing
) -> None:
    """Fill ``data``; what follows it may only be the end of the stream, with its checksum."""
    gzip = zlib.decompressobj(47)  # finds out by itself whether it is gzip or zlib
    bzip2 = bz2.BZ2Decompressor()
    at = -skip
    pending = b""
    while True:
        if packing == "gzip":
            pending = gzip.unconsumed_tail or stream.read(_BLOCK)
            block = gzip.decompress(pending, _BLOCK)
            done = gzip.eof
        else:
            pending = stream.read(_BLOCK) if bzip2.needs_input else b""
            block = bzip2.decompress(pending, _BLOCK)
            done = bzip2.eof
        keep = block[max(-at, 0) :] if at < 0 else block
        if at + len(block) > len(data):
            raise VolumeError(f"{path}: holds more data than its header says; export it again")
        if keep:
            start = max(at, 0)
            data[start : start + len(keep)] = keep
        at += len(block)
        if done:
            break
        if not block and not pending:
            break
    if not done or at < len(data):
        raise VolumeError(f"{path}: is cut off or damaged; copy or download it again")


def _size(count: int) -> str:
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return f"{count} bytes"
