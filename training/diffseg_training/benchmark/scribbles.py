"""Scribbles in place of slices painted in full: a few strokes in every structure and around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.engine.annotations import BACKGROUND

Mask = NDArray[np.uint8]
SHARE = 0.05
"""Share of a slice's pixels that the protocol ``scribbles`` paints."""
_FEWEST = 4  # pixels of a structure, where it has so many
_TURN = 0.35  # radians of change of direction from one pixel to the next


def scribbled(mask: Mask, ids: Sequence[int], z: int, share: float = SHARE) -> Mask:
    """Scribble on a slice: strokes one pixel wide, each inside one structure or the background.

    Parameters
    ----------
    mask
        Reference labels of the slice ``(y, x)``.
    ids
        Labels that are painted; all others are background.
    z
        Index of the slice: the same slice is scribbled on alike every time.
    share
        Share of the pixels of each structure, and of the background, that is painted.

    Returns
    -------
    ndarray
        Label of the painted pixels, 255 for painted background, 0 for all that is not known.
    """
    drawn = np.zeros(mask.shape, np.uint8)
    kept = np.where(np.isin(mask, ids), mask, 0)
    for value in np.unique(kept):
        region = kept == value
        count = min(int(region.sum()), max(_FEWEST, round(share * int(region.sum()))))
        random = np.random.default_rng([z, int(value)])
        drawn[_strokes(region, count, random)] = value or BACKGROUND
    return drawn


def _strokes(
    region: NDArray[np.bool_], count: int, random: np.random.Generator
) -> NDArray[np.bool_]:
    """`count` pixels of a region, in connected strokes that begin away from its edge."""
    drawn = np.zeros(region.shape, bool)
    # People scribble in the middle of a structure: strokes begin in its inner two thirds.
    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    parts, _ = ndimage.label(region)
    deepest = ndimage.maximum(depth, parts, np.arange(parts.max() + 1))
    inner = region & (depth >= np.minimum(deepest[parts] / 3, 3))
    longest = max(_FEWEST, round(2 * np.sqrt(region.sum() / np.pi)))
    left = count
    while left:
        free = np.flatnonzero((inner & ~drawn) if (inner & ~drawn).any() else (region & ~drawn))
        y, x = (float(v) for v in np.unravel_index(random.choice(free), region.shape))
        angle = random.uniform(0, 2 * np.pi)
        for _ in range(longest):
            at = round(y), round(x)
            outside = not (0 <= at[0] < region.shape[0] and 0 <= at[1] < region.shape[1])
            if left == 0 or outside or not region[at]:
                break
            left -= not drawn[at]
            drawn[at] = True
            angle += random.normal(0, _TURN)
            y, x = y + np.sin(angle), x + np.cos(angle)
    return drawn
