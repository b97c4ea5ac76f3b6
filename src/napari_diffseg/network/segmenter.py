"""A segmenter: a backbone at a fixed timestep and a head that turns its maps into classes."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_diffseg.io.errors import UserError
from napari_diffseg.io.labels import Label, labels_from_json
from napari_diffseg.io.typed import from_json
from napari_diffseg.network.backbone import (
    Backbone,
    BackboneError,
    Intensity,
    fill,
    read_tensors,
    write_tensors,
)
from napari_diffseg.network.card import ModelCard, package_version
from napari_diffseg.network.device import native_bf16
from napari_diffseg.network.unet import Features, UNet, UNetConfig

_METADATA = "napari-diffseg-segmenter"
Strategy = Literal["decoder", "linear", "scratch"]


class SegmenterError(UserError):
    """A saved model cannot be used."""


class PaperHead(nn.Module):
    """Two conv-BN-ReLU and one conv on the last decoder map (arXiv 2402.15216v2)."""

    def __init__(self, channels: tuple[int, ...], hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels[-1], hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, classes, 1),
        )

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        logits: Tensor = self.layers(maps[-1])
        return logits


class LevelHead(nn.Module):
    """A small per-pixel classifier on the standardised maps of all decoder levels.

    It is trained on sampled pixels (:meth:`pixels`) and applied to whole maps
    (:meth:`forward`). A linear layer commutes with upsampling, so every level is projected on
    its own grid and the sum is what the concatenated, upsampled maps would give, for a fraction
    of the memory.
    """

    def __init__(self, channels: tuple[int, ...], hidden: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(sum(channels)))
        self.register_buffer("deviation", torch.ones(sum(channels)))
        self.project = nn.Linear(sum(channels), hidden, bias=False)
        self.norm = nn.BatchNorm1d(hidden)
        self.rest = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )
        self.last = nn.Linear(hidden, classes)
        # Pixels are sampled evenly over classes; this puts back how common each class is.
        self.register_buffer("shift", torch.zeros(classes))

    mean: Tensor
    deviation: Tensor
    shift: Tensor

    def pixels(self, features: Tensor) -> Tensor:
        """Logits ``(N, classes)``, without the shift, of pixel features ``(N, channels)``."""
        logits: Tensor = self.last(self.rest(self.norm(self._projected(features))))
        return logits

    def _projected(self, features: Tensor) -> Tensor:
        # Whole channels are dropped for a batch: a mask on the weights costs next to nothing.
        kept = F.dropout(torch.ones_like(self.mean), 0.2, self.training)
        weight = self.project.weight * (kept / self.deviation)
        return F.linear(features, weight, -(weight @ self.mean))

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        weight = self.project.weight / self.deviation
        bias = -(weight @ self.mean)
        if not self.training:
            # Running statistics make the norm a scale and an offset of what comes before it.
            mean, variance = self.norm.running_mean, self.norm.running_var
            assert mean is not None
            assert variance is not None
            scale = self.norm.weight / (variance + self.norm.eps).sqrt()
            weight = weight * scale[:, None]
            bias = (bias - mean) * scale + self.norm.bias
        if self.training or maps[-1].device.type != "cpu":
            return self._logits(maps, weight, bias)
        # The hidden maps of one image stay in the processor's cache, those of a batch do not.
        images = [tuple(level[n : n + 1] for level in maps) for n in range(len(maps[-1]))]
        return torch.cat([self._logits(image, weight, bias) for image in images])

    def _logits(self, maps: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> Tensor:
        by_size: dict[torch.Size, list[Tensor]] = {}
        for level in maps:
            by_size.setdefault(level.shape[-2:], []).append(level.movedim(1, -1))
        full, hidden, done = maps[-1].shape[-2:], None, 0
        for size, levels in by_size.items():
            joined = torch.cat(levels, dim=-1)  # (B, h, w, C)
            part = weight[:, done : done + joined.shape[-1]]
            done += joined.shape[-1]
            projected = F.linear(joined, part, bias if size == full else None)
            if size != full:
                projected = F.interpolate(
                    projected.movedim(-1, 1), full, mode="bilinear", align_corners=False
                ).movedim(1, -1)
            hidden = projected if hidden is None else hidden.add_(projected)
        assert hidden is not None
        pixels = hidden.flatten(0, 2)
        if self.training:
            pixels = self.norm(pixels)
        logits = F.linear(self.rest(pixels), self.last.weight, self.last.bias + self.shift)
        dense: Tensor = logits.unflatten(0, hidden.shape[:3]).movedim(-1, 1)
        return dense


_HEADS = {"paper": PaperHead, "levels": LevelHead}


@dataclass(frozen=True)
class SegmenterConfig:
    """How a segmenter is put together.

    Attributes
    ----------
    strategy
        What is trained: ``linear`` (head), ``decoder`` (decoder and head) or ``scratch``
        (everything, from random weights, without time conditioning).
    head
        ``paper`` or ``levels``.
    hidden
        Hidden width of the head.
    timestep
        Fixed timestep at which the U-Net sees the clean image (arXiv
        2402.15216v2, Table 2).
    columns
        Model grid points along the wider side of the body box.
    """

    strategy: Strategy = "decoder"
    head: Literal["paper", "levels"] = "levels"
    hidden: int = 128
    timestep: int = 0
    columns: int = 128

    def __post_init__(self) -> None:
        if not (0 <= self.timestep <= 1000 and 1 <= self.hidden <= 4096):
            raise ValueError("timestep or hidden width is outside 0 to 1000 or 1 to 4096")
        if not 8 <= self.columns <= 4096:
            raise ValueError(f"a grid of {self.columns} points is outside 8 to 4096")


class Segmenter(nn.Module):
    """U-Net at a fixed timestep with a segmentation head.

    Parameters
    ----------
    unet
        The network; it is kept, not copied.
    intensity
        HU to network values.
    labels
        The structures; class ``k`` of the output is ``labels[k - 1]``, class 0 background.
    config
        Strategy, head and grid.
    card
        What is known of how it was made. Whoever trains it replaces this.
    """

    def __init__(
        self,
        unet: UNet,
        intensity: Intensity,
        labels: Iterable[Label],
        config: SegmenterConfig,
        card: ModelCard | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.intensity, self.config = unet, intensity, config
        self.card = card or ModelCard()
        self.labels = tuple(labels)
        head = _HEADS[config.head]
        self.head = head(unet.decoder_channels, config.hidden, len(self.labels) + 1)

    @classmethod
    def new(
        cls, start: Backbone | Segmenter, labels: Iterable[Label], config: SegmenterConfig
    ) -> Segmenter:
        """Start from a backbone, or go on from a trained segmenter.

        The head of a segmenter is kept when the labels are the same. Of its card, licence and
        backbone are: what it learnt from and how well it did belong to a training.
        """
        if config.strategy == "scratch":
            unet = UNet(replace(start.unet.config, time=False))
        else:
            unet = deepcopy(start.unet)
        backbone = start.card.backbone if isinstance(start, Segmenter) else start.sha256
        card = ModelCard(
            licence=start.card.licence if isinstance(start, Segmenter) else "",
            backbone="" if config.strategy == "scratch" else backbone,
        )
        made = cls(unet, start.intensity, labels, config, card)
        same = ("head", "hidden")
        if (
            isinstance(start, Segmenter)
            and start.labels == made.labels
            and all(getattr(start.config, name) == getattr(config, name) for name in same)
        ):
            made.head.load_state_dict(start.head.state_dict())
        return made

    def placed(self, device: torch.device) -> Segmenter:
        """Move to ``device``, in the memory layout that is fastest there."""
        channels_last = device.type == "cpu" and native_bf16(device)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.unet.to(memory_format=layout)  # type: ignore[call-overload]
        return self.to(device)

    @property
    def grid_multiple(self) -> int:
        """Both sides of the model grid are multiples of this."""
        return int(2 ** (len(self.unet.config.widths) - 1))

    def trainable(self) -> list[nn.Module]:
        """The modules that the strategy trains."""
        if self.config.strategy == "linear":
            return [self.head]
        body = self.unet if self.config.strategy == "scratch" else self.unet.decoder
        return [body, self.head]

    def encode(self, x: Tensor) -> Features:
        """Encoder features of images ``(B, 1, H, W)``."""
        return self.unet.encode(x, self.config.timestep)

    def decode(self, features: Features) -> Tensor:
        """Logits ``(B, 1 + len(labels), H, W)`` from encoder features."""
        logits: Tensor = self.head(self.unet.decode_levels(features))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, 1 + len(labels), H, W)`` of images ``(B, 1, H, W)`` in [-1, 1]."""
        return self.decode(self.encode(x))

    def save(self, path: Path | str) -> None:
        """Write the model and its card as one safetensors file, without a trace of a volume."""
        card = replace(self.card, version=self.card.version or package_version())
        header = {
            "unet": asdict(self.unet.config),
            "intensity": asdict(self.intensity),
            "config": asdict(self.config),
            "labels": [asdict(label) for label in self.labels],
            "card": card.to_json(),
        }
        write_tensors(Path(path), self.state_dict(), _METADATA, header)

    @classmethod
    def load(cls, path: Path | str) -> Segmenter:
        """Read a model that :meth:`save` wrote; one of an earlier version has an empty card.

        Raises
        ------
        SegmenterError
            If the file is no such model, is damaged, or of another architecture.
        """
        try:
            tensors, header = read_tensors(Path(path), _METADATA)
            labels = labels_from_json(header["labels"])
            intensity = from_json(Intensity, header["intensity"])
            config = from_json(SegmenterConfig, header["config"])
            unet = from_json(UNetConfig, header["unet"])
            card = ModelCard.from_json(header.get("card", {}))
            made = fill(lambda: cls(UNet(unet), intensity, labels, config, card), tensors)
        except BackboneError as error:
            raise SegmenterError(str(error)) from error
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise SegmenterError(f"{path}: not a model of this program ({first})") from error
        return made.eval()
