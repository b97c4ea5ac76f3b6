"""CT volumes and masks: what they are, and reading and writing them without moving a voxel.

Everything is read into the canonical order ``(z, y, x)`` (see :mod:`.geometry`) and
written back on the source grid. A written file is read again and compared before it takes its
name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.io import dicom, formats, hounsfield, metaimage, nrrd
from napari_diffseg.io.dicom_scan import is_dicom
from napari_diffseg.io.files import atomic_write, check_outputs
from napari_diffseg.io.formats import StoredImage
from napari_diffseg.io.geometry import Geometry, GridError, VolumeError
from napari_diffseg.io.labels import MAX_LABEL, Label, LabelMap, Overlap, ids_in, labels_for
from napari_diffseg.io.voxels import check_regular


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume.

    Attributes
    ----------
    hu
        int16 or float32 (z, y, x), Hounsfield units, in canonical order.
    geometry
        The source grid.
    name
        Stem of the file; never a patient's name.
    """

    hu: NDArray[Any]
    geometry: Geometry
    name: str


_Writer = Callable[[Path, NDArray[Any], Geometry, Sequence[Label]], None]
_READERS: dict[str, Callable[[Path], StoredImage]] = {
    **dict.fromkeys((".nii", ".nii.gz", ".hdr", ".img"), formats.read_nifti),
    **dict.fromkeys((".mha", ".mhd"), metaimage.read_metaimage),
    **dict.fromkeys((".nrrd", ".nhdr", ".seg.nrrd"), nrrd.read_nrrd),
}
_IMAGE_WRITERS: dict[str, _Writer] = {
    **dict.fromkeys((".nii", ".nii.gz"), formats.write_nifti),
    **dict.fromkeys((".mha", ".mhd"), metaimage.write_metaimage),
    ".nrrd": nrrd.write_nrrd,
}


# highdicom is imported when it is needed: half a second that a first picture can do without.
def _write_dicom(
    path: Path, array: NDArray[Any], geometry: Geometry, labels: Sequence[Label] = ()
) -> None:
    from napari_diffseg.io import dicomseg, rtstruct

    structures = _ending(path) == ".rtstruct.dcm"
    write = rtstruct.write_rtstruct if structures else dicomseg.write_dicomseg
    write(path, array, geometry, labels)


_MASK_WRITERS: dict[str, _Writer] = _IMAGE_WRITERS | {
    ".seg.nrrd": nrrd.write_nrrd,
    **dict.fromkeys((".dcm", ".rtstruct.dcm"), _write_dicom),
}

IMAGE_ENDINGS = tuple(ending for ending in _READERS if ending != ".seg.nrrd")
"""Of files that can hold a CT; DICOM is known by its content."""
LABEL_ENDINGS = (*_READERS, ".dcm")
"""Of files that :func:`read_labels` reads."""
MASK_ENDINGS = tuple(_MASK_WRITERS)
"""Of files that :func:`write_mask` writes."""

_ROUNDING = 0.02
"""Values this close to a whole number are that label, as files stored with a scale hold them."""


def read_volume(path: str | Path, series: str | None = None) -> Volume:
    """Read a CT volume.

    Parameters
    ----------
    path
        NIfTI, NRRD or MetaImage file, a folder with DICOM slices, or one file of a DICOM series.
    series
        Which series of a DICOM folder: its UID or its number.

    Returns
    -------
    The volume in canonical order; int16 where all values are whole, float32 otherwise.

    Raises
    ------
    VolumeError
        If there is no usable volume at the path.

    Examples
    --------
    >>> from napari_diffseg.io import sample_volume_path
    >>> volume = read_volume(sample_volume_path())
    >>> volume.hu.shape, volume.hu.dtype, volume.geometry.spacing
    ((133, 256, 256), dtype('int16'), (2.5, 1.40625, 1.40625))
    """
    path = Path(path)
    if path.name.upper() == "DICOMDIR" and path.is_file():
        path = path.parent
    if path.is_dir() or _is_dicom(path):
        hu, geometry, name = dicom.read_series(path, series)
    else:
        stored = _read(path)
        geometry, name = _geometry(path, stored), stem(path)
        hu = formats.to_hu(stored.planes(), geometry)
    notes = (*geometry.notes, *hounsfield.doubts(hu))
    return Volume(hu, replace(geometry, notes=notes), name)


def read_labels(
    path: str | Path,
    geometry: Geometry | None = None,
    part: bool = False,
    overlap: Overlap = "last",
    resample: bool = False,
) -> LabelMap:
    """Read a label file.

    Parameters
    ----------
    path
        NIfTI, NRRD, ``.seg.nrrd``, MetaImage, DICOM-SEG or RTSTRUCT file.
    geometry
        The grid that the labels must lie on; their file may store it in another order of axes.
    part
        Accept a file that covers only an aligned part of that grid; formats that crop to the
        labels, such as ``.seg.nrrd``, always may.
    overlap
        What a voxel becomes that is in several segments of a ``.seg.nrrd`` or DICOM-SEG: the last
        of them in the file, as in label maps that Slicer exports, the first, or an error.
    resample
        Bring labels that lie on another grid onto that grid: each voxel takes the label that lies
        nearest to its centre.

    Returns
    -------
    The mask in canonical order, the labels that are in it, and what the user should know.

    Raises
    ------
    VolumeError
        If there are no usable labels at the path, they lie on another grid, or they overlap and
        must not.

    Examples
    --------
    >>> from napari_diffseg.io import sample_labels_path
    >>> found = read_labels(sample_labels_path())
    >>> found.mask.shape, found.mask.dtype, found.labels[0]
    ((133, 256, 256), dtype('uint8'), Label(id=1, name='label 1', colour=(230, 159, 0)))
    """
    path = Path(path)
    stored = _read(path, geometry, overlap, resample)
    own = _geometry(path, stored)
    mask = _mask(path, stored)
    if geometry is not None:
        placed = geometry.placed(mask, stored.affine, part or stored.crop)
        if placed is None and resample:
            placed = _resampled(path, mask, stored.affine, geometry)
        if placed is None:
            raise GridError(
                f"{path}: lies on another grid ({_grid(own)}) than the volume "
                f"({_grid(geometry)}); export the labels on the volume's grid, or ask for "
                "resampling"
            )
        own, mask = geometry, placed
    mask = np.ascontiguousarray(own.to_canonical(mask))
    return LabelMap(mask, labels_for(ids_in(mask), stored.labels), stored.notes)


def write_mask(
    path: str | Path, mask: NDArray[np.uint8], geometry: Geometry, labels: Iterable[Label]
) -> None:
    """Write a mask on the source grid, read it again, compare, and only then give it its name.

    Parameters
    ----------
    path
        Its ending chooses the format.
    mask
        uint8 (z, y, x), 0 is background, at most 254.
    geometry
        Of the volume.
    labels
        Names and colours, for formats that hold them.

    Raises
    ------
    VolumeError
        If the mask is not a mask on this grid, would replace the volume itself, or could not be
        written or read back the same.

    Examples
    --------
    >>> geometry = Geometry.from_affine(np.diag([-1.0, -1, 2, 1]), (4, 3, 2))
    >>> mask = np.zeros(geometry.canonical_shape, np.uint8)
    >>> mask[1, :2] = 5
    >>> path = getfixture("tmp_path") / "mask.seg.nrrd"
    >>> write_mask(path, mask, geometry, labels_for([5], names={5: "aorta"}))
    >>> again = read_labels(path, geometry)
    >>> np.array_equal(again.mask, mask), again.labels[0].name
    (True, 'aorta')
    """
    path, mask = Path(path), np.asarray(mask)
    if mask.dtype.kind not in "iub" or (mask.size and (mask.min() < 0 or mask.max() > MAX_LABEL)):
        raise VolumeError(f"{path}: a mask holds whole numbers from 0 to {MAX_LABEL}; renumber it")
    if mask.shape != geometry.canonical_shape:
        raise VolumeError(
            f"{path}: the mask's shape {mask.shape} is not the volume's "
            f"{geometry.canonical_shape} (z, y, x); export it from the same volume"
        )
    check_outputs([path], [geometry.source])
    array = geometry.from_canonical(mask.astype(np.uint8, copy=False))
    writer: _Writer = _pick(path, _MASK_WRITERS)
    named = labels_for(itertools.chain(ids_in(mask), (x.id for x in labels)), labels)

    def check(part: Path) -> bool:
        return bool(np.array_equal(read_labels(part, geometry).mask, mask))

    _commit(path, lambda part: writer(part, array, geometry, named), check)


def write_volume(path: str | Path, volume: Volume) -> None:
    """Write a volume on its source grid, with the same care as :func:`write_mask`.

    Raises
    ------
    VolumeError
        If it would replace the file it was read from, or could not be written or read back the
        same.
    """
    path = Path(path)
    check_outputs([path], [volume.geometry.source])
    writer: _Writer = _pick(path, _IMAGE_WRITERS)
    array = volume.geometry.from_canonical(volume.hu)

    def check(part: Path) -> bool:
        again = read_volume(part)
        return bool(np.array_equal(again.hu, volume.hu)) and np.allclose(
            again.geometry.affine, volume.geometry.affine, atol=1e-3
        )

    _commit(path, lambda part: writer(part, array, volume.geometry, ()), check)


def stem(path: Path) -> str:
    """Name of a file without the ending of its format.

    Examples
    --------
    >>> stem(Path("patient 1.5mm.nii.gz"))
    'patient 1.5mm'
    """
    ending = _ending(path)
    return path.name[: -len(ending)] if ending else path.name


def _ending(path: Path) -> str | None:
    name = path.name.lower()
    fitting = [ending for ending in (*_READERS, *_MASK_WRITERS) if name.endswith(ending)]
    return max(fitting, key=len, default=None)


def _is_dicom(path: Path) -> bool:
    """Whether a file that no other reader claims by its ending is DICOM."""
    return _ending(path) not in _READERS and path.is_file() and is_dicom(path)


def _is_rtstruct(path: Path) -> bool:
    if not _is_dicom(path):
        return False
    from napari_diffseg.io.rtstruct import is_rtstruct

    return is_rtstruct(path)


def _pick(path: Path, choices: dict[str, Any]) -> Any:
    ending = _ending(path)
    if ending not in choices:
        raise VolumeError(f"{path}: unknown ending; use one of {', '.join(sorted(choices))}")
    return choices[ending]


def _read(
    path: Path,
    geometry: Geometry | None = None,
    overlap: Overlap = "last",
    resample: bool = False,
) -> StoredImage:
    if not path.exists():
        raise VolumeError(f"{path}: no such file; check the path")
    if path.suffix.lower() == ".zip":
        raise VolumeError(f"{path}: is a zip archive; unpack it and choose what is inside")
    check_regular(path)
    structures = _is_rtstruct(path)
    if structures or path.suffix.lower() == ".dcm":
        stored = _read_dicom(path, structures, geometry, overlap, resample)
    elif path.suffix.lower() in (".nrrd", ".nhdr"):
        stored = nrrd.read_nrrd(path, overlap)
    else:
        stored = _pick(path, _READERS)(path)
    if stored.array.dtype.kind not in "iubf":
        raise formats.colour(path)
    return stored


def _read_dicom(
    path: Path, structures: bool, geometry: Geometry | None, overlap: Overlap, resample: bool
) -> StoredImage:
    from napari_diffseg.io import dicomseg, rtstruct

    if structures:
        return rtstruct.read_rtstruct(path, geometry, resample)
    try:
        return dicomseg.read_dicomseg(path, geometry, overlap)
    except GridError:
        if not resample:
            raise
        # On a grid of its own, if its frames make one.
        return dicomseg.read_dicomseg(path, overlap=overlap)


def _resampled(
    path: Path, mask: NDArray[np.uint8], affine: NDArray[np.float64], geometry: Geometry
) -> NDArray[np.uint8]:
    """Labels (i, j, k) of another grid on this one, nearest neighbour, 0 outside of theirs."""
    mapping = np.linalg.inv(affine) @ geometry.affine
    found: NDArray[np.uint8] = ndimage.affine_transform(
        mask, mapping[:3, :3], mapping[:3, 3], geometry.shape, order=0, mode="constant"
    )
    if mask.any() and not found.any():
        raise VolumeError(
            f"{path}: its labels lie outside of the volume; choose those of the same patient"
        )
    return found


def _geometry(path: Path, stored: StoredImage) -> Geometry:
    shape = stored.array.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise formats.not_a_volume(path, shape)
    return Geometry.from_affine(stored.affine, shape, stored.notes, stored.reference, path)


def _grid(geometry: Geometry) -> str:
    spacing = " x ".join(f"{s:.4g}" for s in geometry.spacing)
    return f"{' x '.join(str(n) for n in geometry.canonical_shape)} voxels of {spacing} mm"


def _mask(path: Path, stored: StoredImage) -> NDArray[np.uint8]:
    mask = np.zeros(stored.array.shape[:3], np.uint8, order="F")
    for k, plane in enumerate(stored.planes()):
        if not np.isfinite(plane).all():
            raise VolumeError(f"{path}: holds NaN or infinite voxels; choose a label file")
        real = plane.dtype.kind == "f"
        whole = np.rint(plane) if real else plane
        if whole.min() < 0 or whole.max() > MAX_LABEL:
            raise VolumeError(f"{path}: holds values outside 0 to {MAX_LABEL}; renumber its labels")
        if real and np.abs(plane - whole).max() > _ROUNDING:
            raise VolumeError(f"{path}: holds fractions, so it is an image; choose a label file")
        mask[..., k] = whole
    return mask


def _commit(path: Path, write: Callable[[Path], None], check: Callable[[Path], bool]) -> None:
    part = path
    try:
        with atomic_write(path) as part:
            write(part)
            if not check(part):
                raise VolumeError(f"{path}: reads back differently; nothing was written")
    except VolumeError as error:
        raise VolumeError(str(error).replace(str(part), str(path))) from error
    except OSError as error:
        reason = error.strerror or error
        raise VolumeError(f"{path}: cannot be written ({reason}); choose another place") from error
    except Exception as error:  # the libraries' own classes share no base
        if formats.out_of_memory(error):
            raise MemoryError(f"{path}: cannot be written") from error
        reason = " ".join(str(error).split())[:200]
        raise VolumeError(f"{path}: cannot be written ({reason}); try another format") from error
