"""A tiny CT, drifting discs and tiny random networks for the engine's tests."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, Intensity
from napari_diffseg.network.unet import UNet, UNetConfig

TINY = UNetConfig(32, (8, 8, 16), 1, (), 8, "conv")
INTENSITY = Intensity((-1000.0, 1000.0), (-1.0, 1.0))
SHAPE = (8, 48, 40)
DISC = Label(3, "disc", (230, 159, 0))
SPOT = Label(7, "spot", (86, 180, 233))


def volume_of(hu: NDArray[np.int16], spacing: tuple[float, float, float] = (5, 2, 2)) -> Volume:
    """Wrap an array ``(z, y, x)`` with ``spacing`` in mm."""
    dz, dy, dx = spacing
    affine = np.diag([-dx, -dy, dz, 1.0])
    return Volume(hu, Geometry.from_affine(affine, hu.shape[::-1]), "tiny")


def disc_truth(shape: tuple[int, int, int] = SHAPE, drift: float = 0.5) -> NDArray[np.uint8]:
    """A disc of radius 7 that drifts along x, and a spot of radius 3 below it."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    truth = np.zeros(shape, np.uint8)
    for z in range(shape[0]):
        truth[z][np.hypot(y - 18, x - 17 - drift * z) < 7] = DISC.id
        truth[z][np.hypot(y - 33, x - 18) < 3] = SPOT.id
    return truth


def disc_volume(
    shape: tuple[int, int, int] = SHAPE, drift: float = 0.5
) -> tuple[Volume, NDArray[np.uint8]]:
    """An oval of soft tissue with a bright disc and a brighter spot, and their masks."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    truth = disc_truth(shape, drift)
    hu = np.full(shape, -1000, np.int16)
    hu[:, ((y - 23.5) / 22) ** 2 + ((x - 19.5) / 18) ** 2 < 1] = 0
    hu[truth == DISC.id] = 250
    hu[truth == SPOT.id] = 600
    hu += np.random.default_rng(0).integers(-20, 20, shape, dtype=np.int16)
    return volume_of(hu), truth


def paint(truth: NDArray[np.uint8], *slices: int) -> tuple[PaintedSlice, ...]:
    """Slices of ``truth`` painted in full."""
    return tuple(PaintedSlice(z, truth[z]) for z in slices)


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight a random value: convolutions that start at zero hide what feeds them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            fan_in = p[0].numel() if p.ndim > 1 else 4
            p.copy_(torch.randn(p.shape, generator=generator) / fan_in**0.5)
    return module


def tiny_backbone(name: str = "tiny", seed: int = 0) -> Backbone:
    """A random network in which every weight counts."""
    torch.manual_seed(seed)
    unet = UNet(TINY)
    lively(unet, seed)
    return Backbone(name, unet, INTENSITY, "linear", {"data": "none", "steps": 3})


def dice(mask: NDArray[np.uint8], truth: NDArray[np.uint8], label: int) -> float:
    """Dice of one label."""
    a, b = mask == label, truth == label
    return float(2 * (a & b).sum() / max((a.sum() + b.sum()), 1))
