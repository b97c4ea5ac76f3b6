"""The arrays of a session's ``.npz`` files; reading trusts nobody who has had them meanwhile."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


def write_arrays(file: Path | io.BytesIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, compressed."""
    # numpy's own savez_compressed has no fast level, and this runs at the end of every prediction.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array)


def has_arrays(path: Path, names: Sequence[str]) -> bool:
    """Whether a ``.npz`` file has arrays of all these names."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{name}.npy" for name in names} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_arrays(source: Path | io.BytesIO, names: Sequence[str], most: int) -> list[NDArray[Any]]:
    """Read arrays by name.

    Parameters
    ----------
    source
        A ``.npz`` file.
    names
        Of the arrays.
    most
        Bytes that one may have; what its header claims is compared with it before any is read.

    Raises
    ------
    ValueError
        If the file is damaged, claims too much, lacks one, or holds objects, which could run code.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return [_array(archive.open(f"{name}.npy"), most) for name in names]
    except Exception as error:  # of zipfile, zlib, struct and numpy
        raise ValueError(f"is damaged ({type(error).__name__})") from error


def _array(stream: IO[bytes], most: int) -> NDArray[Any]:
    with stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not 0 <= size <= most:
            raise ValueError("holds what no session holds")
        data = bytearray()
        while len(data) < size and (block := stream.read(min(size - len(data), 1 << 24))):
            data += block
        if len(data) < size or stream.read(1):  # the last read compares the checksum, too
            raise ValueError("is cut off")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
