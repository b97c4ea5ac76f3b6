"""Train a head on pixels sampled from the frozen maps of the decoder."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.engine.scribbles import PRIOR_EXPONENT
from napari_diffseg.network.compiler import load_compiler
from napari_diffseg.network.device import autocast, native_bf16
from napari_diffseg.network.losses import UNKNOWN, merge_unknown
from napari_diffseg.network.segmenter import LevelHead

BATCH = 4096
"""Pixels a step."""

_WARM_UP = 0.3  # share of the steps in which the learning rate rises
_SMOOTHING = 0.05  # of the labels
_NEAR = 9  # grid pixels; half of the background is sampled this near to a structure


@dataclass
class PixelBank:
    """Sampled pixels: features, classes and how much each counts."""

    features: list[Tensor] = field(default_factory=list)
    classes: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    unknown: list[Tensor] = field(default_factory=list)  # (N, K) bool

    def add(
        self,
        maps: tuple[Tensor, ...],
        targets: Tensor,
        generator: torch.Generator,
        structure: int,
        background: int,
        weight: float | Sequence[float] = 1.0,
        unknown: Tensor | None = None,
    ) -> None:
        """Sample pixels of ``maps`` (each ``(B, C, h, w)``) labelled ``targets`` ``(B, H, W)``.

        At most ``structure`` pixels of each class and ``background`` of class 0 are taken from
        each slice. ``weight`` is how much each pixel counts, of all slices or of each.
        ``unknown`` ``(K,)`` are classes that nobody looked for there.
        """
        rows, columns = targets.shape[1:]
        for index, target in enumerate(targets.cpu()):
            chosen = _sample(target, generator, structure, background)
            y = (chosen // columns + 0.5) * 2 / rows - 1
            x = (chosen % columns + 0.5) * 2 / columns - 1
            where = torch.stack([x, y], dim=-1)[None, None].to(maps[0].device)
            found = [
                F.grid_sample(
                    level[index : index + 1].float(),
                    where,
                    padding_mode="border",
                    align_corners=False,
                )[0, :, 0].T
                for level in maps
            ]
            self.features.append(torch.cat(found, dim=1).to(torch.bfloat16))
            self.classes.append(target.flatten()[chosen])
            counts = weight if isinstance(weight, int | float) else weight[index]
            self.weights.append(torch.full((len(chosen),), float(counts)))
            if unknown is not None:
                self.unknown.append(unknown.expand(len(chosen), -1))

    def extended(self, other: PixelBank) -> PixelBank:
        """Both banks in one, without copying features."""
        return PixelBank(
            self.features + other.features,
            self.classes + other.classes,
            self.weights + other.weights,
            self.unknown + other.unknown,
        )


def _sample(target: Tensor, generator: torch.Generator, structure: int, background: int) -> Tensor:
    flat = target.flatten()
    chosen = []

    def some(candidates: Tensor, count: int) -> None:
        order = torch.randperm(len(candidates), generator=generator)
        chosen.append(candidates[order[:count]])

    for index in flat.unique().tolist():
        if index not in (0, UNKNOWN):
            some(torch.nonzero(flat == index)[:, 0], structure)
    inside = ((target > 0) & (target != UNKNOWN)).float()
    near = F.max_pool2d(inside[None, None], _NEAR, 1, _NEAR // 2).flatten() > 0
    some(torch.nonzero((flat == 0) & near)[:, 0], background // 2)
    some(torch.nonzero(flat == 0)[:, 0], background // 2)
    return torch.cat(chosen)


def _one_cycle(done: float) -> float:
    """Learning rate as a share of its peak (one cycle, Smith and Topin 2019)."""
    if done < _WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / _WARM_UP)) / 2
    return (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _marginal_losses(logits: Tensor, classes: Tensor, unknown: Tensor) -> Tensor:
    """Smoothed cross-entropy ``(N,)`` over the classes that somebody looked for."""
    log_p = merge_unknown(logits, unknown).log_softmax(dim=1)
    even = log_p.masked_fill(unknown, 0.0).sum(dim=1) / (~unknown).sum(dim=1)
    true = log_p.gather(1, classes[:, None])[:, 0]
    return -(1 - _SMOOTHING) * true - _SMOOTHING * even


def fit_head(
    head: LevelHead,
    bank: PixelBank,
    prior: Tensor,
    steps: int,
    generator: torch.Generator,
    learning_rate: float = 2e-3,
    seconds: float = math.inf,
) -> Iterator[float]:
    """Train ``head`` on ``bank``; yields the loss of every step.

    Parameters
    ----------
    head
        Trained in place, and left in evaluation mode.
    bank
        Sampled pixels.
    prior
        Share of each class in the painted slices ``(classes,)``.
    steps
        Optimiser steps at most.
    generator
        Source of randomness, on the CPU.
    learning_rate
        Peak of the one-cycle schedule, which ends with the steps or the time.
    seconds
        Time at most.

    Notes
    -----
    Classes are sampled and weighted towards balance; logit adjustment (Menon et al., "Long-tail
    learning via logit adjustment", ICLR 2021) puts a part of the class prior back.
    """
    device = head.project.weight.device
    features = torch.cat(bank.features)
    classes = torch.cat(bank.classes).to(device)
    weights = torch.cat(bank.weights).to(device)
    unknown = torch.cat(bank.unknown).to(device) if bank.unknown else None
    count = torch.zeros(len(prior), device=device).index_add_(0, classes, weights)
    present = count > 0
    balance = torch.where(present, count.sum() / count.clamp(min=1e-6), 0).sqrt()
    sample_weights = balance[classes] * weights
    sample_weights /= sample_weights.mean()
    seen = count * balance
    head.shift = torch.where(
        present,
        PRIOR_EXPONENT * prior.to(device).clamp(min=1e-6).log()
        - (seen / seen.sum()).clamp(1e-8).log(),
        -30.0,
    )
    sample = features[torch.randperm(len(features), generator=generator)[:BATCH]].float()
    head.mean, head.deviation = sample.mean(dim=0), sample.std(dim=0).clamp(min=1e-3)
    low = native_bf16(device)
    load_compiler()
    optimiser = torch.optim.AdamW(head.parameters(), learning_rate, weight_decay=1e-2)
    head.train()
    began, step, done = time.perf_counter(), 0, 0.0
    while done < 1:
        optimiser.param_groups[0]["lr"] = learning_rate * _one_cycle(done)
        chosen = torch.randint(len(features), (BATCH,), generator=generator).to(device)
        with autocast(device):
            logits = head.pixels(features[chosen] if low else features[chosen].float())
        if unknown is None:
            losses = F.cross_entropy(
                logits.float(), classes[chosen], reduction="none", label_smoothing=_SMOOTHING
            )
        else:
            losses = _marginal_losses(logits.float(), classes[chosen], unknown[chosen])
        loss = (losses * sample_weights[chosen]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        done = max(step / steps, (time.perf_counter() - began) / seconds)
        yield float(loss.detach())
    head.eval()
