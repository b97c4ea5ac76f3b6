"""NIfTI, and what the readers of all formats share.

Readers hand over what the file holds, unscaled, in the order ``(i, j, k)`` of the file, with its
affine in RAS+. Whether that is a usable volume or mask is judged in one place, by ``volume``.
Writers get an array ``(i, j, k)`` on the source grid, that grid, and the labels of a mask.
"""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label, unnamed
from napari_diffseg.io.voxels import Packing, check_claim, check_regular

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns the LPS+ millimetres of DICOM, ITK and most NRRD files into RAS+, and back."""

_NIFTI_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units",
)  # fmt: skip

_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}

_MOST_BLOCKS = 64
"""So many blocks of 1 MiB may stand before the voxels, as extensions, and after them."""

_SAME_PLACE = 0.5
"""A qform further than this from the sform, in mm, is another place. Below, it is rounding: near a
half turn the float32 quaternion of a qform is off by some tenths of a millimetre."""

_MEMORY = (
    "bad_alloc", "bad allocation", "ailed to allocate memory", "annot allocate memory",
    "can't allocate memory", "failed to map segment", "could not create a primitive",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class StoredImage:
    """What a file holds, before it is judged.

    Attributes
    ----------
    array
        Stored values, axes ``(i, j, k, ...)``.
    affine
        float64 (4, 4), voxel to RAS+ mm.
    slope, intercept
        Stored value to HU.
    notes, reference
        As in :class:`~napari_diffseg.io.geometry.Geometry`.
    labels
        Labels that the file names.
    crop
        Whether this format stores a part of a grid as a matter of course.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    notes: tuple[str, ...] = ()
    reference: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()
    crop: bool = False

    def planes(self) -> Iterator[NDArray[Any]]:
        """Planes (i, j) of HU for each k; further axes must have length one."""
        for k in range(self.array.shape[2]):
            plane = self.array[:, :, k].reshape(self.array.shape[:2])
            yield scaled(plane, self.slope, self.intercept)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what libraries raise on a broken file into one line."""
    try:
        yield
    except VolumeError:
        raise
    except FileNotFoundError as error:
        missing = Path(str(error.filename or path))
        if missing.name != path.name:
            raise VolumeError(
                f"{path}: its data file {missing.name} is missing; put it beside the header"
            ) from error
        raise VolumeError(f"{path}: no such file; check the path") from error
    except (EOFError, zlib.error) as error:
        raise VolumeError(f"{path}: is cut off or damaged; copy or download it again") from error
    except Exception as error:  # the libraries' own classes share no base
        message = str(error).split("ITK ERROR:")[-1]
        if out_of_memory(error):
            raise VolumeError(
                f"{path}: does not fit into memory; close other programs, or crop the volume"
            ) from error
        reason = " ".join(message.split())[:200] or type(error).__name__
        raise VolumeError(f"{path}: cannot be read ({reason}); copy or export it again") from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: libraries raise what they like, in their words."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _MEMORY)


def read_nifti(path: Path) -> StoredImage:
    """Read ``.nii`` or ``.nii.gz``, compressed or not whatever its name, or ``.hdr`` and ``.img``.

    Raises
    ------
    VolumeError
        If the file is damaged, or says nowhere how it lies in the patient.
    """
    pair = path.suffix.lower() in (".hdr", ".img")
    with reading(path), _opened(path.with_suffix(".hdr") if pair else path) as stream:
        start = stream.read(540)
        nifti2 = start[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
        if pair:
            if b"ni1\0" not in start[344:] and b"ni2\0" not in start[4:8]:
                raise VolumeError(
                    f"{path}: is Analyze, which does not say left from right; convert it again "
                    "from the original"
                )
            _check_header(path, path.with_suffix(".img"), start, nifti2)
            image = (nib.Nifti2Pair if nifti2 else nib.Nifti1Pair).from_filename(path)
        else:
            _check_header(path, path, start, nifti2)
            stream.seek(0)
            image = (nib.Nifti2Image if nifti2 else nib.Nifti1Image).from_stream(stream)
        header = image.header
        codes = int(header["qform_code"]), int(header["sform_code"])
        if codes == (0, 0):
            raise VolumeError(
                f"{path}: has no orientation (qform_code and sform_code are 0); "
                "convert it again from the original, for example with dcm2niix"
            )
        array = np.asanyarray(image.dataobj.get_unscaled())
        for _ in range(_MOST_BLOCKS):  # gzip checks its length and sum only at the very end
            if not stream.read(1 << 20):
                break
        else:
            raise VolumeError(f"{path}: holds more data than its header says; export it again")
        unit = header.get_xyzt_units()[0]
        to_mm = np.diag([_MILLIMETRES[unit]] * 3 + [1.0])
        notes = []
        if unit in ("meter", "micron"):
            notes.append(
                f"lengths in {unit.replace('meter', 'metre')}s are converted to millimetres"
            )
        if min(codes) > 0:
            apart = _apart(to_mm @ header.get_qform(), to_mm @ header.get_sform(), array.shape)
            if apart > _SAME_PLACE:
                notes.append(f"qform and sform lie {apart:.3g} mm apart; the sform is used")
        reference = {name: np.array(header[name]) for name in _NIFTI_FIELDS} | {"nifti2": nifti2}
        return StoredImage(
            array,
            to_mm @ np.asarray(image.affine, np.float64),
            float(image.dataobj.slope),
            float(image.dataobj.inter),
            tuple(notes),
            {"nifti": reference},
        )


def _check_header(path: Path, data: Path, start: bytes, nifti2: bool) -> None:
    """Refuse a header that claims more than the file holds, before nibabel believes it."""
    header = (nib.Nifti2Header if nifti2 else nib.Nifti1Header)(
        start[: 540 if nifti2 else 348], check=False
    )
    check_regular(data)
    if not 0 <= float(header["vox_offset"]) <= _MOST_BLOCKS << 20:
        raise VolumeError(f"{path}: is damaged: its voxels would begin elsewhere; copy it again")
    itemsize = header.get_data_dtype().itemsize
    packing: Packing = "gzip" if _is_packed(data) else ""
    claimed = check_claim(path, header.get_data_shape(), itemsize, data.stat().st_size, packing)
    if data.stat().st_size > 2 * claimed + (_MOST_BLOCKS << 20):
        raise VolumeError(f"{path}: holds more data than its header says; export it again")


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _opened(path: Path) -> IO[bytes]:
    """Open a file that is compressed or not, by its content."""
    return cast("IO[bytes]", gzip.open(path)) if _is_packed(path) else path.open("rb")


def _apart(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest distance in mm between the places that two affines give to a corner of a grid."""
    corners = [*itertools.product(*((0, n - 1) for n in (*shape, 1)[:3]), [1])]
    return float(np.linalg.norm((one - other) @ np.transpose(corners), axis=0).max())


def write_nifti(
    path: Path, array: NDArray[Any], geometry: Geometry, labels: Sequence[Label] = ()
) -> None:
    """Write ``.nii`` or ``.nii.gz`` with the source's own qform and sform fields where it has any.

    NIfTI has no place for names that viewers agree on; where labels have any, they are written
    beside it as ITK-SNAP's label descriptions (*Segmentation, Import Label Descriptions*).
    """
    described = description_path(path)
    if described and any(label.name != unnamed(label.id) for label in labels):
        described.write_text(_descriptions(labels), encoding="utf-8")
    fields = cast("Mapping[str, Any]", geometry.reference.get("nifti", {}))
    nifti2 = bool(fields.get("nifti2", max(geometry.shape) > 32767))
    image_class = nib.Nifti2Image if nifti2 else nib.Nifti1Image
    header = image_class.header_class()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_xyzt_units("mm")
    for name in _NIFTI_FIELDS:
        if name in fields:
            header[name] = fields[name]
    if not fields:
        header.set_sform(geometry.affine, code=1)
        header.set_qform(geometry.affine, code=1)
        # A qform holds no shear (gantry tilt); a wrong one must not stand beside the sform. One
        # that is off by rounding may: without it ITK opens no file that is sheared ever so little.
        if is_sheared(geometry, header.get_qform()):
            header.set_qform(None, code=0)
            header["pixdim"][1:4] = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    # Without an affine nibabel leaves the header's fields as they are, bit for bit.
    image = image_class(array, None, header)
    with path.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            image.to_stream(file)
            return
        # No name and no time in the gzip header: the same mask gives the same bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as stream:
            image.to_stream(stream)


def is_sheared(geometry: Geometry, qform: NDArray[np.float64] | None = None) -> bool:
    """Whether a NIfTI file needs a shear to hold a grid, which programs built on ITK do not open.

    Parameters
    ----------
    geometry
        The grid.
    qform
        (4, 4), the nearest grid without a shear; default: found here.
    """
    if qform is None:
        header = nib.Nifti1Header()
        header.set_qform(geometry.affine, code=1)
        qform = header.get_qform()
    return _apart(qform, geometry.affine, geometry.shape) > _SAME_PLACE


def description_path(path: Path) -> Path | None:
    """Where the names of a NIfTI mask's labels are written; None for other formats.

    Examples
    --------
    >>> description_path(Path("mask.nii.gz")).name
    'mask.labels.txt'
    """
    found = re.fullmatch(r"(.+)\.nii(\.gz)?", path.name, re.IGNORECASE)
    return path.with_name(f"{found[1]}.labels.txt") if found else None


def _descriptions(labels: Sequence[Label]) -> str:
    """Text of an ITK-SNAP label description file: index, colour, opacity, two switches, name."""
    rows = [(0, 0, 0, 0, 0, 0, 0, "Clear Label")]
    rows += [(x.id, *x.colour, 1, 1, 1, " ".join(x.name.replace('"', "'").split())) for x in labels]
    lines = ["# ITK-SnAP Label Description File", "# IDX -R- -G- -B- -A- VIS MSH LABEL"]
    lines += [" ".join(map(str, row[:-1])) + f' "{row[-1]}"' for row in rows]
    return "\n".join(lines) + "\n"


def colour(path: Path) -> VolumeError:
    """Error for an image with several values a voxel."""
    return VolumeError(f"{path}: is a colour image; export the grey CT values")


def not_a_volume(path: Path, shape: tuple[int, ...]) -> VolumeError:
    """Error for an image that does not have three axes."""
    size = " x ".join(str(n) for n in shape)
    return VolumeError(f"{path}: is {len(shape)}D ({size}); export one 3D volume")


def scaled(plane: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Turn stored values into HU, in whole numbers where they are whole."""
    if (slope, intercept) == (1.0, 0.0):
        return plane
    if plane.dtype.kind in "iub" and slope.is_integer() and intercept.is_integer():
        return plane.astype(np.int64) * int(slope) + int(intercept)
    return plane * np.float64(slope) + intercept


def to_hu(planes: Iterable[NDArray[Any]], geometry: Geometry) -> NDArray[Any]:
    """Collect the planes (i, j) of a source grid, one for each k, as a volume of HU.

    Returns
    -------
    (z, y, x) in canonical order, int16 where all values are whole and fit, float32 otherwise;
    contiguous, and the only copy.

    Raises
    ------
    VolumeError
        If a value is NaN or infinite.
    """
    hu: NDArray[Any] = np.empty(geometry.canonical_shape, np.int16)
    source = geometry.from_canonical(hu)
    limits = np.iinfo(np.int16)
    for k, plane in enumerate(planes):
        real = plane.dtype.kind == "f"
        if real and not np.isfinite(plane).all():
            raise VolumeError(
                f"{geometry.source}: holds NaN or infinite voxels; replace them, for example by "
                "-1024"
            )
        if hu.dtype == np.int16 and plane.dtype != np.int16:
            fits = plane.min() >= limits.min and plane.max() <= limits.max
            if not fits or (real and (plane != np.rint(plane)).any()):
                hu = hu.astype(np.float32)
                source = geometry.from_canonical(hu)
        source[..., k] = plane
    return hu
