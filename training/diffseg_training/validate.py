"""Validation loss by noise level on held-out patients, always with the same noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffseg_training.data import intensity_table, model_image
from diffseg_training.diffusion import add_noise, signal_levels
from diffseg_training.store import Slices
from napari_diffseg.network.backbone import Backbone, Intensity
from napari_diffseg.network.device import autocast, pick_device

LEVELS = (10, 50, 150, 300, 500, 700, 900)
"""Timesteps at which the loss is measured."""


def validation_images(slices: Slices, intensity: Intensity, size: int, count: int) -> Tensor:
    """Up to ``count`` held-out slices ``(n, 1, size, size)``, evenly from all volumes.

    Volumes are taken in turn, so that long ones do not push out single slices of many patients.
    """
    starts = np.cumsum([0, *(volume["slices"] for volume in slices.volumes)])
    order = sorted(
        (round(rank / max(1, n), 6), volume, start + k)
        for volume, (start, n) in enumerate(
            zip(starts, (v["slices"] for v in slices.volumes), strict=False)
        )
        for rank, k in enumerate(_spread(n))
    )
    table = intensity_table(intensity)
    chosen = sorted(int(index) for _, _, index in order[:count])
    return torch.stack([model_image(slices[index], table, size) for index in chosen])


def _spread(n: int) -> list[int]:
    """Indices 0 ... n-1 in an order of which every beginning covers the whole range."""
    golden = 0.6180339887498949
    return sorted(range(n), key=lambda k: (k * golden) % 1)


@torch.no_grad()
def validate(
    predict: Callable[[Tensor, Tensor], Tensor], images: Tensor, levels: Tensor, batch: int
) -> dict[int, float]:
    """Mean squared error of the predicted noise at each of :data:`LEVELS`.

    Parameters
    ----------
    predict
        Noisy images and timesteps ``(B,)`` to noise.
    images
        Clean images ``(n, 1, N, N)`` on the network's device.
    levels
        Cumulative products of alpha.
    batch
        Images at a time.
    """
    losses = {}
    for t in LEVELS:
        generator = torch.Generator().manual_seed(t)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        total = 0.0
        for start in range(0, len(images), batch):
            clean, wanted = images[start : start + batch], noise[start : start + batch]
            steps = torch.full((len(clean),), t, device=images.device)
            predicted = predict(add_noise(clean, wanted, steps, levels), steps)
            total += float((predicted.float() - wanted).square().mean(dim=(1, 2, 3)).sum())
        losses[t] = total / len(images)
    return losses


def validate_backbone(
    backbone: Backbone, slices: Slices, count: int, batch: int = 8
) -> dict[int, float]:
    """Loss of a backbone at each of :data:`LEVELS` on up to ``count`` held-out slices."""
    device = pick_device()
    net = backbone.unet.to(device).eval()
    size = backbone.unet.config.image_size
    images = validation_images(slices, backbone.intensity, size, count).to(device)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        with autocast(device):
            noise: Tensor = net(x, t)
        return noise

    return validate(predict, images, signal_levels(backbone.schedule).to(device), batch)
