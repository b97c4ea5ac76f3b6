"""The denoising U-Net of the diffusion model, split into an encoder and a decoder.

The layout is that of guided-diffusion (Dhariwal and Nichol, arXiv 2105.05233), which
arXiv 2402.15216v2 pre-trains: residual blocks with scale-and-shift time conditioning,
self-attention on coarse grids, down- and upsampling by convolution or residual block. Transfer
needs the split into :meth:`UNet.encode`, which stays frozen, and :meth:`UNet.decode`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_diffseg.network.norm import Norm

_MAX_SIZE = 4096  # of a grid's side, of channels and of blocks
_MAX_FLOAT32_PIXELS = 256  # of an attention that runs in float32 on a CPU


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    Attributes
    ----------
    image_size
        Side of the square model grid, in pixels.
    widths
        Channels of each level, finest first. The papers use ``c * (1, 1, 2, 2, 4, 4)``.
    blocks
        Residual blocks a level in the encoder; the decoder has one more.
    attention
        Grid sides, in pixels, at which self-attention follows every residual block.
    head_channels
        Channels of one attention head.
    resampling
        How the grid is halved and doubled: by one convolution (``"conv"``), by a residual block
        (``"residual"``), or by one with time conditioning (``"conditioned"``, the layout of
        guided-diffusion's released 256x256 weights).
    time
        Whether the network is conditioned on the timestep; ``False`` gives the plain variant
        that the papers train from scratch.
    channels
        Channels of the image and of the predicted noise.
    """

    image_size: int = 256
    widths: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    blocks: int = 2
    attention: tuple[int, ...] = (32, 16, 8)
    head_channels: int = 64
    resampling: Literal["conv", "residual", "conditioned"] = "residual"
    time: bool = True
    channels: int = 1

    def __post_init__(self) -> None:
        sizes = (self.image_size, *self.widths, self.blocks, self.head_channels, self.channels)
        if not self.widths or min(sizes) < 1 or max(sizes) > _MAX_SIZE or len(self.widths) > 10:
            raise ValueError(f"the sizes of the network are outside 1 to {_MAX_SIZE}")
        factor = 2 ** (len(self.widths) - 1)
        if self.image_size % factor:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of {factor}, which "
                f"{len(self.widths)} levels need"
            )


class Features(NamedTuple):
    """What the encoder hands the decoder.

    Attributes
    ----------
    bottleneck
        Output of the middle block, ``(B, C, h, w)``.
    skips
        Skip connections in the order in which the encoder made them.
    embedding
        Time embedding ``(B, 4c)``, or ``None`` in the plain variant.
    """

    bottleneck: Tensor
    skips: tuple[Tensor, ...]
    embedding: Tensor | None


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of the timesteps ``t`` (B,), as ``(B, dim)`` float32."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies  # (B, dim // 2)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, dim)
    return F.pad(embedding, (0, dim % 2))


def _norm(channels: int) -> Norm:
    return Norm(math.gcd(32, channels), channels)


def _zeroed(module: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class ResBlock(nn.Module):
    """Residual block, with scale-and-shift conditioning where there is an embedding.

    ``scale`` resamples the grid inside the block: 2 doubles it, 0.5 halves it.
    """

    def __init__(
        self, inputs: int, outputs: int, embedding: int | None, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.scale_shift = nn.Linear(embedding, 2 * outputs) if embedding else None
        self.norm2 = _norm(outputs)
        self.conv2 = _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.norm1(x, silu=True)  # (B, inputs, h, w)
        if self.scale != 1:
            h, x = _resampled(h, self.scale), _resampled(x, self.scale)
        scale_shift = None
        if self.scale_shift is not None and embedding is not None:
            scale_shift = self.scale_shift(F.silu(embedding))  # (B, 2 outputs)
        h = self.norm2(self.conv1(h), scale_shift, silu=True)  # (B, outputs, h, w)
        result: Tensor = self.skip(x) + self.conv2(h)
        return result


def _resampled(x: Tensor, scale: float) -> Tensor:
    if scale == 2:
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return F.avg_pool2d(x, 2)


class Resample(nn.Conv2d):
    """Halve the grid with a strided convolution, or double it and convolve."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__(channels, channels, 3, stride=1 if scale == 2 else 2, padding=1)
        self.scale = scale

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:  # type: ignore[override]
        return super().forward(_resampled(x, 2) if self.scale == 2 else x)


class Attention(nn.Module):
    """Multi-head self-attention over the pixels of a coarse grid."""

    def __init__(self, channels: int, head_channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        b, c, h, w = x.shape
        # Pixels before channels: in channels_last nothing need be copied for it.
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1)  # (B, h, w, 3C)
        qkv = qkv.reshape(b, h * w, self.heads, 3, c // self.heads).transpose(1, 2)
        attended = _attention(*qkv.unbind(dim=3))  # (B, heads, h w, C / heads)
        attended = attended.transpose(1, 2).reshape(b, h, w, c)
        result: Tensor = x + self.out(attended.permute(0, 3, 1, 2))
        return result


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of ``(B, heads, pixels, C)``; on coarse grids of a CPU in float32.

    There torch's bfloat16 backward pass is the slower one: 8.6 ms against 2.2 ms on 64 pixels, 18
    against 13 on 256; on 1024 it wins.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= _MAX_FLOAT32_PIXELS:
        with torch.autocast("cpu", enabled=False):
            exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
        return exact.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v)


class Stage(nn.ModuleList):
    """Blocks applied in turn, each with the time embedding."""

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class UNet(nn.Module):
    """Denoising U-Net ``eps(x_t, t)`` with an encode/decode split.

    ``forward(x, t)`` equals ``out(decode(encode(x, t)))``.

    Parameters
    ----------
    config
        Shape of the network.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, blocks, side = config.widths, config.blocks, config.image_size
        embedding = 4 * widths[0] if config.time else None
        if embedding is not None:
            self.time_embed = nn.Sequential(
                nn.Linear(widths[0], embedding), nn.SiLU(), nn.Linear(embedding, embedding)
            )

        def resample(channels: int, scale: float) -> nn.Module:
            if config.resampling == "conv":
                return Resample(channels, scale)
            conditioned = embedding if config.resampling == "conditioned" else None
            return ResBlock(channels, channels, conditioned, scale)

        def stage(inputs: int, outputs: int, side: int, up: bool = False) -> Stage:
            made = Stage([ResBlock(inputs, outputs, embedding)])
            if side in config.attention:
                made.append(Attention(outputs, config.head_channels))
            if up:
                made.append(resample(outputs, 2))
            return made

        self.stem = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList()
        channels, skips = widths[0], [widths[0]]
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.encoder.append(stage(channels, width, side))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                self.encoder.append(Stage([resample(channels, 0.5)]))
                skips.append(channels)
                side //= 2
        self.middle = Stage(
            [
                ResBlock(channels, channels, embedding),
                Attention(channels, config.head_channels),
                ResBlock(channels, channels, embedding),
            ]
        )
        self.decoder = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for block in range(blocks + 1):
                up = level > 0 and block == blocks
                self.decoder.append(stage(channels + skips.pop(), width, side, up))
                channels = width
            side *= 2
        self.out = nn.Sequential(
            _norm(channels),
            nn.SiLU(),
            _zeroed(nn.Conv2d(channels, config.channels, 3, padding=1)),
        )

    @property
    def decoder_channels(self) -> tuple[int, ...]:
        """Channels of each map that :meth:`decode_levels` returns."""
        return tuple(w for w in reversed(self.config.widths) for _ in range(self.config.blocks + 1))

    def encode(self, x: Tensor, t: Tensor | int = 0) -> Features:
        """Encode images.

        Parameters
        ----------
        x
            Images ``(B, 1, N, N)`` in [-1, 1].
        t
            Timestep of each image ``(B,)``, or one for all.

        Returns
        -------
        Features
            Bottleneck, skip connections and time embedding.
        """
        embedding = None
        if self.config.time:
            steps = torch.as_tensor(t, device=x.device).expand(x.shape[0])
            embedding = self.time_embed(timestep_embedding(steps, self.config.widths[0]))  # (B, 4c)
        h = self.stem(x)  # (B, c, N, N)
        skips = [h]
        for stage in self.encoder:
            h = stage(h, embedding)  # (B, widths[level], N / 2^level, N / 2^level)
            skips.append(h)
        return Features(self.middle(h, embedding), tuple(skips), embedding)

    def decode_levels(self, features: Features) -> tuple[Tensor, ...]:
        """Maps after every decoder stage, coarsest first; the last is :meth:`decode`'s."""
        h, skips, maps = features.bottleneck, list(features.skips), []
        for stage in self.decoder:
            h = stage(torch.cat([h, skips.pop()], dim=1), features.embedding)
            maps.append(h)  # (B, widths[level], N / 2^level, N / 2^level)
        return tuple(maps)

    def decode(self, features: Features) -> Tensor:
        """Decode to the full-resolution feature map ``(B, widths[0], N, N)``."""
        return self.decode_levels(features)[-1]

    def forward(self, x: Tensor, t: Tensor | int = 0) -> Tensor:
        """Predict the noise in ``x`` ``(B, 1, N, N)`` at timesteps ``t`` ``(B,)``."""
        prediction: Tensor = self.out(self.decode(self.encode(x, t)))
        return prediction
