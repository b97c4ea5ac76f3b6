"""Reading one DICOM file no matter what is in it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.voxels import check_claim, check_memory

_LARGEST_RATIO = 1 << 16
"""Compressed pixels of one value take least; no file shrinks to less than one part in so many."""
_MOST_READS = 500_000
"""An Enhanced CT of 2,000 frames takes half of them."""
_MOST_PIXELS = 1 << 27
"""Of one slice; 2048 x 2048 are 1 << 22."""


def read_dicom(path: Path, **how: Any) -> pydicom.Dataset:
    """Read a DICOM file, with the ``DICM`` prefix or without; ``how`` as for ``dcmread``.

    Raises
    ------
    InvalidDicomError
        If the file is not DICOM.
    """
    try:
        return _read(path, **how)
    except InvalidDicomError:
        with path.open("rb") as stream:
            start = stream.read(4)
        # Without a prefix, a file begins with the first element of group 0002 or 0008.
        firsts = [struct.unpack(f"{order}HH", start) for order in "<>" if len(start) == 4]
        if not any(group in (2, 8) and element <= 0x18 for group, element in firsts):
            raise
        try:
            dataset = _read(path, force=True, **how)
        except Exception as error:
            raise InvalidDicomError from error
        if not dataset:
            raise
        if not dataset.file_meta.get("TransferSyntaxUID"):
            implicit, little = dataset.original_encoding
            explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
        return dataset


def _read(path: Path, **how: Any) -> pydicom.Dataset:
    check_memory(path, path.stat().st_size)
    with _Watched(io.FileIO(path)) as stream:
        return pydicom.dcmread(stream, **how)


def check_pixels(path: Path, header: pydicom.Dataset) -> None:
    """Refuse a header that claims more pixels than its file can hold, or this machine.

    Raises
    ------
    VolumeError
        If it does.
    """
    frames = max(int(header.get("NumberOfFrames") or 1), 1)
    shape = (int(header.get("Rows") or 0), int(header.get("Columns") or 0), frames)
    bits = int(header.get("BitsAllocated") or 16)
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    stored = path.stat().st_size
    if bits == 1 or syntax == DeflatedExplicitVRLittleEndian or (syntax and syntax.is_compressed):
        stored *= _LARGEST_RATIO
    check_claim(path, shape, max(bits // 8, 1), stored)
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise VolumeError(f"{path}: claims {shape[0]} x {shape[1]} pixels; export it again")


class _Watched(io.BufferedReader):
    """A DICOM file that may neither inflate nor go on without end.

    Every element takes a call of ``read``; one without a size reads what is deflated.
    """

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MOST_READS:
            raise VolumeError(f"{self.name}: has more elements than any CT; export it again")
        data = super().read(size)
        if size is None or size < 0:
            inflate, found, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data
            while rest and not inflate.eof:
                found += len(inflate.decompress(rest, 1 << 20))
                rest = inflate.unconsumed_tail
                check_claim(Path(self.name), (found or 1, 1, 1), 1, len(data), "gzip")
        return data
