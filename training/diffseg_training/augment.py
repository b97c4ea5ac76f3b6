"""Bodies and scanners that the data do not have: slices turned, stretched and toned at random."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffseg_training.settings import PretrainSettings

NUMBERS = 3  # uniform random numbers that one slice takes


def augments(settings: PretrainSettings) -> bool:
    """Whether the settings ask for any of it."""
    return settings.rotate > 0 or settings.stretch > 1 or settings.gamma > 1


def augmented(images: Tensor, uniform: Tensor, settings: PretrainSettings) -> Tensor:
    """Turn, stretch and tone slices, each in its own way.

    Parameters
    ----------
    images
        ``(B, N, N)`` in [-1, 1]; what comes in from outside has the slice's smallest value.
    uniform
        ``(B, NUMBERS)`` in [0, 1): angle, stretch, tone.
    settings
        How far each may go.

    Returns
    -------
    Tensor
        ``(B, N, N)`` in [-1, 1].
    """
    signed = 2 * uniform - 1
    angle = math.radians(settings.rotate) * signed[:, 0]
    # Width times s, height divided by it: the area stays, as crops change that already.
    stretch = torch.exp(math.log(settings.stretch) / 2 * signed[:, 1])
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cos / stretch, -sin / stretch, none, sin * stretch, cos * stretch, none]
    matrix = torch.stack(rows, dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(matrix, [len(images), 1, *images.shape[1:]], align_corners=False)
    air = images.amin(dim=(1, 2), keepdim=True)
    # Cubic: linear interpolation would smooth the noise, and the network would learn that.
    turned = F.grid_sample((images - air)[:, None], grid, "bicubic", "zeros", False)[:, 0] + air
    tone = torch.exp(math.log(settings.gamma) * signed[:, 2])[:, None, None]
    bright = ((turned + 1) / 2).clamp(0, 1) ** tone
    return 2 * bright - 1
