"""The diffusion process: noise schedules, noising and the two samplers.

Schedules come from MONAI; the reverse step is our own, because MONAI 1.6's ``DDIMScheduler``
pairs rounded timesteps with a fixed stride that does not match them (50 steps of 1000 are 20.4
apart, it uses 20) and keeps the unclipped noise after clipping the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from monai.networks.schedulers import DDPMScheduler, NoiseSchedules
from torch import Tensor

from diffseg_training.settings import Schedule

STEPS = 1000
"""Timesteps T of the diffusion process, as in arXiv 2402.15216v2."""

_MONAI = {"cosine": "cosine", "linear": "linear_beta", "cosine-beta": "diffseg_cosine_beta"}


def _cosine_beta(
    num_train_timesteps: int, beta_start: float = 1e-4, beta_end: float = 2e-2
) -> Tensor:
    ramp = (1 - torch.cos(torch.linspace(0, math.pi, num_train_timesteps))) / 2
    return beta_start + (beta_end - beta_start) * ramp


NoiseSchedules.add_def("diffseg_cosine_beta", "beta rises as half a cosine, 1e-4 to 0.02")(
    _cosine_beta
)


def signal_levels(schedule: Schedule | str) -> Tensor:
    """Cumulative products of alpha, ``(1000,)`` float32, of a schedule.

    ``cosine`` is Nichol & Dhariwal's, ``linear`` Ho et al.'s beta from 1e-4 to 0.02. arXiv
    2402.15216v2 has "cosine, beta 1e-4 ... 0.02", which is neither; ``cosine-beta`` reads it as a
    beta that rises between the two along half a cosine.
    """
    levels: Tensor = DDPMScheduler(STEPS, schedule=_MONAI[schedule]).alphas_cumprod
    return levels.float()


def add_noise(x: Tensor, noise: Tensor, t: Tensor, levels: Tensor) -> Tensor:
    """Noise images ``x`` (B, C, N, N) to timesteps ``t`` (B,), in the images' own precision."""
    level = levels[t].view(-1, *[1] * (x.ndim - 1))
    return level.sqrt() * x + (1 - level).sqrt() * noise


class Denoised(NamedTuple):
    """State of a sampler after one step.

    Attributes
    ----------
    step
        Steps done.
    steps
        Steps in all.
    images
        Current images ``(B, 1, N, N)``; the samples after the last step, within [-1, 1].
    """

    step: int
    steps: int
    images: Tensor


def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    draw: Callable[[], Tensor],
    levels: Tensor,
    steps: int = STEPS,
    eta: float = 1.0,
) -> Iterator[Denoised]:
    """Draw images by reversing the diffusion, yielding after each step.

    Parameters
    ----------
    predict
        The network: noisy images and timesteps ``(B,)`` to noise.
    draw
        Source of noise ``(B, 1, N, N)``, standard normal: for the start and on the way.
    levels
        Cumulative products of alpha, from :func:`signal_levels`.
    steps
        Steps to take; they are evenly spaced over the 1000 timesteps.
    eta
        Share of fresh noise. With 1 and 1000 steps this is the ancestral sampler of DDPM (Ho et
        al., Eq. 7 with the posterior's variance), with 0 the deterministic one of DDIM (Song et
        al., Eq. 12).
    """
    times = torch.linspace(STEPS - 1, 0, steps).round().long().tolist()
    x = draw()
    for index, time in enumerate(times):
        level = float(levels[time])
        before = float(levels[times[index + 1]]) if index + 1 < steps else 1.0
        predicted = predict(x, torch.full((len(x),), time, device=x.device)).float()
        image = ((x - math.sqrt(1 - level) * predicted) / math.sqrt(level)).clamp(-1, 1)
        # The noise that belongs to the clipped image, so that x stays on the process's path.
        predicted = (x - math.sqrt(level) * image) / math.sqrt(1 - level)
        variance = eta**2 * (1 - before) / (1 - level) * (1 - level / before)
        x = math.sqrt(before) * image + math.sqrt(max(1 - before - variance, 0.0)) * predicted
        if variance > 0:
            x = x + math.sqrt(variance) * draw()
        yield Denoised(index + 1, steps, x)
