"""The U-Net: its size, its encode/decode split, its conditioning, its layouts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from engine_tools import TINY, lively
from torch import Tensor, nn

from napari_diffseg.network.unet import Attention, UNet, UNetConfig, timestep_embedding

_ALL = UNetConfig(32, (8, 8, 16), 2, (16, 8), 8, "residual")


def _image(rows: int = 32, columns: int = 32, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, rows, columns, generator=generator) * 2 - 1


@pytest.mark.parametrize(("c", "millions"), [(128, 135.7), (256, 542.6)])
def test_parameter_count_is_that_of_the_papers(c: int, millions: float) -> None:
    with torch.device("meta"):
        unet = UNet(UNetConfig(widths=tuple(c * m for m in (1, 1, 2, 2, 4, 4))))
    count = sum(p.numel() for p in unet.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("resampling", ["conv", "residual", "conditioned"])
def test_forward_is_encode_then_decode_then_out(resampling: str) -> None:
    unet = lively(UNet(replace(_ALL, resampling=resampling))).eval()
    x, t = _image(), torch.tensor([3, 700])
    with torch.inference_mode():
        whole = unet(x, t)
        levels = unet.decode_levels(unet.encode(x, t))
        parts = unet.out(unet.decode(unet.encode(x, t)))
        last = unet.out(levels[-1])
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole, last)
    assert whole.shape == x.shape
    assert whole.std() > 1e-3
    assert tuple(level.shape[1] for level in levels) == unet.decoder_channels
    sides = [level.shape[-1] for level in levels]
    assert sides == sorted(sides)
    assert sides[-1] == 32


@pytest.mark.parametrize("resampling", ["conv", "residual", "conditioned"])
def test_every_weight_takes_part(resampling: str) -> None:
    unet = lively(UNet(replace(_ALL, resampling=resampling)))
    (unet(_image(), 10) * _image()).sum().backward()
    idle = [n for n, p in unet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_fresh_network_predicts_nothing() -> None:
    """Its last convolution starts at zero, as in guided-diffusion."""
    torch.manual_seed(0)
    assert UNet(_ALL)(_image()).abs().max() == 0


def test_timestep_changes_what_a_conditioned_network_sees() -> None:
    unet = lively(UNet(TINY)).eval()
    with torch.inference_mode():
        early, late = unet(_image(), 0), unet(_image(), 500)
        mixed = unet(_image(), torch.tensor([0, 500]))
    assert (early - late).abs().max() > 1e-3
    torch.testing.assert_close(mixed, torch.stack([early[0], late[1]]))


def test_plain_network_ignores_the_timestep() -> None:
    unet = lively(UNet(replace(TINY, time=False))).eval()
    with torch.inference_mode():
        assert torch.equal(unet(_image(), 0), unet(_image(), 500))
        assert unet.encode(_image()).embedding is None
    assert not any("time" in name or "scale_shift" in name for name in unet.state_dict())


def test_timestep_embedding_tells_neighbours_apart() -> None:
    found = timestep_embedding(torch.arange(1000), 9)
    assert found.shape == (1000, 9)
    assert torch.isfinite(found).all()
    assert (found[:, :8].square().sum(1) - 4).abs().max() < 1e-3  # cos^2 + sin^2, four times
    assert (found[1:] - found[:-1]).norm(dim=1).min() > 0.1


@pytest.mark.parametrize(("rows", "columns"), [(24, 40), (8, 32), (64, 16)])
def test_takes_grids_that_are_not_square(rows: int, columns: int) -> None:
    unet = lively(UNet(_ALL)).eval()
    x = _image(rows, columns)
    with torch.inference_mode():
        out = unet(x, 5)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    assert out.std() > 1e-3


def test_image_size_must_fit_the_levels() -> None:
    with pytest.raises(ValueError, match="image_size 30 is not a multiple of 4"):
        replace(TINY, image_size=30)


def test_channels_last_gives_the_same() -> None:
    unet = lively(UNet(_ALL)).eval()
    with torch.inference_mode():
        usual = unet(_image(), 7)
        unet.to(memory_format=torch.channels_last)
        last = unet(_image().to(memory_format=torch.channels_last), 7)
    torch.testing.assert_close(last, usual, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("side", "dtype", "tolerance"), [
    (8, torch.float32, 1e-5), (8, torch.bfloat16, 0.02), (24, torch.bfloat16, 0.02),
])  # fmt: skip
def test_attention_equals_its_definition(
    layout: torch.memory_format, side: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Each head has its queries, keys and values side by side, as in guided-diffusion."""
    torch.manual_seed(0)
    block = Attention(16, 8)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, weights = torch.randn(2, 2, 16, side, side)
    plain, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    heads = block.qkv(block.norm(plain)).reshape(2, 2, 3, 8, side * side)
    q, k, v = heads.unbind(2)
    scores = torch.softmax(torch.einsum("bhcp,bhcs->bhps", q, k) / 8**0.5, dim=-1)
    attended = torch.einsum("bhps,bhcs->bhcp", scores, v)
    expected = plain + block.out(attended.reshape(2, 16, side, side))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = block(ours.contiguous(memory_format=layout), None)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert (found - expected).norm() <= tolerance * (expected - x).norm()
    assert (ours.grad - plain.grad).norm() <= tolerance * (plain.grad - weights).norm()


_FROZEN = """
    import torch
    from napari_diffseg.network.unet import UNet, UNetConfig
    torch.manual_seed(0)
    unet = UNet(UNetConfig(64, (32, 32, 64), 1, (16,), 32, "residual"))
    for p in unet.parameters():
        torch.nn.init.normal_(p, 0, 0.05)
    unet.to(memory_format=torch.channels_last)
    unet.requires_grad_(False)
    unet.decoder.requires_grad_(True)
    x = torch.rand(2, 1, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        features = unet.encode(x, 0)
    assert any(s.is_contiguous(memory_format=torch.channels_last) for s in features.skips)
    unet.decode(features).square().sum().backward()
    grads = [p.grad for p in unet.decoder.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    print("alive")
"""


def test_frozen_encoder_in_channels_last_can_hand_over_to_a_decoder_in_training() -> None:
    """torch 2.13's GroupNorm ends the process here, so another process tries it."""
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_FROZEN)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "alive"
