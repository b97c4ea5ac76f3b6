"""The rival networks of arXiv 2402.15216v2 in 2D, each at full size or small for a CPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

IMAGENET_FOLDER = "NAPARI_DIFFSEG_IMAGENET"
"""Environment variable: folder with ``<encoder>.pth`` or ``.safetensors`` ImageNet weights."""

_RANDOM = "random weights"

_Build = Callable[[int, int, bool], nn.Module]


class NetworkError(ValueError):
    """A rival network cannot be built here."""


@dataclass(frozen=True)
class NetworkSpec:
    """A rival network and how its authors train it.

    Attributes
    ----------
    title
        As in the papers' tables.
    build
        ``(classes, side, small) -> network`` from ``(B, 1, side, side)`` to logits.
    learning_rate
        Of AdamW, at batch 4.
    """

    title: str
    build: _Build
    learning_rate: float


def _attention_unet(classes: int, side: int, small: bool) -> nn.Module:
    from monai.networks.nets import AttentionUnet  # MONAI's nets take seconds to import

    widths = (16, 32, 64, 128) if small else (64, 128, 256, 512, 1024)
    network: nn.Module = AttentionUnet(2, 1, classes, widths, strides=[2] * (len(widths) - 1))
    return network


def _unetr(classes: int, side: int, small: bool) -> nn.Module:
    from monai.networks.nets import UNETR

    hidden, heads = (192, 4) if small else (768, 12)
    network: nn.Module = UNETR(
        in_channels=1,
        out_channels=classes,
        img_size=side,
        feature_size=16,
        hidden_size=hidden,
        mlp_dim=4 * hidden,
        num_heads=heads,
        spatial_dims=2,
    )
    return network


def _swin_unetr(classes: int, side: int, small: bool) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    network: nn.Module = SwinUNETR(
        in_channels=1, out_channels=classes, feature_size=12 if small else 48, spatial_dims=2
    )
    return network


class ImageNetInput(nn.Module):
    """Feed one CT channel in [-1, 1] to a network whose encoder knows ImageNet's RGB."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images ``(B, 1, N, N)``."""
        logits: Tensor = self.network(((x + 1) / 2 - self.mean) / self.deviation)
        return logits


def _segmentation_models(architecture: str, encoder: str, small_encoder: str) -> _Build:
    def build(classes: int, side: int, small: bool) -> nn.Module:
        try:
            library = importlib.import_module("segmentation_models_pytorch")
        except ImportError as error:
            raise NetworkError(
                "segmentation_models_pytorch is not installed: run make benchmark-env, or "
                "pip install 'napari-diffseg[benchmarks]'"
            ) from error
        name = small_encoder if small else encoder
        network = getattr(library, architecture)(
            encoder_name=name, encoder_weights=None, in_channels=3, classes=classes
        )
        weights, _ = encoder_weights(name)
        if weights is not None:
            network.encoder.load_state_dict(weights)
        return ImageNetInput(network)

    return build


def start_of(name: str, small: bool) -> str:
    """Say from which weights a network starts, for the row's note."""
    encoder = ENCODERS.get(name)
    return _words(_imagenet_file(encoder[1] if small else encoder[0])) if encoder else _RANDOM


def encoder_weights(encoder: str) -> tuple[dict[str, Tensor] | None, str]:
    """ImageNet weights of an encoder from a file, if there are any, and words for the row."""
    found = _imagenet_file(encoder)
    return (_read_weights(found) if found else None), _words(found)


def _words(found: Path | None) -> str:
    return f"ImageNet weights from {found.name}" if found else f"{_RANDOM}, no ImageNet file"


def _imagenet_file(encoder: str) -> Path | None:
    folder = os.environ.get(IMAGENET_FOLDER)
    for ending in (".safetensors", ".pth"):
        if folder and (path := Path(folder) / f"{encoder}{ending}").exists():
            return path
    return None


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


ENCODERS = {
    "deeplabv3plus": ("resnet50", "resnet18"),
    "res-unet": ("resnet50", "resnet18"),
    "unetplusplus": ("resnet50", "resnet18"),
}
"""Encoder of each network of segmentation_models_pytorch: full size, small."""

NETWORKS: dict[str, NetworkSpec] = {
    "deeplabv3plus": NetworkSpec(
        "DeepLabV3+", _segmentation_models("DeepLabV3Plus", *ENCODERS["deeplabv3plus"]), 3e-4
    ),
    "res-unet": NetworkSpec("ResU-Net", _segmentation_models("Unet", *ENCODERS["res-unet"]), 3e-4),
    "unetplusplus": NetworkSpec(
        "U-Net++", _segmentation_models("UnetPlusPlus", *ENCODERS["unetplusplus"]), 3e-4
    ),
    "attention-unet": NetworkSpec("Attention U-Net", _attention_unet, 1e-3),
    "unetr": NetworkSpec("UNETR", _unetr, 3e-4),
    "swin-unetr": NetworkSpec("Swin UNETR", _swin_unetr, 5e-4),
}
