"""Connected pieces of structures: which structures are one piece, and what is astray."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SHARE = 0.97  # of a structure that its largest piece holds, where it is called one piece


def single_pieces(mask: NDArray[np.uint8], ids: Iterable[int]) -> set[int]:
    """Say which labels are, but for crumbs, one connected piece.

    Parameters
    ----------
    mask
        Label ids of a whole volume ``(z, y, x)``.
    ids
        The labels; those that the mask does not hold are left out.

    Examples
    --------
    >>> mask = np.zeros((2, 3, 5), np.uint8)
    >>> mask[:, 1, :2], mask[:, :, 4], mask[:, 0, 0] = 1, 2, 2
    >>> single_pieces(mask, [1, 2, 3])
    {1}
    """
    found, boxes = set(), _boxes(mask)
    for label_id in ids:
        box = boxes.get(label_id)
        sizes = np.zeros(1, int) if box is None else _pieces(mask[box] == label_id)[1]
        if sizes.any() and sizes.max() >= _SHARE * sizes.sum():
            found.add(label_id)
    return found


def largest_pieces(mask: NDArray[np.uint8], ids: Iterable[int]) -> NDArray[np.uint8]:
    """Keep the largest piece of some labels; other pieces become background.

    Parameters
    ----------
    mask
        Label ids ``(z, y, x)``; it is not changed.
    ids
        Labels that are one piece each.

    Examples
    --------
    >>> largest_pieces(np.array([[[1, 1, 0, 1, 2]]], np.uint8), [1]).tolist()
    [[[1, 1, 0, 0, 2]]]
    """
    kept = mask.copy()
    for label_id in ids:
        pieces, sizes = _pieces(mask == label_id)
        if np.count_nonzero(sizes) > 1:
            kept[(pieces > 0) & (pieces != sizes.argmax())] = 0
    return kept


def unsupported_pieces(
    mask: NDArray[np.uint8], witness: NDArray[np.uint8], ids: Iterable[int]
) -> NDArray[np.bool_]:
    """Pieces of labels where something else says that there is none, ``(z, y, x)``.

    The largest piece of a label is never one of them.

    Parameters
    ----------
    mask
        Label ids ``(z, y, x)``.
    witness
        Label ids ``(z, y, x)`` from another source. A label that is several pieces there may be
        several pieces anywhere, and is left alone.
    ids
        Labels to look at.

    Examples
    --------
    >>> mask = np.array([[[1, 1, 0, 1, 0, 1]]], np.uint8)
    >>> witness = np.array([[[0, 1, 0, 0, 0, 1]]], np.uint8)
    >>> bool(unsupported_pieces(mask, witness, [1]).any())  # two pieces there: any may be right
    False
    >>> unsupported_pieces(mask, witness * (witness.cumsum() < 2), [1]).astype(int)
    array([[[0, 0, 0, 1, 0, 1]]])
    """
    stray, boxes = np.zeros(mask.shape, bool), _boxes(mask)
    for label_id in single_pieces(witness, ids) & boxes.keys():
        box = boxes[label_id]
        pieces, sizes = _pieces(mask[box] == label_id)
        supported = np.zeros(len(sizes), bool)
        supported[pieces[witness[box] == label_id]] = True
        supported[0] = supported[sizes.argmax()] = True
        stray[box] |= ~supported[pieces]
    return stray


def _boxes(mask: NDArray[np.uint8]) -> dict[int, tuple[slice, ...]]:
    """The smallest box around each label that is there; large volumes are mostly empty."""
    found = ndimage.find_objects(mask)
    return {label_id: box for label_id, box in enumerate(found, start=1) if box is not None}


def _pieces(there: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the pieces that share faces; sizes by number, 0 for what is not there."""
    pieces = np.zeros(there.shape, np.int32)
    count = ndimage.label(there, output=pieces)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    return pieces, sizes
