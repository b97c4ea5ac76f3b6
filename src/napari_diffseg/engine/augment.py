"""Augmentation: random small changes of pose and contrast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.network.losses import UNKNOWN

_MAX_ROTATION = 0.14  # rad
_MAX_SCALE = 0.1
_MAX_SHIFT = 0.08  # of half the grid
# Organs differ between patients and phases of contrast medium by more than within a scan:
# 0.15 is 56 HU of soft tissue on the starter's scale.
_MAX_GAIN = 0.15
_MAX_OFFSET = 0.15
# The same for one structure, whose blood may hold contrast medium: 60 HU.
_MAX_ENHANCEMENT = 0.16
_SOFT_TISSUE = (-0.47, 0.62)  # -150 to 300 HU: air, lung and bone hold none


def augment(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotate, scale, shift and change the contrast of each slice; left stays left.

    Parameters
    ----------
    images
        ``(B, 1, H, W)`` in [-1, 1].
    targets
        Class indices ``(B, H, W)``.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    images, targets
        Changed copies, of the same shapes.
    """
    rows, columns = images.shape[-2:]
    r = torch.rand(len(images), 6, generator=generator) * 2 - 1
    scale = 1 + _MAX_SCALE * r[:, 1]
    cos = (_MAX_ROTATION * r[:, 0]).cos() / scale
    sin = (_MAX_ROTATION * r[:, 0]).sin() / scale
    matrix = torch.stack(
        [
            torch.stack([cos, sin * rows / columns, _MAX_SHIFT * r[:, 2]], dim=1),
            torch.stack([-sin * columns / rows, cos, _MAX_SHIFT * r[:, 3]], dim=1),
        ],
        dim=1,
    )
    where = F.affine_grid(matrix, list(images.shape), align_corners=False).to(images.device)
    moved = F.grid_sample(images, where, padding_mode="border", align_corners=False)
    classes = F.grid_sample(
        targets[:, None].float(), where, mode="nearest", padding_mode="border", align_corners=False
    )
    gain, offset = (1 + _MAX_GAIN * r[:, 4]).to(images), (_MAX_OFFSET * r[:, 5]).to(images)
    contrast = (moved + 1) * gain[:, None, None, None] - 1 + offset[:, None, None, None]
    return contrast, classes[:, 0].long()


def change_contrast_medium(images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """Brighten or darken each structure by itself, as contrast medium does from phase to phase.

    Parameters
    ----------
    images
        ``(B, 1, H, W)`` in [-1, 1].
    targets
        Class indices ``(B, H, W)``; background and ``UNKNOWN`` stay as they are.
    generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor
        Changed copies; a structure changes alike on all slices.
    """
    offsets = (torch.rand(256, generator=generator) * 2 - 1) * _MAX_ENHANCEMENT
    offsets[0] = offsets[UNKNOWN] = 0.0
    change = F.avg_pool2d(offsets.to(images)[targets][:, None], 3, 1, 1)  # outlines are no steps
    low, high = _SOFT_TISSUE
    return images + change * ((images > low) & (images < high))
