"""Weights in guided-diffusion's layout give the same outputs in our network.

The reference below is a network of our own writing with that layout's names and operations: list
of blocks with numbered layers, 1-D convolutions in the attention, explicit softmax.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from diffseg_training.cli import main
from diffseg_training.convert import convert, read_state_dict
from diffseg_training.settings import PretrainError
from napari_diffseg.network.backbone import load_backbone
from napari_diffseg.network.unet import UNetConfig

CONFIG = UNetConfig(16, (32, 64), 2, (8,), 16, "conditioned")


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, embedding: int, move: str = "") -> None:
        super().__init__()
        self.move = move
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outputs))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.0),
            nn.Conv2d(outputs, outputs, 3, padding=1),
        )  # fmt: skip
        same = inputs == outputs
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1)

    def _moved(self, x: Tensor) -> Tensor:
        if self.move == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2) if self.move == "up" else x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[2](self._moved(self.in_layers[:2](x)))
        scale, shift = self.emb_layers(emb)[..., None, None].chunk(2, 1)
        h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        return self.skip_connection(self._moved(x)) + h


class Attend(nn.Module):
    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.heads = channels // head
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        b, c, *spatial = x.shape
        x = x.reshape(b, c, -1)
        # Older order of guided-diffusion: each head's queries, keys and values lie together.
        q, k, v = self.qkv(self.norm(x)).reshape(b * self.heads, -1, x.shape[2]).chunk(3, 1)
        weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(q.shape[1]), -1)
        h = torch.einsum("bts,bcs->bct", weights, v).reshape(b, c, -1)
        return (x + self.proj_out(h)).reshape(b, c, *spatial)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2))


class Reference(nn.Module):
    def __init__(self, config: UNetConfig, out_channels: int) -> None:
        super().__init__()
        first, embedding = config.widths[0], 4 * config.widths[0]
        self.first = first
        by_block = config.resampling == "conditioned"
        self.time_embed = nn.Sequential(
            nn.Linear(first, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(1, first, 3, padding=1)])])
        channels, kept, side = first, [first], config.image_size

        def layers(inputs: int, width: int) -> nn.ModuleList:
            made = [Block(inputs, width, embedding)]
            attends = side in config.attention
            return nn.ModuleList([*made, *([Attend(width, config.head_channels)] * attends)])

        for level, width in enumerate(config.widths):
            for _ in range(config.blocks):
                self.input_blocks.append(layers(channels, width))
                channels = width
                kept.append(channels)
            if level + 1 < len(config.widths):
                down = Block(channels, channels, embedding, "down") if by_block else Down(channels)
                self.input_blocks.append(nn.ModuleList([down]))
                kept.append(channels)
                side //= 2
        self.middle_block = nn.ModuleList(
            [
                Block(channels, channels, embedding),
                Attend(channels, config.head_channels),
                Block(channels, channels, embedding),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(config.widths))):
            for n in range(config.blocks + 1):
                stage = layers(channels + kept.pop(), width)
                channels = width
                if level and n == config.blocks:
                    up = Block(channels, channels, embedding, "up") if by_block else Up(channels)
                    stage.append(up)
                self.output_blocks.append(stage)
            side *= 2
        self.out = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.first // 2
        angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
        emb = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        (stem,), *rest = self.input_blocks
        h = stem(x)
        kept = [h]
        for stage in rest:
            for layer in stage:
                h = layer(h, emb)
            kept.append(h)
        for layer in self.middle_block:
            h = layer(h, emb)
        for stage in self.output_blocks:
            h = torch.cat([h, kept.pop()], 1)
            for layer in stage:
                h = layer(h, emb)
        return self.out(h)


@pytest.mark.parametrize("resampling", ["conditioned", "conv"])
@pytest.mark.parametrize("variance", [False, True])
def test_outputs_are_equal(resampling: str, variance: bool) -> None:
    torch.manual_seed(0)
    config = UNetConfig(16, (32, 64), 2, (8,), 16, resampling)  # type: ignore[arg-type]
    reference = Reference(config, 2 if variance else 1).eval()
    net = convert(reference.state_dict(), config).eval()
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3, 870])
    with torch.no_grad():
        torch.testing.assert_close(net(x, t), reference(x, t)[:, :1], rtol=1e-4, atol=1e-5)


def test_other_networks_are_refused_by_name(tmp_path: Path) -> None:
    tensors = Reference(CONFIG, 1).state_dict()
    wider = UNetConfig(16, (32, 96), 2, (8,), 16, "conditioned")
    with pytest.raises(PretrainError, match=r"input_blocks\.\d.*has shape"):
        convert(tensors, wider)
    with pytest.raises(PretrainError, match="no such tensor"):
        convert({**tensors, "label_emb.weight": torch.zeros(1)}, CONFIG)
    with pytest.raises(PretrainError, match=r"missing, the first is out\.2"):
        convert({k: v for k, v in tensors.items() if not k.startswith("out.2")}, CONFIG)


def test_command_line_makes_a_loadable_backbone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = Reference(CONFIG, 1).eval()
    torch.save(reference.state_dict(), tmp_path / "theirs.pt")
    (tmp_path / "shape.toml").write_text(
        "[unet]\nimage_size = 16\nwidths = [32, 64]\nattention = [8]\nhead_channels = 16\n"
        'resampling = "conditioned"\n'
    )
    command = ["convert", str(tmp_path / "theirs.pt"), "--config", str(tmp_path / "shape.toml")]
    out = tmp_path / "ours.safetensors"
    assert main([*command, "--out", str(out), "--hu", "-900", "700", "--schedule", "linear"]) == 0
    backbone = load_backbone(out)
    assert (backbone.intensity.hu, backbone.schedule) == ((-900.0, 700.0), "linear")
    x, t = torch.randn(1, 1, 16, 16), torch.tensor([40])
    with torch.no_grad():  # weights are stored in half precision
        torch.testing.assert_close(backbone.unet(x, t), reference(x, t), rtol=0.02, atol=0.02)


def test_files_are_read_without_running_code(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    save_file(tensors, tmp_path / "a.safetensors")
    torch.save(tensors, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        assert torch.equal(read_state_dict(tmp_path / name)["a"], tensors["a"])
    torch.save({"a": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(PretrainError, match="not a file of tensors alone"):
        read_state_dict(tmp_path / "code.pt")
    torch.save({"epoch": 3}, tmp_path / "more.pt")
    with pytest.raises(PretrainError, match="state dict"):
        read_state_dict(tmp_path / "more.pt")
