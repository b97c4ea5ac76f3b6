"""Registration of neighbouring slices: where each point of a slice lies in the next one."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Intensity

SOFT_TISSUE = Intensity((-1024.0, -160.0, 240.0, 1500.0), (-1.0, -0.9, 0.9, 1.0))
"""Soft tissue fills most of the range: the labels follow its edges."""

_ITERATIONS = 15
_LARGEST_STEP = 0.5  # pixels an iteration
_SMOOTHING = (0.1612, 0.6776)
"""Weights of a neighbour and of the point itself: the discrete Gaussian of 0.7 pixels, measured
better than 1.0, 1.5 and 2.0 on two CTs, cut after a pixel."""

_PAIRS = 8  # at a time: their tensors stay in a processor's cache
_CPU = torch.device("cpu")


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


def displacement(fixed: Tensor, moving: Tensor) -> Tensor:
    """Where each point of a slice lies in another one, both on the soft-tissue window.

    Parameters
    ----------
    fixed, moving
        Slices ``(..., rows, columns)`` as :func:`soft_tissue` gives them, on any device.

    Returns
    -------
    ``(..., 2, rows, columns)``: `fixed` at ``p`` looks like `moving` at ``p + displacement(p)``,
    with components (row, column) in pixels.

    Notes
    -----
    Additive demons with symmetric forces: Vercauteren et al., "Diffeomorphic demons", NeuroImage 45
    (2009), Eq. 4 with the mean of both gradients. The same numbers as SimpleITK's
    ``FastSymmetricForcesDemonsRegistrationFilter``, but many slices at once and on any device.
    """
    shape = fixed.shape
    fixed, moving = fixed.reshape(-1, *shape[-2:]), moving.reshape(-1, 1, *shape[-2:])
    rows, columns = shape[-2:]
    y = torch.arange(rows, device=fixed.device)[:, None]
    x = torch.arange(columns, device=fixed.device)
    scale = torch.tensor([columns - 1, rows - 1], device=fixed.device).clamp(min=1) / 2
    moved = fixed.new_zeros(len(fixed), 2, rows, columns)
    fixed_gradient = _gradient(fixed)
    for _ in range(_ITERATIONS):
        places = torch.stack([x + moved[:, 1], y + moved[:, 0]], dim=-1) / scale - 1
        warped = F.grid_sample(moving, places, padding_mode="border", align_corners=True)[:, 0]
        gradient = fixed_gradient + _gradient(warped)  # twice the mean
        difference = fixed - warped
        squares = gradient.square().sum(dim=1) + difference.square() / _LARGEST_STEP**2
        known = (places.abs() <= 1).all(dim=-1) & (difference.abs() > 1e-3)
        force = torch.where(known, 2 * difference / squares.clamp(min=1e-9), 0)
        moved = _smoothed(moved + force[:, None] * gradient)
    return moved.reshape(*shape[:-2], 2, rows, columns)


def _gradient(images: Tensor) -> Tensor:
    """Central differences ``(n, 2, rows, columns)`` of ``(n, rows, columns)``, 0 at the edges."""
    found = images.new_zeros(len(images), 2, *images.shape[1:])
    found[:, 0, 1:-1] = (images[:, 2:] - images[:, :-2]) / 2
    found[:, 1, :, 1:-1] = (images[..., 2:] - images[..., :-2]) / 2
    return found


def _smoothed(field: Tensor) -> Tensor:
    padded = F.pad(field, (1, 1, 1, 1), mode="replicate")
    side, middle = _SMOOTHING
    rows = side * (padded[:, :, :-2] + padded[:, :, 2:]) + middle * padded[:, :, 1:-1]
    return side * (rows[..., :-2] + rows[..., 2:]) + middle * rows[..., 1:-1]


def register(
    volume: Volume, grid: SliceGrid, device: torch.device = _CPU
) -> Generator[int, None, Registration]:
    """Register every slice to its neighbours.

    Parameters
    ----------
    volume
        The CT.
    grid
        Grid on which slices are compared.
    device
        Where to compute.

    Yields
    ------
    int
        Pairs done so far.

    Returns
    -------
    Registration
        The displacements.
    """
    count = len(volume.hu) - 1
    up = np.zeros((count, 2, *grid.size), np.float16)
    down = np.zeros_like(up)

    def pairs(first: int) -> int:
        last = min(first + _PAIRS, count)
        images = soft_tissue(grid, volume.hu[first : last + 1]).to(device)
        below, above = images[:-1], images[1:]
        up[first:last] = displacement(below, above).half().cpu().numpy()
        down[first:last] = displacement(above, below).half().cpu().numpy()
        return last

    threads = torch.get_num_threads()
    # Tensors of a few slices gain nothing from several threads, and wait long for busy ones.
    pool = ThreadPoolExecutor(
        threads if device.type == "cpu" else 1,
        initializer=torch.set_num_threads, initargs=(1,),
    )  # fmt: skip
    try:
        yield from pool.map(pairs, range(0, count, _PAIRS))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # of threads that begin from now on
    return Registration(up, down)
