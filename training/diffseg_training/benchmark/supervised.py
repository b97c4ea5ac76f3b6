"""Training of a rival network from painted slices, with the augmentation of nnU-Net's kind."""

from __future__ import annotations

import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffseg_training.benchmark.grids import (
    segmented,
    square_grid,
    task_intensity,
    training_pairs,
)
from diffseg_training.benchmark.networks import NETWORKS, start_of
from diffseg_training.benchmark.tasks import BenchmarkTask, LearningBudget, Outcome
from napari_diffseg.network.device import autocast, pick_device
from napari_diffseg.network.losses import UNKNOWN, app_loss

BATCH = 4


def train_network(
    task: BenchmarkTask,
    name: str,
    side: int = 128,
    small: bool = True,
    learning_rate_factor: float = 1.0,
) -> Outcome:
    """Train one of :data:`networks.NETWORKS` on the painted slices and segment.

    Parameters
    ----------
    task
        What to learn from and what to segment.
    name
        Key of the network.
    side
        Pixels along the square model grid.
    small
        The variant for a CPU instead of the authors' size.
    learning_rate_factor
        Learning rate, as a multiple of the authors'.

    Notes
    -----
    AdamW with polynomial decay over the budget, cross-entropy and class-averaged Dice, batch 4,
    and nnU-Net's augmentations without mirroring, because left and right organs are different
    labels.
    """
    torch.manual_seed(task.seed)
    spec = NETWORKS[name]
    device = pick_device(task.device)
    # Importing a library of networks is no learning: the clock starts when it is there.
    network = spec.build(len(task.labels) + 1, side, small).to(device)
    began = time.perf_counter()
    intensity = task_intensity(task)
    images, classes = (one.to(device) for one in training_pairs(task, side, intensity))
    highest = learning_rate_factor * spec.learning_rate
    optimiser = torch.optim.AdamW(network.parameters(), lr=highest, weight_decay=1e-5)
    generator = torch.Generator().manual_seed(task.seed)
    network.train()
    steps = 0
    while (left := share_left(task.budget, steps, time.perf_counter() - began)) > 0:
        for group in optimiser.param_groups:
            group["lr"] = highest * left**0.9
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        x, y = augmented(images[chosen], classes[chosen], generator)
        with autocast(device):
            logits = network(x)
        loss = app_loss(logits.float(), y)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()
        steps += 1
    fitted = time.perf_counter() - began
    network.eval()

    def probabilities(batch: Tensor) -> Tensor:
        with autocast(device):
            scores: Tensor = network(batch.to(device))
        return scores.float().softmax(dim=1).cpu()

    masks = tuple(
        segmented(volume, square_grid(volume, side, intensity), task, probabilities)
        for volume in task.test
    )
    return Outcome(masks, fitted, steps, start_of(name, small))


def share_left(budget: LearningBudget, steps: int, seconds: float) -> float:
    """Share of a budget that is left, from 1 down to 0; the first step is always allowed."""
    if budget.iterations is not None:
        return 1 - steps / budget.iterations
    if budget.seconds is None:
        raise ValueError("a method that learns needs a budget in seconds or iterations")
    return max(1 - seconds / budget.seconds, 0.0 if steps else 0.5)


def augmented(images: Tensor, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotate, zoom, shift, and change contrast, brightness, gamma and noise, at random.

    Parameters
    ----------
    images
        ``(B, 1, N, N)`` in [-1, 1].
    classes
        ``(B, N, N)``; what is rotated in from outside is unknown.
    generator
        Source of the random numbers, on the CPU.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(images), generator=generator)

    angle, zoom = uniform(-math.pi / 12, math.pi / 12), uniform(0.8, 1.25)
    matrix = torch.zeros(len(images), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos() * zoom
    matrix[:, 1, 0] = angle.sin() * zoom
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    matrix[:, 0, 2], matrix[:, 1, 2] = uniform(-0.1, 0.1), uniform(-0.1, 0.1)
    where = F.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)
    x = F.grid_sample(images + 1, where, align_corners=False) - 1  # air beyond the edge
    hidden = (classes != UNKNOWN)[:, None] * (classes[:, None].float() + 1)
    y = F.grid_sample(hidden, where, mode="nearest", align_corners=False)[:, 0].round().long() - 1
    y[y < 0] = UNKNOWN

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None].to(images.device)

    gamma, contrast, brightness = uniform(0.8, 1.25), uniform(0.8, 1.25), uniform(-0.1, 0.1)
    x = ((x + 1) / 2).clamp(0, 1) ** each(gamma) * 2 - 1
    x = x * each(contrast) + each(brightness)
    noise = torch.randn(x.shape, generator=generator).to(images.device)
    return x + each(uniform(0, 0.1)) * noise, y
