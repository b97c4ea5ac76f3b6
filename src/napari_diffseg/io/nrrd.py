"""NRRD, and the segmentations of 3D Slicer in it (``.seg.nrrd``).

Slicer writes one label map with a group of header keys for each segment (``Segment0_ID``,
``Segment0_Name``, ...), numbered from 0 without a gap, and ``Segment0_Extent`` in voxels of a
reference grid that starts at ``Segmentation_ReferenceImageExtentOffset``.
Source: Slicer manual, "Segmentation file (.seg.nrrd) file format".

NRRD goes through pynrrd, because SimpleITK reads neither bzip2 nor axes without a kind, and writes
neither the source's anatomical space nor its directions digit for digit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import nrrd
import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_diffseg.io.formats import LPS, StoredImage, colour, not_a_volume, reading
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label, Overlap, default_colour, overlap_note, unnamed
from napari_diffseg.io.voxels import Packing, check_claim, data_file, read_array

_RAS = np.eye(4)
_LAS = np.diag([-1.0, 1.0, 1.0, 1.0])
_SPACES = {
    "right-anterior-superior": _RAS,
    "ras": _RAS,
    "left-anterior-superior": _LAS,
    "las": _LAS,
    "left-posterior-superior": LPS,
    "lps": LPS,
}
"""What turns the millimetres of a NRRD space into RAS+, and back."""
_MILLIMETRES = {
    "": 1.0, "mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "m": 1000.0, "meter": 1000.0,
    "metre": 1000.0, "cm": 10.0, "centimeter": 10.0, "centimetre": 10.0, "um": 1e-3, "µm": 1e-3,
    "μm": 1e-3, "micron": 1e-3, "micrometer": 1e-3, "micrometre": 1e-3, "nm": 1e-6,
}  # fmt: skip
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_PACKINGS: dict[str, Packing] = {
    "raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
}  # fmt: skip
_TEXTS = ("ascii", "text", "txt")
_LINE_BYTES, _HEADER_LINES = 1 << 20, 100_000
"""Longer lines, and more of them, are no header."""


def read_nrrd(path: Path, overlap: Overlap = "last") -> StoredImage:
    """Read ``.nrrd``, ``.nhdr`` or ``.seg.nrrd``.

    Parameters
    ----------
    path
        The file, or the header of a detached one.
    overlap
        Which of the segments that overlap wins, in their order in the file.

    Raises
    ------
    VolumeError
        If the file is damaged, a colour image, says nowhere how it lies in the patient, or has
        overlapping segments that are refused.
    """
    with reading(path), path.open("rb") as stream:
        # Slicer's names are in UTF-8; of bytes, pynrrd would keep the ASCII characters only.
        header = nrrd.read_header(line.decode(errors="replace") for line in _lines(stream))
        array = _voxels(path, header, stream)
        segments = _segments(header)
        kinds = [str(kind).lower() for kind in header.get("kinds", ())]
        space = str(header.get("space", "")).lower()
        if any("color" in kind for kind in kinds):
            raise colour(path)
        if space not in _SPACES or "space directions" not in header or "space origin" not in header:
            raise VolumeError(
                f"{path}: has no anatomical space, directions and origin in its header, so its "
                "place in the patient is unknown; export it again from the original"
            )
        steps = {
            axis: np.asarray(step, float)
            for axis, step in enumerate(header["space directions"])
            if step is not None and np.isfinite(step).any()
        }
        if len(steps) != 3:
            raise not_a_volume(path, array.shape)
        to_mm, notes = _units(path, header)
        columns = np.stack(list(steps.values()), 1)
        affine = _SPACES[space] @ to_mm @ _affine(columns, header["space origin"])
        array = np.moveaxis(array, tuple(steps), range(3))
        if segments and array.ndim == 4:
            array, segments, overlaps = _flattened(path, array, segments, overlap)
            notes += overlaps
    return StoredImage(
        array,
        affine,
        notes=notes,
        reference={"nrrd": {"space": header["space"]}},
        labels=tuple(label for _, label in segments),
        crop=bool(segments),
    )


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of a header with the empty one at its end, each and all of them of bounded length."""
    for _ in range(_HEADER_LINES):
        line = stream.readline(_LINE_BYTES)
        yield line
        if not line.strip():
            return
    raise ValueError("its header has no end")


def _voxels(path: Path, header: Mapping[str, Any], stream: BinaryIO) -> NDArray[Any]:
    """Read what a header describes, from its own file or the one that it names."""

    def either(*names: str) -> Any:
        return next((header[name] for name in names if name in header), None)

    shape = tuple(int(n) for n in header["sizes"])
    kind, encoding = str(header["type"]), str(header["encoding"]).lower()
    if kind not in _TYPES or encoding not in (*_PACKINGS, *_TEXTS):
        raise VolumeError(f"{path}: holds {kind} numbers in {encoding} encoding; save it as gzip")
    big = header.get("endian") == "big"
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")
    name = either("data file", "datafile")
    file = path if name is None else data_file(path, str(name))
    lines, skip = (
        int(either("line skip", "lineskip") or 0),
        int(either("byte skip", "byteskip") or 0),
    )
    with file.open("rb") as data:
        data.seek(stream.tell() if name is None else 0)
        for _ in range(min(max(lines, 0), _HEADER_LINES)):
            data.readline(_LINE_BYTES)
        stored = file.stat().st_size - data.tell()
        if encoding in _TEXTS:
            check_claim(path, shape, 1, stored)
            array = np.fromfile(data, dtype, sep=" ")
            if array.size != np.prod(shape):
                raise VolumeError(f"{path}: is cut off or damaged; copy it again")
            return array.reshape(shape, order="F")
        size = check_claim(path, shape, dtype.itemsize, stored, _PACKINGS[encoding])
        if encoding == "raw" and skip == -1:
            skip = stored - size
        if encoding == "raw" and stored != skip + size:
            raise VolumeError(
                f"{path}: has {stored - skip} bytes of voxels and should have {size}; "
                "copy or export it again"
            )
        where = path if name is None else f"{path}: its data file {file.name}"
        return read_array(where, data, shape, dtype, _PACKINGS[encoding], skip)


def _units(path: Path, header: Mapping[str, Any]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Matrix (4, 4) that turns lengths of the header into millimetres, and a note if it does."""
    units = [str(unit).strip().lower() for unit in header.get("space units", ())]
    units = units if len(units) == 3 else [""] * 3
    factors = [_MILLIMETRES.get(unit.removesuffix("s")) for unit in units]
    unknown = [unit for unit, factor in zip(units, factors, strict=True) if factor is None]
    if unknown:
        raise VolumeError(f"{path}: has lengths in {unknown[0]!r}; save it in mm")
    other = [unit for unit in units if _MILLIMETRES[unit.removesuffix("s")] != 1]
    notes = (f"lengths in {other[0]} are converted to millimetres",) if other else ()
    return np.diag([*(float(factor or 1) for factor in factors), 1.0]), notes


def write_nrrd(
    path: Path, array: NDArray[Any], geometry: Geometry, labels: Sequence[Label] = ()
) -> None:
    """Write ``.nrrd``, or ``.seg.nrrd`` with one segment a label, in the mask or not."""
    space = geometry.reference.get("nrrd", {}).get("space", "left-posterior-superior")
    affine = _SPACES[space.lower()] @ geometry.affine
    header: dict[str, Any] = {
        "space": space,
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "gzip",
    }
    segmentation = path.name.lower().endswith(".seg.nrrd")
    if segmentation:
        header |= _segment_keys(labels, array.shape)
    nrrd.write(str(path), array, header, index_order="F", compression_level=6)
    if segmentation:  # names in UTF-8, as Slicer writes them; pynrrd writes ASCII only
        names = [f"Segment{n}_Name:={' '.join(x.name.split())}" for n, x in enumerate(labels)]
        head, _, data = path.read_bytes().partition(b"\n\n")
        path.write_bytes("\n".join([head.decode(), *names]).encode() + b"\n\n" + data)


def _affine(columns: NDArray[np.float64], origin: ArrayLike) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    return affine


def _segment_keys(labels: Sequence[Label], shape: tuple[int, ...]) -> dict[str, str]:
    extent = " ".join(f"0 {n - 1}" for n in shape)
    keys = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for n, label in enumerate(labels):
        keys |= {
            f"Segment{n}_ID": f"Segment_{label.id}",
            f"Segment{n}_NameAutoGenerated": "0",
            f"Segment{n}_Color": " ".join(f"{c / 255:.6f}" for c in label.colour),
            f"Segment{n}_ColorAutoGenerated": "0",
            f"Segment{n}_LabelValue": str(label.id),
            f"Segment{n}_Layer": "0",
            f"Segment{n}_Extent": extent,
            f"Segment{n}_Tags": "Segmentation.Status:inprogress|",
        }
    return keys


def _segments(header: Mapping[str, Any]) -> list[tuple[int, Label]]:
    """Layer and label of each segment; files of Slicer before 4.11 have neither keys."""
    found: list[tuple[int, Label]] = []
    for n in itertools.takewhile(lambda n: f"Segment{n}_ID" in header, itertools.count()):
        value = int(header.get(f"Segment{n}_LabelValue", 1))
        red, green, blue = default_colour(value)
        parts = str(header.get(f"Segment{n}_Color", "")).split()
        if len(parts) == 3:
            red, green, blue = (min(max(round(255 * float(part)), 0), 255) for part in parts)
        name = str(header.get(f"Segment{n}_Name", unnamed(value)))
        layer = int(header.get(f"Segment{n}_Layer", 0))
        found.append((layer, Label(value, name, (red, green, blue))))
    return found


def _flattened(
    path: Path, array: NDArray[Any], segments: list[tuple[int, Label]], overlap: Overlap
) -> tuple[NDArray[Any], list[tuple[int, Label]], tuple[str, ...]]:
    """Bring the layers (i, j, k, layer) of a segmentation into one.

    Label values are kept where each segment has its own; otherwise segments are numbered from 1.
    """
    shared = int((np.count_nonzero(array, axis=3) > 1).sum())
    if shared and overlap == "refuse":
        raise VolumeError(
            f"{path}: holds overlapping segments; in Slicer, mask them against each other and "
            "collapse the label map layers"
        )
    own = len({label.id for _, label in segments}) == len(segments)
    flat = array.max(axis=3) if own else np.zeros(array.shape[:3], np.uint16)
    numbered = [
        (layer, label.id, label if own else replace(label, id=n))
        for n, (layer, label) in enumerate(segments, start=1)
    ]
    for layer, value, label in numbered if overlap == "last" else reversed(numbered):
        if 0 <= layer < array.shape[3]:
            flat[array[..., layer] == value] = label.id
    notes = (overlap_note(shared, overlap),) if shared else ()
    return flat, [(0, label) for _, _, label in numbered], notes
