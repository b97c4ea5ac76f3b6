"""The painted slices that a session keeps, so that later patients can be learnt from them.

A session recognises its volume by a hash and knows no path. What the next patient needs is small:
the painted slices themselves and some that the session's own model has labelled, cut to the body,
at most 256 points across, with their HU. They are one file, ``slices.npz``. Besides pixels it holds
the volume's name, the spacing of its slices and the labels; of DICOM headers nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.cohort import Case, crop_case
from napari_diffseg.io.files import atomic_write
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label, ids_in, labels_from_json
from napari_diffseg.io.volume import Volume
from napari_diffseg.session.arrays import read_arrays, write_arrays
from napari_diffseg.session.journal import SessionError

FILE = "slices.npz"
_FORMAT = 1
_SCRIBBLED, _FULL, _PREDICTED = 0, 1, 2  # kinds of slices
_MAX_BYTES = 1 << 26  # of one array: more than 160 slices of 256 by 512 points


@dataclass(frozen=True)
class About:
    """What is known of stored slices without reading them.

    Attributes
    ----------
    name
        Of the volume: the stem of its file.
    labels
        The structures painted on them.
    slices
        How many of them are painted.
    """

    name: str
    labels: tuple[Label, ...]
    slices: int


def store_slices(
    folder: Path,
    volume: Volume,
    painted: Sequence[PaintedSlice],
    labels: Sequence[Label],
    predicted: Sequence[PaintedSlice] = (),
) -> None:
    """Write slices of a volume into a session's folder, in the place of earlier ones.

    Parameters
    ----------
    folder
        Of the session.
    volume, painted, labels
        The CT, its paint and the structures.
    predicted
        Slices that a model of this volume has labelled where it was sure, as scribbles.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    case = crop_case(Case(volume, painted, labels, predicted=predicted))
    kept = [*case.painted, *case.predicted]
    about = {
        "format": _FORMAT,
        "name": volume.name,
        "labels": [asdict(label) for label in case.labels],
        "slice_spacing_mm": float(case.volume.geometry.spacing[0]),
    }
    text = json.dumps(about).encode()
    arrays = {
        "about": np.frombuffer(text, np.uint8),
        "kind": np.array(
            [_FULL if slice_.full else _SCRIBBLED for slice_ in case.painted]
            + [_PREDICTED] * len(case.predicted),
            np.uint8,
        ),
        "mask": np.stack([slice_.mask for slice_ in kept]),
        "hu": case.volume.hu,
    }
    with atomic_write(folder / FILE) as part:
        write_arrays(part, arrays)


def about_slices(folder: Path) -> About:
    """Say what is stored in a session's folder.

    Raises
    ------
    SessionError
        If nothing is, or it is damaged, or of a newer version of this program.
    """
    values, kind = _about(folder)
    painted = int((kind != _PREDICTED).sum())
    return About(str(values["name"]), labels_from_json(values["labels"]), painted)


def read_slices(folder: Path) -> Case:
    """Read what is stored in a session's folder, as a case to learn from.

    Raises
    ------
    SessionError
        If nothing is, or it is damaged, or of a newer version of this program.
    """
    values, kind = _about(folder)
    try:
        labels = labels_from_json(values["labels"])
        mask, hu = read_arrays(folder / FILE, ("mask", "hu"), _MAX_BYTES)
        fits = mask.ndim == 3 and mask.shape == hu.shape and len(mask) == len(kind) > 0
        if not fits or mask.dtype != np.uint8 or hu.dtype != np.int16 or not mask.size:
            raise ValueError("its arrays do not fit each other")
        if set(ids_in(mask)) - {label.id for label in labels} - {BACKGROUND}:
            raise ValueError("a painted structure has no label")
        affine = np.diag([1.0, 1.0, float(values["slice_spacing_mm"]), 1.0])
        geometry = Geometry.from_affine(affine, hu.shape[::-1])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    slices = [PaintedSlice(z, plane, kind[z] == _FULL) for z, plane in enumerate(mask)]
    painted = [slice_ for slice_ in slices if kind[slice_.z] != _PREDICTED]
    predicted = [slice_ for slice_ in slices if kind[slice_.z] == _PREDICTED]
    volume = Volume(hu, geometry, str(values["name"]))
    return Case(volume, painted, labels, cropped=True, predicted=predicted)


def _about(folder: Path) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    path = folder / FILE
    if not path.is_file():
        raise SessionError(f"{folder}: stores no slices; open its volume and train once")
    try:
        text, kind = read_arrays(path, ("about", "kind"), _MAX_BYTES)
        values = json.loads(text.tobytes())
        version = values["format"]
        if not isinstance(version, int) or kind.ndim != 1:
            raise ValueError("is no row of slices")
        labels_from_json(values["labels"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folder, error) from error
    if version > _FORMAT:
        raise SessionError(f"{path}: was stored by a newer napari-diffseg; update it")
    return values, kind


def _damaged(folder: Path, error: Exception) -> SessionError:
    reason = str(error) if isinstance(error, ValueError) else "is incomplete"
    return SessionError(f"{folder / FILE}: {reason}; open its volume and train once")
