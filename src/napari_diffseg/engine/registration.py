"""Registration of neighbouring slices: where each point of a slice lies in the next one."""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Intensity

SOFT_TISSUE = Intensity((-1024.0, -160.0, 240.0, 1500.0), (-1.0, -0.9, 0.9, 1.0))
"""Soft tissue fills most of the range: the labels follow its edges."""

_ITERATIONS = 15
_SMOOTHING = 0.7  # pixels; measured better than 1.0, 1.5 and 2.0 on two CTs


@dataclass(frozen=True, eq=False)
class Registration:
    """Displacements between neighbouring slices, in grid pixels.

    Attributes
    ----------
    up
        ``(Z - 1, 2, rows, columns)`` float16: slice ``z`` at ``p`` looks like ``z + 1`` at
        ``p + up[z](p)``; components are (row, column).
    down
        The same from ``z + 1`` to ``z``.
    """

    up: NDArray[np.float16]
    down: NDArray[np.float16]

    def fits(self, volume: Volume, grid: SliceGrid) -> bool:
        """Whether it has the shape that ``volume`` has on ``grid``."""
        return self.up.shape == (len(volume.hu) - 1, 2, *grid.size)


def soft_tissue(grid: SliceGrid, hu: NDArray[np.int16]) -> Tensor:
    """Slices ``(n, y, x)`` in HU on the soft-tissue window ``(n, rows, columns)``."""
    return replace(grid, intensity=SOFT_TISSUE).image(hu)[:, 0]


def displacement(fixed: Tensor, moving: Tensor) -> NDArray[np.float16]:
    """Where each point of one slice lies in another one, both on the soft-tissue window.

    Parameters
    ----------
    fixed, moving
        Slices ``(rows, columns)`` as :func:`soft_tissue` gives them.

    Returns
    -------
    ``(2, rows, columns)``: `fixed` at ``p`` looks like `moving` at ``p + displacement(p)``, with
    components (row, column) in pixels.

    Notes
    -----
    Symmetric demons: Vercauteren et al., "Diffeomorphic demons", NeuroImage 45 (2009), as
    implemented by SimpleITK.
    """
    import SimpleITK as sitk  # 50 MB that training a backbone can do without

    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(_ITERATIONS)
    demons.SetStandardDeviations(_SMOOTHING)
    demons.SetNumberOfThreads(1)
    images = (sitk.GetImageFromArray(image.numpy()) for image in (fixed, moving))
    field = sitk.GetArrayFromImage(demons.Execute(*images))  # (rows, columns, 2)
    moved: NDArray[np.float16] = np.moveaxis(field[..., ::-1], -1, 0).astype(np.float16)
    return moved


def register(volume: Volume, grid: SliceGrid) -> Generator[int, None, Registration]:
    """Register every slice to its neighbours.

    Yields
    ------
    int
        Pairs done so far.

    Returns
    -------
    Registration
        The displacements.
    """

    def pair(z: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        below, above = (soft_tissue(grid, volume.hu[k][None])[0] for k in (z, z + 1))
        return displacement(below, above), displacement(above, below)

    count = len(volume.hu) - 1
    up = np.zeros((count, 2, *grid.size), np.float16)
    down = np.zeros_like(up)
    workers = max(1, min(torch.get_num_threads(), os.cpu_count() or 1))
    pool = ThreadPoolExecutor(workers)
    try:
        for z, (up[z], down[z]) in enumerate(pool.map(pair, range(count))):
            yield z + 1
    finally:
        pool.shutdown(cancel_futures=True)
    return Registration(up, down)
