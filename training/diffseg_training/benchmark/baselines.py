"""Segmentation of a volume from its painted slices without any learning.

What a user could do with a handful of library calls, and what every network has to beat. Each
function takes the volume and the painted slices and gives the mask of the whole volume; the
painted slices come back as they were painted.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.io.volume import Volume

Mask = NDArray[np.uint8]
Field = NDArray[np.float32]


class BaselineError(ValueError):
    """Painted slices that no baseline can work with."""


PaintedSlices = Sequence[PaintedSlice] | Mapping[int, Mask]


def nearest_copy(volume: Volume, painted: PaintedSlices) -> Mask:
    """Copy the nearest painted slice; of two equally near ones the lower.

    Parameters
    ----------
    volume
        CT of shape ``(z, y, x)``.
    painted
        Painted slices, or ``{z: mask}`` for slices painted in full. What was not painted on a
        scribbled slice counts as background.

    Returns
    -------
    ndarray
        Label of each voxel, uint8 ``(z, y, x)``.

    Raises
    ------
    BaselineError
        If no slice is painted, or one is outside the volume or of another shape.
    """
    slices = full_slices(volume, painted)
    zs = np.array(sorted(slices))
    nearest = zs[np.abs(np.arange(len(volume.hu))[:, None] - zs).argmin(axis=1)]
    return np.stack([slices[int(z)] for z in nearest])


def shape_interpolation(volume: Volume, painted: PaintedSlices) -> Mask:
    """Interpolate the signed distance of each label between the painted slices.

    A label that one of the two neighbours lacks shrinks to nothing on the way there. Beyond the
    outermost painted slices the shape of the last one is kept: shrinking it would end vessels
    and the esophagus, which run on.

    Parameters, returned mask and errors are those of :func:`nearest_copy`. Distances are in mm.

    Notes
    -----
    Raya and Udupa, "Shape-based interpolation of multidimensional objects", IEEE TMI 1990, with
    the largest distance of all labels and the background winning.
    """
    slices = full_slices(volume, painted)
    zs = sorted(slices)
    result = nearest_copy(volume, slices)
    values = np.unique(np.stack([slices[z] for z in zs])).astype(np.uint8)
    pixel = volume.geometry.spacing[1:]
    for below, above in itertools.pairwise(zs):
        if above - below < 2:
            continue
        pairs = [_signed_distances(slices[below] == v, slices[above] == v, pixel) for v in values]
        low, high = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
        for z in range(below + 1, above):
            share = (z - below) / (above - below)
            result[z] = values[((1 - share) * low + share * high).argmax(axis=0)]
    return result


def random_walker(
    volume: Volume,
    painted: PaintedSlices,
    window: tuple[float, float] = (-160.0, 240.0),
    beta: float | None = None,
    voxels: int = 2_000_000,
    stretch: float = 6.0,
) -> Mask:
    """Random walker in 3D with the painted slices as seeds.

    The volume is cropped in plane to the painted labels and a margin, and thinned in plane until
    no more than `voxels` voxels are left, which bounds the memory. Slices are never merged.

    Parameters
    ----------
    volume, painted
        As in :func:`nearest_copy`; unpainted pixels of a scribbled slice are not seeds.
    window
        Range of HU that counts.
    beta
        Weight of intensity differences. By default 30,000 for slices painted in full, where
        background from both sides would otherwise close over small structures; 1,000 for
        scribbles, which are far apart, so that noise must not stop the walker.
    voxels
        Most voxels of the system of equations.
    stretch
        Factor by which the distance between slices is stretched for slices painted in full: paint
        is dense in plane, and an edge between slices should hinder the walker less.

    Returns
    -------
    ndarray
        Label of each voxel, uint8 ``(z, y, x)``.

    Raises
    ------
    BaselineError
        As :func:`nearest_copy`.

    Notes
    -----
    Grady, "Random walks for image segmentation", IEEE TPAMI 2006, as implemented by scikit-image.
    """
    # Only here: the module is imported before it is known whether the extra is installed.
    from skimage import segmentation

    seeds = _seeds(volume, painted)
    dense = isinstance(painted, Mapping) or all(one.full for one in painted)
    result = np.zeros(seeds.shape, np.uint8)
    box = _box(seeds)
    step = max(1, int(np.ceil(np.sqrt(seeds[box].size / voxels))))
    thin = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    known = seeds[box][thin]
    values = np.unique(np.append(known, 0)).astype(np.uint8)
    labels = np.searchsorted(values, known)
    if len(values) > 2 and not labels.all():
        image = np.clip(volume.hu[box].astype(np.float32), *window) / (window[1] - window[0])
        spacing = np.array(volume.geometry.spacing) * (1, step, step)
        labels = segmentation.random_walker(
            ndimage.uniform_filter(image, (1, step, step))[thin],
            labels,
            beta=beta or (30_000.0 if dense else 1_000.0),
            mode="cg_j",
            tol=1e-2,
            spacing=spacing / spacing.min() * (stretch if dense else 1, 1, 1),
        )
    elif len(values) == 2:
        labels = np.ones_like(labels)
    shape = result[box].shape
    found = values[np.maximum(labels, 0)].repeat(step, axis=1).repeat(step, axis=2)
    edge = [(0, max(0, want - have)) for want, have in zip(shape, found.shape, strict=True)]
    result[box] = np.pad(found, edge, "edge")[:, : shape[1], : shape[2]]
    result = np.where(seeds > 0, seeds, result)
    result[result == BACKGROUND] = 0
    return result


def _seeds(volume: Volume, painted: PaintedSlices) -> Mask:
    """Painted labels in a volume: 0 unknown, 255 background, else the label."""
    seeds = np.zeros(volume.hu.shape, np.uint8)
    items: list[tuple[int, Mask, bool]] = (
        [(z, mask, True) for z, mask in painted.items()]
        if isinstance(painted, Mapping)
        else [(one.z, one.mask, one.full) for one in painted]
    )
    if not items:
        raise BaselineError("no slice is painted: paint at least one")
    for z, mask, full in items:
        if not 0 <= z < len(seeds) or mask.shape != seeds.shape[1:]:
            raise BaselineError(
                f"painted slice {z} of shape {mask.shape} does not fit the volume {seeds.shape}"
            )
        seeds[z] = np.where((mask == 0) & full, BACKGROUND, mask)
    return seeds


def full_slices(volume: Volume, painted: PaintedSlices) -> dict[int, Mask]:
    """Painted slices as ``{z: mask}``; what is not painted is background."""
    seeds = _seeds(volume, painted)
    seeds[seeds == BACKGROUND] = 0
    zs = painted if isinstance(painted, Mapping) else [one.z for one in painted]
    return {int(z): seeds[z] for z in sorted(zs)}


def _box(seeds: Mask, margin: int = 16) -> tuple[slice, slice, slice]:
    """All slices, and in plane what is painted with a margin in pixels."""
    painted: NDArray[np.bool_] = np.any((seeds > 0) & (seeds < BACKGROUND), axis=0)
    sides = []
    for axis in (1, 0):
        at = np.flatnonzero(painted.any(axis=axis))
        first, last = (at[0], at[-1]) if at.size else (0, painted.shape[1 - axis])
        sides.append(slice(max(0, first - margin), last + margin + 1))
    return slice(None), sides[0], sides[1]


def _signed_distances(
    below: NDArray[np.bool_], above: NDArray[np.bool_], pixel: Sequence[float]
) -> tuple[Field, Field]:
    """Signed distances in mm, positive inside, of one label on two slices.

    Where only one slice has the label, the other's distance is the same shape shrunk by twice
    its inner radius, so that the shape vanishes halfway.
    """
    if not below.any() and not above.any():
        nowhere = np.full(below.shape, -np.inf, np.float32)
        return nowhere, nowhere
    low, high = (
        ndimage.distance_transform_edt(np.pad(shape, 1), pixel)[1:-1, 1:-1]
        - ndimage.distance_transform_edt(np.pad(~shape, 1, "edge"), pixel)[1:-1, 1:-1]
        for shape in (below, above)
    )
    if not below.any():
        low = high - 2 * high.max()
    elif not above.any():
        high = low - 2 * low.max()
    return low.astype(np.float32), high.astype(np.float32)
