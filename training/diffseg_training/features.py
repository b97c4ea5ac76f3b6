"""Features of CT slices for the generative metrics, by a backbone of ours or by Inception."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffseg_training.data import intensity_table, model_image
from diffseg_training.inception import Inception
from diffseg_training.settings import EvaluateSettings, PretrainError
from diffseg_training.store import MANIFEST, SliceStore
from napari_diffseg.io.volume import read_volume
from napari_diffseg.network.backbone import load_backbone
from napari_diffseg.network.device import autocast, pick_device

Extractor = Callable[[Sequence[NDArray[np.int16]]], tuple[Tensor, Tensor]]


def make_extractor(settings: EvaluateSettings) -> Extractor:
    """Function from square HU slices to features for FID, and to spatial ones for sFID.

    Raises
    ------
    ValueError
        If the weights are missing or damaged.
    """
    device = pick_device(settings.device)
    if settings.extractor.startswith("inception:"):
        low, high = settings.hu
        inception = Inception.from_file(Path(settings.extractor.partition(":")[2])).to(device)

        @torch.no_grad()
        def by_inception(slices: Sequence[NDArray[np.int16]]) -> tuple[Tensor, Tensor]:
            hu = torch.from_numpy(np.stack(slices).astype(np.float32))
            grey = ((hu - low) / (high - low)).clamp(0, 1).mul(255).round()
            pooled, spatial = inception(grey[:, None].expand(-1, 3, -1, -1).to(device))
            return pooled.cpu(), spatial.cpu()

        return by_inception
    backbone = load_backbone(settings.extractor)
    table, size = intensity_table(backbone.intensity), backbone.unet.config.image_size
    net = backbone.unet.to(device).eval()

    @torch.no_grad()
    def by_backbone(slices: Sequence[NDArray[np.int16]]) -> tuple[Tensor, Tensor]:
        images = torch.stack([model_image(plane, table, size) for plane in slices])
        with autocast(device):
            maps = net.encode(images.to(device), 0).bottleneck.float().cpu()
        # As with Inception: pooled for content, seven maps for where it is.
        return maps.mean(dim=(2, 3)), maps[:, :7].flatten(1)

    return by_backbone


def load_slices(path: Path) -> Sequence[NDArray[np.int16]]:
    """HU slices of a volume file, or the held-out slices of a prepared store.

    Raises
    ------
    PretrainError
        If slices are not square.
    """
    if (path / MANIFEST).is_file():
        return SliceStore(path).slices("validation")
    hu = np.rint(read_volume(path).hu).astype(np.int16)
    if hu.shape[1] != hu.shape[2]:
        raise PretrainError(f"{path}: slices must be square; prepare the volume first")
    return list(hu)


def features(
    slices: Sequence[NDArray[np.int16]], extractor: Extractor, settings: EvaluateSettings
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield slices done, features ``(n, dims)`` and spatial features, batch by batch."""
    count = min(settings.count or len(slices), len(slices))
    chosen = np.linspace(0, len(slices) - 1, count).round().astype(int).tolist()
    for start in range(0, count, settings.batch):
        part = [np.array(slices[index]) for index in chosen[start : start + settings.batch]]
        yield (start + len(part), *extractor(part))
