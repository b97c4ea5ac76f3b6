"""Edits of one structure's mask, in millimetres: holes, islands, smoothing, growing, shrinking.

Masks are boolean, of a slice ``(y, x)`` or a volume ``(z, y, x)``, with the spacing of the same
axes in mm. Beyond the edge of the picture nothing is known, so no mask is shrunk from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Kind = Literal["fill holes", "keep largest", "remove islands", "smooth", "grow", "shrink"]


@dataclass(frozen=True)
class Edit:
    """One edit, to be called with a mask and its spacing.

    Attributes
    ----------
    kind
        What is done.
    amount
        In mm for smooth, grow and shrink; in mm² on a slice and mm³ in a volume for islands.
    """

    kind: Kind
    amount: float = 0.0

    def __call__(self, mask: Mask, spacing: Sequence[float]) -> Mask:
        """Return the edited mask."""
        match self.kind:
            case "fill holes":
                return fill_holes(mask)
            case "keep largest":
                return keep_largest(mask)
            case "remove islands":
                return remove_islands(mask, spacing, self.amount)
            case "smooth":
                return smooth(mask, spacing, self.amount)
            case "grow":
                return grow(mask, spacing, self.amount)
            case "shrink":
                return shrink(mask, spacing, self.amount)


def fill_holes(mask: Mask) -> Mask:
    """Fill what a mask encloses.

    Examples
    --------
    >>> ring = np.ones((3, 3), bool)
    >>> ring[1, 1] = False
    >>> bool(fill_holes(ring).all())
    True
    """
    return _in_box(mask, [1] * mask.ndim, ndimage.binary_fill_holes)


def keep_largest(mask: Mask) -> Mask:
    """Keep the largest piece; pieces that touch at a corner only are two.

    Examples
    --------
    >>> keep_largest(np.array([[1, 0, 1, 1]], bool))
    array([[False, False,  True,  True]])
    """
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask.copy()
    return np.asarray(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)


def remove_islands(mask: Mask, spacing: Sequence[float], smallest: float) -> Mask:
    """Remove pieces that are smaller than ``smallest``, in mm² or, of a volume, mm³.

    Examples
    --------
    >>> remove_islands(np.array([[1, 0, 1, 1]], bool), (1.0, 2.0), 3.0)
    array([[False, False,  True,  True]])
    """
    pieces, _ = ndimage.label(mask)
    large = np.bincount(pieces.ravel()) * float(np.prod(spacing)) >= smallest
    large[0] = False
    return np.asarray(large[pieces])


def smooth(mask: Mask, spacing: Sequence[float], mm: float) -> Mask:
    """Round corners off: blur with a standard deviation of ``mm``, and keep what is above half.

    Pieces and gaps narrower than about ``mm`` vanish; a straight edge stays where it is.
    """
    sigma = [mm / step for step in spacing]

    def blur(part: Mask) -> Mask:
        return np.asarray(
            ndimage.gaussian_filter(part.astype(np.float32), sigma, mode="nearest") > 0.5
        )

    return _in_box(mask, [int(np.ceil(4 * s)) for s in sigma], blur)


def grow(mask: Mask, spacing: Sequence[float], mm: float) -> Mask:
    """Add everything that is within ``mm`` of a mask.

    Examples
    --------
    >>> grow(np.array([[0, 0, 1, 0, 0]], bool), (1.0, 2.0), 2.0)
    array([[False,  True,  True,  True, False]])
    """

    def near(part: Mask) -> Mask:
        return np.asarray(ndimage.distance_transform_edt(~part, sampling=spacing) <= mm)

    return _in_box(mask, [int(np.ceil(mm / step)) for step in spacing], near)


def shrink(mask: Mask, spacing: Sequence[float], mm: float) -> Mask:
    """Take off everything that is within ``mm`` of what is not in the mask.

    Examples
    --------
    >>> shrink(np.array([[0, 1, 1, 1, 0]], bool), (1.0, 2.0), 2.0)
    array([[False, False,  True, False, False]])
    """

    def inside(part: Mask) -> Mask:
        if part.all():
            return part.copy()
        return np.asarray(ndimage.distance_transform_edt(part, sampling=spacing) > mm)

    return _in_box(mask, [1] * mask.ndim, inside)


def replaced(labels: NDArray[np.uint8], label_id: int, wanted: Mask) -> NDArray[np.uint8]:
    """Give one label another mask; it takes free pixels only, never those of other labels.

    Parameters
    ----------
    labels
        Label ids, 0 where nothing is.
    label_id
        Which one.
    wanted
        Its new mask.

    Returns
    -------
    Label ids; a new array.
    """
    before = labels == label_id
    after = labels.copy()
    after[before & ~wanted] = 0
    after[wanted & (labels == 0)] = label_id
    return after


def _in_box(mask: Mask, margin: Sequence[int], edit: Callable[[Mask], Mask]) -> Mask:
    """Edit the box around a mask, widened by some voxels: most of a volume is far from it."""
    after = np.zeros_like(mask)
    if mask.any():
        (box,) = ndimage.find_objects(mask.astype(np.uint8))
        wide = tuple(
            slice(max(0, part.start - more), part.stop + more)
            for part, more in zip(box, margin, strict=True)
        )
        after[wide] = edit(mask[wide])
    return after
