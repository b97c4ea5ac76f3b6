"""Training examples drawn on the device, from slices that stay in its memory.

For cards that train faster than processors can cut and resize. Everything random about a step
follows from the seed and the step's number alone, so a resumed run sees what the unbroken one
would have seen; it is another sequence than that of :mod:`diffseg_training.data`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffseg_training.augment import NUMBERS, augmented, augments
from diffseg_training.data import Draw, intensity_table, slice_order
from diffseg_training.diffusion import STEPS
from diffseg_training.settings import PretrainSettings
from napari_diffseg.network.backbone import Intensity

_READ = 64  # slices a time that are put on the device


class ResidentDraws:
    """The endless sequence of batches, cut from slices in the device's memory.

    Parameters
    ----------
    slices
        Slices ``(grid, grid)`` in HU, int16. They are kept as half-precision network values.
    intensity
        HU to [-1, 1].
    size
        Side of the model grid N.
    settings
        Batch, parts, crops, flips, augmentation and seed.
    device
        Where they stay.
    """

    def __init__(
        self,
        slices: Sequence[NDArray[np.int16]],
        intensity: Intensity,
        size: int,
        settings: PretrainSettings,
        device: torch.device,
    ) -> None:
        self.size, self.settings, self.device = size, settings, device
        table = intensity_table(intensity)
        grid = len(slices[0])
        self.images = torch.empty(len(slices), grid, grid, dtype=torch.half, device=device)
        for first in range(0, len(slices), _READ):
            planes = np.stack([slices[n] for n in range(first, min(first + _READ, len(slices)))])
            values = torch.from_numpy(table[planes.view(np.uint16)])
            self.images[first : first + len(planes)] = values.to(device)

    def parts(self, step: int, rank: int = 0, world: int = 1) -> Iterator[Draw]:
        """Micro-batches of one process at an optimiser step, ``accumulate`` of them."""
        settings = self.settings
        generator = torch.Generator(self.device)
        generator.manual_seed(_step_seed(settings.seed, step))

        def uniform() -> Tensor:
            return torch.rand(settings.batch, generator=generator, device=self.device)

        # The whole batch is drawn whatever the processes: each takes its share of the same one.
        low, high = settings.crop
        grid = self.images.shape[-1]
        side = ((low + (high - low) * uniform()) * grid).round()
        free = grid - side
        # A crop lies anywhere inside the slice; one that is larger has the slice in its middle.
        corner = [
            torch.where(free >= 0, (place * (free + 1)).floor().minimum(free), -((-free) // 2))
            for place in (uniform(), uniform())
        ]
        flipped = (uniform() < 0.5) & settings.flip
        times = (STEPS * uniform() ** settings.timestep_power).long().clamp(max=STEPS - 1)
        shape = (settings.batch, 1, self.size, self.size)
        noise = torch.randn(shape, generator=generator, device=self.device)
        numbers = torch.rand(settings.batch, NUMBERS, generator=generator, device=self.device)
        chosen = self._chosen(step)
        share = settings.batch // world
        for part in range(settings.accumulate):
            begin = rank * share + part * share // settings.accumulate
            own = slice(begin, begin + share // settings.accumulate)
            images = cropped(
                self.images[chosen[own]].float(), corner[0][own], corner[1][own], side[own],
                self.size, max(0, math.ceil((high - 1) * grid / 2)) + 1,
            )  # fmt: skip
            images = torch.where(flipped[own, None, None], images.flip(-1), images)
            if augments(settings):
                images = augmented(images, numbers[own], settings)
            yield Draw(images[:, None], times[own], noise[own])

    def _chosen(self, step: int) -> Tensor:
        """Indices of a step's slices: every epoch shows each once, in an order of its own."""
        count, batch = len(self.images), self.settings.batch
        drawn = [divmod(draw, count) for draw in range(step * batch, (step + 1) * batch)]
        order = [int(slice_order(count, self.settings.seed, e)[place]) for e, place in drawn]
        return torch.tensor(order, device=self.device)


def cropped(
    images: Tensor, top: Tensor, left: Tensor, side: Tensor, size: int, padding: int
) -> Tensor:
    """Cut a square out of each image and resize it, bilinear without aliasing.

    Parameters
    ----------
    images
        ``(B, n, n)``.
    top, left, side
        First row, first column and side of each square ``(B,)``, whole pixels. What lies outside
        the image has its smallest value.
    size
        Side N of the result.
    padding
        Most pixels by which a square sticks out of the image at either end.

    Returns
    -------
    Tensor
        ``(B, N, N)``. The same as torch's ``interpolate(..., antialias=True)`` of each crop, as
        two matrix products for all of them at once.
    """
    air = images.amin(dim=(1, 2), keepdim=True)
    length = images.shape[-1]
    rows, columns = (_weights(start, side, length, size, padding) for start in (top, left))
    result: Tensor = rows @ (images - air) @ columns.transpose(1, 2) + air
    return result


def _weights(start: Tensor, side: Tensor, length: int, size: int, padding: int) -> Tensor:
    """Weight of each pixel of a line in each pixel of the resized crop, ``(B, N, length)``."""
    start, side = start[:, None, None], side[:, None, None]
    scale = side / size
    out = torch.arange(size, device=side.device)[:, None]
    centre = start + (out + 0.5) * scale - 0.5
    # Padding counts in the normalisation.
    pixel = torch.arange(-padding, length + padding, device=side.device)
    weights = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel >= start) & (pixel < start + side))
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights[..., padding : padding + length]


def _step_seed(seed: int, step: int) -> int:
    """Seed of a step; neighbouring steps and seeds share nothing."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) >> 1
