"""Group normalisation, its conditioning and its activation in one step.

torch's ``GroupNorm`` is slow backwards in the channels_last layout on a CPU (126 ms against 8 ms
in the usual layout, for 8 x 64 x 128 x 128 in bfloat16), and in torch 2.13 it crashes there when
its input needs no gradient. But channels_last is where the convolutions are fastest, so this
layout has a backward pass of its own here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Norm(nn.GroupNorm):
    """``nn.GroupNorm`` that also scales, shifts and activates; its weights are the same.

    ``forward(x, scale_shift, silu)`` equals ``silu(norm(x) * (1 + scale) + shift)``, with
    ``scale_shift`` ``(B, 2C)`` the two side by side, or ``None``.
    """

    def forward(self, x: Tensor, scale_shift: Tensor | None = None, silu: bool = False) -> Tensor:
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            samples, channels = x.shape[:2]
            a, b = self.weight.expand(samples, channels), self.bias.expand(samples, channels)
            if scale_shift is not None:
                scale, shift = scale_shift.float().chunk(2, dim=1)
                a, b = a * (1 + scale), torch.addcmul(shift, b, 1 + scale)
            fused: Tensor = _ChannelsLast.apply(  # type: ignore[no-untyped-call]
                x, a, b, self.num_groups, self.eps, silu
            )
            return fused
        h = super().forward(x)
        if scale_shift is not None:
            scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        return F.silu(h) if silu else h


class _ChannelsLast(torch.autograd.Function):
    """``act(a * normalised(x) + b)`` with ``a`` and ``b`` ``(B, C)``.

    Statistics and the sums of the backward pass are float32; the maps keep their own precision.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        samples, channels, height, width = x.shape
        normed, _, rstd = torch.native_group_norm(
            x, None, None, samples, channels, height * width, groups, eps
        )
        scale, shift = a.to(x.dtype)[:, :, None, None], b.to(x.dtype)[:, :, None, None]
        y = torch.addcmul(shift, normed, scale)
        ctx.save_for_backward(normed, a, rstd, *([y] if silu else []))
        return F.silu(y) if silu else y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normed, a, rstd, *rest = ctx.saved_tensors
        (dy,) = grads
        if rest:
            dy = torch.ops.aten.silu_backward(dy, rest[0])
        groups, per_group = rstd.shape[1], a.shape[1] // rstd.shape[1]
        pixels = normed.shape[2] * normed.shape[3]
        db = _sums(dy)
        work = dy * normed
        da = _sums(work)
        if not ctx.needs_input_grad[0]:
            return None, da, db, None, None, None

        def group_mean(values: Tensor) -> Tensor:
            means = values.unflatten(1, (groups, per_group)).sum(2) / (pixels * per_group)
            repeated: Tensor = means.repeat_interleave(per_group, 1)
            return repeated

        # dx = r (a dy - mean(a dy) - normed mean(a dy normed)), means over each group.
        r, scale = rstd.float().repeat_interleave(per_group, 1), a.float()
        factors = (r * scale, -r * group_mean(scale * da), -r * group_mean(scale * db))
        along, across, constant = (v.to(normed.dtype)[:, :, None, None] for v in factors)
        torch.addcmul(constant, normed, across, out=work)
        return work.addcmul_(dy, along), da, db, None, None, None


def _sums(x: Tensor) -> Tensor:
    """Sum over the pixels, ``(B, C)`` float32; row by row first, or bfloat16 would round it."""
    return x.permute(0, 2, 3, 1).sum(2).float().sum(1)
