"""MetaImage: ``.mha``, and ``.mhd`` with its data beside it.

Read without ITK, which takes damaged headers at their word: it hands out whatever lies in memory
where data are short, and crashes on some. Written by ITK.
Source: "MetaIO/Documentation", itk.org.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.formats import LPS, StoredImage, colour, not_a_volume, reading
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label
from napari_diffseg.io.voxels import check_claim, check_memory, data_file, read_array

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_MATRIX = ("TransformMatrix", "Orientation", "Rotation")
_ORIGIN = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")
_HEADER_BYTES = 1 << 22
"""Of keys and listed files; longer ones are no header."""


@dataclass(frozen=True)
class _Header:
    """Keys of a header, the files that it lists, and where its own data would begin."""

    path: Path
    keys: Mapping[str, str]
    listed: tuple[str, ...]
    start: int

    def first(self, names: Sequence[str], default: str = "") -> str:
        return next((self.keys[name] for name in names if name in self.keys), default)

    def numbers(self, names: Sequence[str], count: int, default: float) -> NDArray[np.float64]:
        words = self.first(names).split()
        if not words:
            return np.full(count, default)
        return np.array([float(word) for word in words], float).reshape(count)

    def true(self, *names: str) -> bool:
        return self.first(names)[:1] in ("T", "t", "1")


def read_metaimage(path: Path) -> StoredImage:
    """Read ``.mha`` or ``.mhd``.

    Raises
    ------
    VolumeError
        If the file is damaged, a colour image, or says nowhere how it lies in the patient.
    """
    with reading(path):
        header = _header(path)
        if not (header.first(_SPACING) and header.first(_MATRIX)):
            raise VolumeError(
                f"{path}: has no ElementSpacing or TransformMatrix, so its place in the patient "
                "is unknown; export it again with both"
            )
        shape = tuple(int(n) for n in header.keys.get("DimSize", "").split())
        if header.keys.get("ElementType", "").endswith("_ARRAY") or (
            int(header.keys.get("ElementNumberOfChannels") or 1) != 1
        ):
            raise colour(path)
        if not 3 <= len(shape) <= 10:
            raise not_a_volume(path, shape)
        array = _array(header, shape)
        n = len(shape)
        matrix = header.numbers(_MATRIX, n * n, 0).reshape(n, n)[:3, :3]
        affine = np.eye(4)
        # A row of the matrix is the direction of one axis.
        affine[:3, :3] = matrix.T * header.numbers(_SPACING, n, 1)[:3]
        affine[:3, 3] = header.numbers(_ORIGIN, n, 0)[:3]
    return StoredImage(array, LPS @ affine)


def _header(path: Path) -> _Header:
    keys: dict[str, str] = {}
    with path.open("rb") as stream:
        while stream.tell() < _HEADER_BYTES:
            line = stream.readline(_HEADER_BYTES)
            if not line:
                break
            key, _, value = line.decode(errors="replace").partition("=")
            keys[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                listed: tuple[str, ...] = ()
                if value.strip().startswith("LIST"):
                    lines = stream.read(_HEADER_BYTES).decode(errors="replace").splitlines()
                    listed = tuple(line.strip() for line in lines if line.strip())
                return _Header(path, keys, listed, stream.tell())
    raise VolumeError(f"{path}: is no MetaImage, it names no ElementDataFile; export it again")


def _array(header: _Header, shape: tuple[int, ...]) -> NDArray[Any]:
    path, kind = header.path, header.keys.get("ElementType", "")
    if kind not in _TYPES:
        raise VolumeError(f"{path}: holds numbers of type {kind or 'none'}; export 16-bit numbers")
    big = header.true("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")
    files = list(_files(header, shape[-1]))
    part = shape if len(files) == 1 else shape[:-1]
    packed = header.true("CompressedData")
    text = "BinaryData" in header.keys and not header.true("BinaryData")
    check_memory(path, (dtype.itemsize + 2) * math.prod(max(n, 0) for n in shape))
    arrays = []
    for file, start in files:
        with file.open("rb") as stream:
            if text:
                check_claim(path, part, 1, file.stat().st_size)
                stream.seek(start)
                arrays.append(np.fromfile(stream, dtype, sep=" ").reshape(part, order="F"))
                continue
            skip = int(header.keys.get("HeaderSize") or 0)
            if skip == -1:  # the data are the last of the file
                start = file.stat().st_size - math.prod(part) * dtype.itemsize
            else:
                start += skip
            if start < 0:
                raise VolumeError(f"{path}: its data ({file.name}) is cut off; copy it again")
            stream.seek(start)
            where = path if file == path else f"{path}: its data file {file.name}"
            arrays.append(read_array(where, stream, part, dtype, "gzip" if packed else ""))
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)


def _files(header: _Header, count: int) -> Iterator[tuple[Path, int]]:
    """Data files, and where the data begin in each."""
    name = header.keys["ElementDataFile"]
    pattern = re.fullmatch(r"(.*%0?\d?d\S*)\s+(\d{1,9})\s+(\d{1,9})(?:\s+(\d{1,9}))?", name)
    if name == "LOCAL":
        yield header.path, header.start
        return
    names: Sequence[str] = (name,)
    if name.startswith("LIST"):
        names = header.listed
    elif pattern and pattern[1].count("%") == 1:
        numbers = range(int(pattern[2]), int(pattern[3]) + 1, int(pattern[4] or 1) or 1)
        names = [pattern[1] % n for n in numbers[: count + 1]]
    if len(names) != count and names != (name,):
        raise VolumeError(
            f"{header.path}: lists {len(names)} files for {count} slices; add the rest"
        )
    for one in names:
        yield data_file(header.path, one), 0


def write_metaimage(
    path: Path, array: NDArray[Any], geometry: Geometry, labels: Sequence[Label] = ()
) -> None:
    """Write ``.mha``, or ``.mhd`` with its data beside it; compressed."""
    import SimpleITK as sitk  # 50 MB that nothing else here needs

    affine = LPS @ geometry.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.T)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), True)
