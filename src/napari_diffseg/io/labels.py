"""Labels of a mask: id, name, colour, and the files that name them."""

from __future__ import annotations

import colorsys
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.typed import from_json
from napari_diffseg.io.voxels import read_text

MAX_LABEL = 254
"""Largest label id. Masks are uint8 and 255 means *painted as background* in a scribbled slice."""

# Okabe and Ito's seven colours without black, then eight that were searched for on a grid so that
# any two of the fifteen differ by 10 CIEDE2000 or more for normal sight, protanopia, deuteranopia
# and tritanopia, and that none is grey or as dark as a lung; tests/io/test_label_colours.py.
_COLOURS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (136, 51, 102), (170, 0, 0), (170, 255, 204), (68, 102, 68), (153, 204, 136),
    (136, 119, 255), (85, 0, 238), (255, 187, 221),
)  # fmt: skip


_NAMES_BYTES = 1 << 20
"""254 names are shorter."""

Overlap = Literal["last", "first", "refuse"]
"""Which of several segments in one voxel a mask holds; Slicer's own label maps hold the last."""


@dataclass(frozen=True)
class Label:
    """One structure of a mask.

    Attributes
    ----------
    id
        Value in the mask, 1 to 254.
    name
        Such as ``"liver"``.
    colour
        Red, green, blue, 0 to 255.
    """

    id: int
    name: str
    colour: tuple[int, int, int]


def labels_from_json(values: Any) -> tuple[Label, ...]:
    """Make labels of what :func:`dataclasses.asdict` and JSON made of them.

    Raises
    ------
    ValueError
        If a label has another type, an id outside 1 to 254 or of another one, or no colour.
    """
    if not isinstance(values, list):
        raise ValueError("its labels are no list")
    labels = tuple(from_json(Label, item) for item in values)
    ids = {label.id for label in labels}
    if len(ids) < len(labels) or not ids <= set(range(1, MAX_LABEL + 1)):
        raise ValueError(f"its label ids are not distinct numbers from 1 to {MAX_LABEL}")
    for label in labels:
        if not label.name.strip() or has_control(label.name):
            raise ValueError(f"label {label.id} has no name that can be shown")
        if not all(0 <= part <= 255 for part in label.colour):
            raise ValueError(f"the colour of label {label.id} is outside 0 to 255")
    return labels


def has_control(name: str) -> bool:
    """Whether a name holds control characters, or half a character that no file can hold."""
    return any(unicodedata.category(c) in ("Cc", "Cs") for c in name)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A mask and the names of what is in it.

    Attributes
    ----------
    mask
        uint8 (z, y, x), 0 is background.
    labels
        Sorted by id.
    notes
        What the user should know, such as which of the overlapping segments were kept.
    """

    mask: NDArray[np.uint8]
    labels: tuple[Label, ...]
    notes: tuple[str, ...] = ()


def overlap_note(voxels: int, overlap: Overlap) -> str:
    """Say what became of segments that overlap."""
    where = f"in {voxels} voxels" if voxels else "in some voxels"
    return f"segments overlap {where}; the {overlap} one in the file is taken there"


def unnamed(label_id: int) -> str:
    """Name of a label that nobody has named."""
    return f"label {label_id}"


def default_colour(label_id: int) -> tuple[int, int, int]:
    """Colour of a label id; the first fifteen are safe for the colour-blind.

    Parameters
    ----------
    label_id
        1 to 254.

    Returns
    -------
    Red, green, blue, 0 to 255.

    Examples
    --------
    >>> default_colour(1)
    (230, 159, 0)
    """
    index = (label_id - 1) % MAX_LABEL
    if index < len(_COLOURS):
        return _COLOURS[index]
    # The golden ratio spreads the hues; lightness alternates so that neighbours differ in grey.
    hue, lightness = (index * 0.618034) % 1, (0.45, 0.7, 0.57)[index % 3]
    r, g, b = (round(255 * c) for c in colorsys.hls_to_rgb(hue, lightness, 0.75))
    return r, g, b


def ids_in(mask: NDArray[np.uint8]) -> list[int]:
    """List the values of a uint8 mask (z, y, x) but 0, slice by slice to spare memory."""
    counts = sum(np.bincount(plane.ravel(), minlength=256) for plane in mask)
    return [int(value) for value in np.flatnonzero(counts) if value]


def class_indices(labels: Iterable[Label]) -> NDArray[np.uint8]:
    """Look-up table from label ids to class indices.

    Parameters
    ----------
    labels
        Of the classes 1, 2, ..., in this order.

    Returns
    -------
    uint8 (256,): the class index of each id, 0 for ids without a label.

    Examples
    --------
    >>> mask = np.array([[0, 4], [9, 7]], np.uint8)
    >>> class_indices(labels_for([4, 9]))[mask]
    array([[0, 1],
           [2, 0]], dtype=uint8)
    """
    table = np.zeros(256, np.uint8)
    for index, label in enumerate(labels, start=1):
        table[label.id] = index
    return table


def labels_for(
    ids: Iterable[int], known: Iterable[Label] = (), names: Mapping[int, str] | None = None
) -> tuple[Label, ...]:
    """List the labels of some ids, with what is known of them.

    Parameters
    ----------
    ids
        Values of a mask; 0 and 255 are left out.
    known
        Labels whose names and colours are kept.
    names
        Names by id, which win over the known ones.

    Returns
    -------
    Sorted by id; unknown ones are called ``"label 7"`` and get their default colour.

    Examples
    --------
    >>> [label.name for label in labels_for([0, 1, 7], names={1: "liver"})]
    ['liver', 'label 7']
    """
    have = {label.id: label for label in known}
    names = names or {}
    result = []
    for label_id in sorted({int(i) for i in ids} - {0, 255}):
        old = have.get(label_id, Label(label_id, unnamed(label_id), default_colour(label_id)))
        result.append(Label(label_id, names.get(label_id, old.name), old.colour))
    return tuple(result)


def load_names(path: str | Path) -> dict[int, str]:
    """Read the names of labels from a JSON file.

    Parameters
    ----------
    path
        ``{"liver": 1, "spleen": 3}`` or ``{"1": "liver", "3": "spleen"}``; an entry for id 0
        (background) is left out.

    Returns
    -------
    Name by id.

    Raises
    ------
    VolumeError
        If the file cannot be read, or its ids are not whole numbers from 1 to 254, or an id or a
        name comes twice.

    Examples
    --------
    >>> from napari_diffseg.io import sample_names_path
    >>> load_names(sample_names_path())[13]
    'left kidney'
    """
    path = Path(path)
    try:
        text = read_text(path, _NAMES_BYTES)
        content = json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs))
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except VolumeError:
        raise
    except RecursionError as error:
        raise VolumeError(f'{path}: is nested too deep; write it as {{"liver": 1, ...}}') from error
    except json.JSONDecodeError as error:
        what = "is not JSON"
        if "escape" in error.msg:
            what = "holds a backslash, which JSON wants doubled (\\\\)"
        raise VolumeError(
            f'{path}: line {error.lineno} {what}; write it as {{"liver": 1, ...}}'
        ) from error
    except ValueError as error:
        raise VolumeError(f'{path}: is not UTF-8 text; write it as {{"liver": 1, ...}}') from error
    if not isinstance(content, dict):
        raise VolumeError(f'{path}: is not a JSON object; write it as {{"liver": 1, ...}}')
    result: dict[int, str] = {}
    for key, value in content.items():
        number, name = (key, value) if isinstance(value, str) else (value, key)
        label_id = int(number) if re.fullmatch("[0-9]{1,4}", str(number)) else -1
        if label_id == 0:
            continue
        if not 1 <= label_id <= MAX_LABEL:
            raise VolumeError(
                f"{path}: the entry {key[:100]!r} has no id from 1 to {MAX_LABEL}; "
                'write it as {"liver": 1, ...}'
            )
        if has_control(name):
            raise VolumeError(f"{path}: the name of {label_id} has characters that cannot be shown")
        if label_id in result or name in result.values():
            raise VolumeError(f"{path}: id {label_id} or name {name!r} comes twice; keep one")
        result[label_id] = name
    return dict(sorted(result.items()))


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of the pairs of a JSON file; of a repeated key, JSON would keep the last."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise VolumeError(f"{path}: the key {key!r} comes twice; keep one")
        result[key] = value
    return result
