"""Training examples: which slice, crop, flip, timestep and noise the n-th draw is.

Everything random about a draw follows from the seed and the draw's number alone. So a resumed
run sees what the unbroken one would have seen, and several processes see what one would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from diffseg_training.augment import NUMBERS, augmented, augments
from diffseg_training.diffusion import STEPS
from diffseg_training.settings import PretrainSettings
from napari_diffseg.network.backbone import Intensity


class Draw(NamedTuple):
    """One draw, or a batch of them.

    Attributes
    ----------
    image
        ``(1, N, N)`` float32 in [-1, 1].
    t
        Timestep.
    noise
        Standard normal, of the image's shape.
    """

    image: Tensor
    t: Tensor
    noise: Tensor


class Draws(Dataset[Draw]):
    """The endless sequence of draws from a set of slices.

    Parameters
    ----------
    slices
        Slices ``(grid, grid)`` in HU, int16.
    intensity
        HU to [-1, 1].
    size
        Side of the model grid N.
    settings
        Crops, flips, augmentation and seed.
    """

    def __init__(
        self,
        slices: Sequence[NDArray[np.int16]],
        intensity: Intensity,
        size: int,
        settings: PretrainSettings,
    ) -> None:
        self.slices = slices
        self.size = size
        self.settings = settings
        self.table = intensity_table(intensity)

    def __getitem__(self, draw: int) -> Draw:
        epoch, place = divmod(draw, len(self.slices))
        rng = np.random.Generator(np.random.Philox(key=[self.settings.seed, draw]))
        plane = self.slices[int(slice_order(len(self.slices), self.settings.seed, epoch)[place])]
        image = model_image(self._cropped(plane, rng), self.table, self.size)
        if self.settings.flip and rng.random() < 0.5:
            image = image.flip(-1)
        t = torch.tensor(_timestep(rng, self.settings.timestep_power))
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        if augments(self.settings):
            uniform = torch.from_numpy(rng.random((1, NUMBERS), dtype=np.float32))
            image = augmented(image, uniform, self.settings)
        return Draw(image, t, noise)

    def _cropped(self, plane: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.int16]:
        low, high = self.settings.crop
        if low == high == 1:
            return plane
        n = len(plane)
        side = round(rng.uniform(low, high) * n)
        if side > n:
            before = (side - n) // 2
            return np.pad(plane, (before, side - n - before), constant_values=int(plane.min()))
        y, x = rng.integers(0, n - side + 1, size=2)
        return plane[y : y + side, x : x + side]


def _timestep(rng: np.random.Generator, power: float) -> int:
    return int(rng.integers(STEPS)) if power == 1 else int(STEPS * rng.random() ** power)


def intensity_table(intensity: Intensity) -> NDArray[np.float32]:
    """Network value of every int16 HU; a look-up is ten times faster than interpolation."""
    return intensity.to_model(np.arange(65536, dtype=np.uint16).view(np.int16))


def model_image(plane: NDArray[np.int16], table: NDArray[np.float32], size: int) -> Tensor:
    """Square slice in HU as network input ``(1, size, size)``, resized as the app does it."""
    values = torch.from_numpy(table[np.ascontiguousarray(plane).view(np.uint16)])[None]
    if values.shape[-1] == size:
        return values
    resized = F.interpolate(
        values[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0]


@lru_cache(maxsize=2)
def slice_order(slices: int, seed: int, epoch: int) -> NDArray[Any]:
    """Order in which an epoch shows the slices."""
    return np.random.default_rng([seed, epoch]).permutation(slices)


class Shard(Sampler[list[int]]):
    """Draws of each micro-batch of one process, from an optimiser step on.

    The global batch of step ``s`` is the draws ``s * batch ... (s + 1) * batch - 1``; each process
    takes its consecutive share and divides it into ``accumulate`` parts.
    """

    def __init__(
        self, settings: PretrainSettings, first: int, last: int, rank: int = 0, world: int = 1
    ) -> None:
        self.settings, self.first, self.last = settings, first, last
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[int]]:
        batch, parts = self.settings.batch, self.settings.accumulate
        share = batch // self.world
        for step in range(self.first, self.last):
            start = step * batch + self.rank * share
            for part in range(parts):
                begin = start + part * share // parts
                yield list(range(begin, begin + share // parts))

    def __len__(self) -> int:
        return (self.last - self.first) * self.settings.accumulate
