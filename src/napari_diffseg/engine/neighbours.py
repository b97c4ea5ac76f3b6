"""Labels from neighbouring slices, without training: copied and fitted, or filled in between."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.engine.grid import SliceGrid, body_box
from napari_diffseg.engine.progress import result_of
from napari_diffseg.engine.propagation import PropagatedLabels
from napari_diffseg.engine.registration import SOFT_TISSUE, displacement, register, soft_tissue
from napari_diffseg.io.volume import Volume

_MAX_WIDTH = 256  # grid points across the body: pixels of about 1.5 mm, never finer than the CT's

Plane = NDArray[np.uint8]


def fitted(volume: Volume, plane: Plane, source: int, z: int) -> Plane:
    """Bring the labels of one slice to where the same anatomy lies on another one.

    Parameters
    ----------
    volume
        The CT.
    plane
        Label ids ``(y, x)`` of slice `source`.
    source, z
        Slices; near ones, for the anatomy must be alike.

    Returns
    -------
    Label ids ``(y, x)`` for slice `z`.
    """
    grid = _grid(volume)
    image = soft_tissue(grid, volume.hu[[z, source]])
    moved = _native(grid, displacement(image[0], image[1]).numpy())
    where = np.indices(plane.shape, np.float32) + moved
    ids = np.unique(plane)
    shares = [
        ndimage.map_coordinates((plane == i).astype(np.float32), where, order=1, mode="nearest")
        for i in ids
    ]
    return np.asarray(ids[np.argmax(shares, axis=0)])


def between(volume: Volume, planes: Mapping[int, Plane]) -> dict[int, Plane]:
    """Fill the slices between those that are known by propagating their labels.

    Parameters
    ----------
    volume
        The CT.
    planes
        Label ids ``(y, x)`` by slice, at least two.

    Returns
    -------
    Label ids ``(y, x)`` of each slice in between.
    """
    known = sorted(planes)
    ids = np.unique([0, *(i for plane in planes.values() for i in np.unique(plane))])
    grid = _grid(volume)
    found: dict[int, Plane] = {}
    for low, high in itertools.pairwise(known):
        if high - low < 2:
            continue
        registration = result_of(register(replace(volume, hu=volume.hu[low : high + 1]), grid))
        classes = np.searchsorted(ids, np.stack([planes[low], planes[high]])).astype(np.uint8)
        targets = grid.target(classes)
        propagated = PropagatedLabels(
            registration, {0: targets[0], high - low: targets[1]}, len(ids)
        )
        for z in range(low + 1, high):
            winner, _ = grid.native(propagated.at(z - low))
            found[z] = ids[winner].astype(np.uint8)
    return found


def _grid(volume: Volume) -> SliceGrid:
    y0, y1, x0, x1 = body_box(volume.hu)
    width = min(_MAX_WIDTH, max(y1 - y0, x1 - x0))
    return SliceGrid.of(volume, width, 1, SOFT_TISSUE)


def _native(grid: SliceGrid, moved: NDArray[np.float32]) -> NDArray[np.float32]:
    """Displacements ``(2, rows, columns)`` on the grid as those of native pixels ``(2, y, x)``."""
    y0, y1, x0, x1 = grid.box
    height, width = grid.shape
    fine = F.interpolate(
        torch.from_numpy(moved)[None],
        size=(y1 - y0, x1 - x0),
        mode="bilinear",
        align_corners=False,
    )[0].numpy()
    fine[0] *= (y1 - y0) / grid.size[0]
    fine[1] *= (x1 - x0) / grid.size[1]
    top, left = max(y0, 0), max(x0, 0)
    bottom, right = min(y1, height), min(x1, width)
    native = np.zeros((2, height, width), np.float32)
    native[:, top:bottom, left:right] = fine[:, top - y0 : bottom - y0, left - x0 : right - x0]
    return native
