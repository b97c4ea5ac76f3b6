"""The formats of ITK and 3D Slicer: MetaImage, NRRD, and segmentations in it (``.seg.nrrd``).

Slicer writes one label map with a group of header keys for each segment (``Segment0_ID``,
``Segment0_Name``, ...), numbered from 0 without a gap, and ``Segment0_Extent`` in voxels of a
reference grid that starts at ``Segmentation_ReferenceImageExtentOffset``.
Source: Slicer manual, "Segmentation file (.seg.nrrd) file format".

NRRD goes through pynrrd, because SimpleITK reads neither bzip2 nor axes without a kind, and writes
neither the source's anatomical space nor its directions digit for digit.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import nrrd
import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_diffseg.io.formats import LPS, StoredImage, colour, not_a_volume, reading
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label, default_colour, unnamed

_ITEMSIZES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
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


def read_metaimage(path: Path) -> StoredImage:
    """Read ``.mha`` or ``.mhd``.

    Raises
    ------
    VolumeError
        If the file is damaged, a colour image, or says nowhere how it lies in the patient.
    """
    import SimpleITK as sitk  # 50 MB that nothing else here needs

    with reading(path):
        header, start = _metaimage_header(path)
        needed = ({"ElementSpacing", "ElementSize"}, {"TransformMatrix", "Orientation", "Rotation"})
        if not all(header.keys() & either for either in needed):
            raise VolumeError(
                f"{path}: has no ElementSpacing or TransformMatrix, so its place in the patient "
                "is unknown; export it again with both"
            )
        _check_data(path, header, start)
        image = sitk.ReadImage(str(path))
        if image.GetNumberOfComponentsPerPixel() > 1:
            raise colour(path)
        array = sitk.GetArrayFromImage(image).T
    n = image.GetDimension()
    if n < 3:
        raise not_a_volume(path, array.shape)
    columns = np.reshape(image.GetDirection(), (n, n))[:3, :3] * image.GetSpacing()[:3]
    return StoredImage(array, LPS @ _affine(columns, image.GetOrigin()[:3]))


def _metaimage_header(path: Path) -> tuple[dict[str, str], int]:
    """Keys of a MetaImage header, and where its own data would begin."""
    header: dict[str, str] = {}
    with path.open("rb") as stream:
        for line in stream:
            key, _, value = line.decode(errors="replace").partition("=")
            header[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                if value.strip().startswith("LIST"):
                    header["files"] = stream.read().decode(errors="replace")
                break
        return header, stream.tell()


def _check_data(path: Path, header: Mapping[str, str], start: int) -> None:
    """Refuse data that is short or damaged, where ITK hands out whatever lies in memory."""
    name = header.get("ElementDataFile", "")
    sizes = [int(n) for n in header.get("DimSize", "").split()]
    itemsize = _ITEMSIZES.get(header.get("ElementType", "").removesuffix("_ARRAY"))
    if not sizes or not itemsize or "%" in name or header.get("BinaryData", "True") == "False":
        return
    files = [path.parent / line.strip() for line in header.get("files", "").split("\n") if line]
    if not files:
        files, start = ([path], start) if name == "LOCAL" else ([path.parent / name], 0)
    elif len(files) != sizes[-1]:
        raise VolumeError(f"{path}: lists {len(files)} files for {sizes[-1]} slices; add the rest")
    elif not header["files"].endswith("\n"):
        raise VolumeError(f"{path}: has no line break after its last file; add one")
    else:
        start = 0
    expected = math.prod(sizes) * itemsize * int(header.get("ElementNumberOfChannels", 1))
    for file in files:
        with file.open("rb") as stream:
            stream.seek(start)
            if header.get("CompressedData", "False") == "True":
                found = _inflated_size(stream)
            else:
                found = file.stat().st_size - start
        if found < expected // len(files):
            raise VolumeError(f"{path}: its data ({file.name}) is cut off; copy it again")


def _inflated_size(stream: BinaryIO) -> int:
    """Size of compressed data whose checksum is right; 0 where the stream has no end."""
    inflate, size = zlib.decompressobj(), 0
    while not inflate.eof and (block := inflate.unconsumed_tail or stream.read(1 << 20)):
        size += len(inflate.decompress(block, 1 << 24))
    return size if inflate.eof else 0


def write_metaimage(
    path: Path, array: NDArray[Any], geometry: Geometry, labels: Sequence[Label] = ()
) -> None:
    """Write ``.mha``, or ``.mhd`` with its data beside it; compressed."""
    import SimpleITK as sitk

    affine = LPS @ geometry.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.T)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), True)


def read_nrrd(path: Path) -> StoredImage:
    """Read ``.nrrd``, ``.nhdr`` or ``.seg.nrrd``.

    Raises
    ------
    VolumeError
        If the file is damaged, a colour image, has overlapping segments, or says nowhere how it
        lies in the patient.
    """
    with reading(path), path.open("rb") as stream:
        # Slicer's names are in UTF-8; of bytes, pynrrd would keep the ASCII characters only.
        header = nrrd.read_header(line.decode(errors="replace") for line in stream)
        array = nrrd.read_data(header, stream, str(path), index_order="F")
        segments = _segments(header)
    if any("color" in str(kind).lower() for kind in header.get("kinds", ())):
        raise colour(path)
    space = str(header.get("space", "")).lower()
    if space not in _SPACES or "space directions" not in header or "space origin" not in header:
        raise VolumeError(
            f"{path}: has no anatomical space, directions and origin in its header, so its place "
            "in the patient is unknown; export it again from the original"
        )
    if any(str(unit) not in ("mm", "") for unit in header.get("space units", ())):
        raise VolumeError(f"{path}: is not in millimetres; save it in mm")
    steps = {
        axis: np.asarray(step, float)
        for axis, step in enumerate(header["space directions"])
        if step is not None and np.isfinite(step).any()
    }
    if len(steps) != 3:
        raise not_a_volume(path, array.shape)
    array = np.moveaxis(array, tuple(steps), range(3))
    if segments and array.ndim == 4:
        array, segments = _flattened(path, array, segments)
    return StoredImage(
        array,
        _SPACES[space] @ _affine(np.stack(list(steps.values()), 1), header["space origin"]),
        reference={"nrrd": {"space": header["space"]}},
        labels=tuple(label for _, label in segments),
        crop=bool(segments),
    )


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
    path: Path, array: NDArray[Any], segments: list[tuple[int, Label]]
) -> tuple[NDArray[Any], list[tuple[int, Label]]]:
    """Bring the layers (i, j, k, layer) of a segmentation into one, if no segments overlap.

    Label values are kept where each segment has its own; otherwise segments are numbered from 1.
    """
    if (np.count_nonzero(array, axis=3) > 1).any():
        raise VolumeError(
            f"{path}: holds overlapping segments; in Slicer, mask them against each other and "
            "collapse the label map layers"
        )
    if len({label.id for _, label in segments}) == len(segments):
        return array.max(axis=3), segments
    flat, renumbered = np.zeros(array.shape[:3], np.uint16), []
    for n, (layer, label) in enumerate(segments, start=1):
        if layer < array.shape[3]:
            flat[array[..., layer] == label.id] = n
        renumbered.append((0, replace(label, id=n)))
    return flat, renumbered
