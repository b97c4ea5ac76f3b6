"""Painted slices carried through the volume by registering slice to slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from diffseg_training.benchmark.baselines import (
    Field,
    Mask,
    PaintedSlices,
    full_slices,
    nearest_copy,
)
from napari_diffseg.io.volume import Volume


def registration(
    volume: Volume,
    painted: PaintedSlices,
    window: tuple[float, float] = (-200.0, 300.0),
    side: int = 128,
    iterations: int = 30,
    smoothing: float = 1.5,
) -> Mask:
    """Carry the painted slices through the volume by registering slice to slice.

    Each slice is registered (symmetric-forces demons, two resolutions) to its neighbour on the
    side of the painted slice. The displacements are composed, so that painted labels are
    interpolated once. Between two painted slices both are carried, and averaged with weights
    that fall linearly with the distance.

    Parameters
    ----------
    volume, painted
        As in :func:`nearest_copy`.
    window
        Range of HU that counts.
    side
        Longest side, in pixels, of the grid on which slices are registered.
    iterations
        Demons iterations at each resolution.
    smoothing
        Standard deviation of the field's smoothing, in pixels of that grid.

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
    Vercauteren et al., "Symmetric log-domain diffeomorphic registration", MICCAI 2008, as
    implemented by SimpleITK.
    """
    slices = full_slices(volume, painted)
    values = np.unique(np.stack(list(slices.values()))).astype(np.uint8)
    result = nearest_copy(volume, slices)
    if len(values) == 1:
        return result
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(iterations)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(smoothing)
    images = [_thinned(hu, window, side) for hu in volume.hu]
    votes = {z: _one_hot(mask, values) for z, mask in slices.items()}
    depth, zs = len(result), sorted(slices)
    for below, above in zip([-1, *zs], [*zs, depth], strict=True):
        gap = range(below + 1, above)
        up = _displacements(demons, images, below, gap) if below >= 0 else {}
        down = _displacements(demons, images, above, gap[::-1]) if above < depth else {}
        for z in gap:
            vote: Field = np.zeros((), np.float32)
            if up:
                weight = (above - z) / (above - below) if down else 1.0
                vote = vote + weight * _warped(votes[below], up[z])
            if down:
                weight = (z - below) / (above - below) if up else 1.0
                vote = vote + weight * _warped(votes[above], down[z])
            result[z] = values[np.argmax(vote, axis=-1)]
    return result


def _thinned(hu: NDArray[Any], window: tuple[float, float], side: int) -> sitk.Image:
    """One slice at the registration grid; lengths in pixels of the volume."""
    image = sitk.GetImageFromArray(np.clip(hu, *window).astype(np.float32))
    size = image.GetSize()
    scale = max(1.0, max(size) / side)
    grid = [max(1, round(n / scale)) for n in size]
    scales = [n / m for n, m in zip(size, grid, strict=True)]
    blurred = sitk.DiscreteGaussian(image, [(0.4 * s) ** 2 for s in scales]) if scale > 1 else image
    return sitk.Resample(
        blurred, grid, sitk.Transform(), sitk.sitkLinear, [(s - 1) / 2 for s in scales], scales
    )


def _displacements(
    demons: sitk.FastSymmetricForcesDemonsRegistrationFilter,
    images: Sequence[sitk.Image],
    start: int,
    order: Sequence[int],
) -> dict[int, sitk.Image]:
    """From each slice of `order`, one after the other, back to slice `start`."""
    fields: dict[int, sitk.Image] = {}
    nearer, carried = start, None
    for z in order:
        fixed, moving = images[z], images[nearer]
        coarse = [sitk.BinShrink(image, [2, 2]) for image in (fixed, moving)]
        first = demons.Execute(*coarse)
        initial = sitk.Resample(first, fixed, sitk.Transform(), sitk.sitkLinear, 0.0)
        field = demons.Execute(fixed, moving, initial)
        if carried is not None:
            # A point of this slice goes to the nearer slice first, and from there on.
            onward = sitk.Warp(
                carried,
                field,
                outputSpacing=field.GetSpacing(),
                outputOrigin=field.GetOrigin(),
                outputDirection=field.GetDirection(),
            )
            field = sitk.Add(field, onward)
        fields[z] = carried = field
        nearer = z
    return fields


def _one_hot(mask: Mask, values: Mask) -> sitk.Image:
    return sitk.GetImageFromArray((mask[..., None] == values).astype(np.float32), isVector=True)


def _warped(votes: sitk.Image, field: sitk.Image) -> Field:
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    warped: Field = sitk.GetArrayFromImage(sitk.Resample(votes, votes, transform, sitk.sitkLinear))
    return warped
