"""A tiny CT and a tiny random backbone for the session's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_diffseg.engine.progress import SlicePrediction
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, Intensity
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.network.unet import UNet, UNetConfig
from napari_diffseg.session import Session

SHAPE = (6, 32, 32)
LIVER = Label(1, "liver", (230, 159, 0))
SPLEEN = Label(2, "spleen", (86, 180, 233))
QUICK = TrainSettings(iterations=2, device="cpu")


def tiny_volume(seed: int = 0) -> Volume:
    """A cylinder of fat with a bright block, 6 slices of 5 mm."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32] - 15.5
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, np.hypot(y, x) < 14] = -80
    hu[:, 8:16, 8:16] = 100
    hu += rng.integers(-10, 10, SHAPE, dtype=np.int16)
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    geometry = Geometry.from_affine(affine, (SHAPE[2], SHAPE[1], SHAPE[0]))
    return Volume(hu, geometry, "tiny")


def block(label: int = 1, background: int = 0) -> NDArray[np.uint8]:
    """A slice on which the bright block is painted."""
    mask = np.full(SHAPE[1:], background, np.uint8)
    mask[8:16, 8:16] = label
    return mask


def tiny_backbone() -> Backbone:
    """A random network that trains in milliseconds."""
    torch.manual_seed(0)
    unet = UNet(UNetConfig(32, (8, 8, 16), 1, (), 8, "conv"))
    return Backbone("tiny", unet, Intensity((-1000.0, 1000.0), (-1.0, 1.0)))


def predicting(mask: NDArray[np.uint8]) -> Callable[..., Iterator[SlicePrediction]]:
    """Stand in for the engine's ``predict``: this mask on every slice, 80 % sure."""

    def predict(
        model: object,
        volume: object,
        painted: object,
        start: int,
        device: str,
        registration: object,
        planes: object = (),
    ) -> Iterator[SlicePrediction]:
        confidence = np.full(SHAPE[1:], 80, np.uint8)
        for z in sorted(range(SHAPE[0]), key=lambda z: abs(z - start)):
            yield SlicePrediction(z, mask, confidence)

    return predict


def trained(session: Session, seed: int = 0, **more: object) -> Session:
    """Paint two slices where none is painted, train, and predict."""
    if not session.paint.states.any():
        session.paint.set_slice(1, block())
        session.paint.set_slice(4, block())
    list(session.trainer.train(replace(QUICK, seed=seed, **more)))  # type: ignore[arg-type]
    list(session.trainer.predict())
    return session


def weights(segmenter: Segmenter | None) -> list[NDArray[np.generic]]:
    """Copy a model's weights."""
    assert segmenter is not None
    return [p.detach().cpu().numpy().copy() for p in segmenter.state_dict().values()]
