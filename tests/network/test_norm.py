"""The fused normalisation equals GroupNorm, scale and shift, and SiLU, in both layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_diffseg.network.norm import Norm


def _reference(norm: nn.GroupNorm, x: Tensor, scale_shift: Tensor | None, silu: bool) -> Tensor:
    h = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    if scale_shift is not None:
        scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
        h = h * (1 + scale) + shift
    return F.silu(h) if silu else h


def _case(dtype: torch.dtype = torch.float32) -> tuple[Norm, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    norm = Norm(4, 12)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias)
    # A mean far from zero is what statistics in low precision would get wrong.
    x = (torch.randn(3, 12, 9, 7) * torch.rand(12, 1, 1) + 5 * torch.randn(12, 1, 1)).to(dtype)
    return norm, x, torch.randn(3, 24) * 0.5, torch.randn(3, 12, 9, 7)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("silu", [False, True])
def test_value_and_gradients_equal_separate_steps(
    layout: torch.memory_format, conditioned: bool, silu: bool
) -> None:
    norm, x, scale_shift, weights = _case()
    results = []
    for function in (norm, lambda *a: _reference(norm, *a)):
        leaf = x.clone().requires_grad_()
        condition = scale_shift.clone().requires_grad_()
        norm.zero_grad()
        # The reference takes the usual layout: torch's own backward is what crashes in the other.
        shaped = leaf.contiguous(memory_format=layout) if function is norm else leaf
        out = function(shaped, condition if conditioned else None, silu)
        (out * weights).sum().backward()
        gradients = [leaf.grad, norm.weight.grad.clone(), norm.bias.grad.clone()]
        results.append([out, *gradients, *([condition.grad] if conditioned else [])])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


def test_bfloat16_stays_close_to_float32() -> None:
    norm, x, scale_shift, weights = _case(torch.bfloat16)
    exact = x.float().requires_grad_()
    rounded = x.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = _reference(norm, exact, scale_shift, True)
    out = norm(rounded, scale_shift.bfloat16(), True)
    (expected * weights).sum().backward()
    (out.float() * weights).sum().backward()
    assert out.dtype == rounded.grad.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.02 * expected.norm()
    assert (rounded.grad.float() - exact.grad).norm() < 0.02 * exact.grad.norm()


def test_frozen_input_in_channels_last_trains_the_affine_weights() -> None:
    """What a frozen encoder hands its decoder; torch 2.13's GroupNorm crashes on it."""
    norm, x, _, weights = _case()
    frozen = x.contiguous(memory_format=torch.channels_last)
    (norm(frozen, None, True) * weights).sum().backward()
    ours = norm.weight.grad.clone()
    norm.zero_grad()
    (_reference(norm, x, None, True) * weights).sum().backward()
    torch.testing.assert_close(ours, norm.weight.grad, rtol=1e-4, atol=2e-5)


def test_weights_of_group_norm_load() -> None:
    norm, x, _, _ = _case()
    plain = nn.GroupNorm(4, 12)
    plain.load_state_dict(norm.state_dict())
    torch.testing.assert_close(
        norm(x.contiguous(memory_format=torch.channels_last)), plain(x), rtol=1e-4, atol=1e-5
    )
