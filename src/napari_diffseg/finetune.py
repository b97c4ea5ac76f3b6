"""Fine-tune a segmenter on painted slices, as a generator of progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_diffseg.backbone import Backbone
from napari_diffseg.device import autocast, pick_device
from napari_diffseg.losses import UNKNOWN, app_loss, paper_loss
from napari_diffseg.predict import SlicePrediction, predict_slice
from napari_diffseg.segmenter import Segmenter, SegmenterConfig, Strategy
from napari_diffseg.slices import SliceGrid
from napari_diffseg.volume import Label, Volume

BACKGROUND = 255
"""Value of painted background in a scribbled slice."""


class TrainError(ValueError):
    """Training cannot start."""


@dataclass(frozen=True, eq=False)
class PaintedSlice:
    """What the user says of one slice.

    Attributes
    ----------
    z
        Slice index, inferior to superior.
    mask
        Label ids ``(y, x)``, uint8; :data:`BACKGROUND` is painted background.
    full
        Whether unpainted pixels are background (painted in full) or unknown (scribbles).
    """

    z: int
    mask: NDArray[np.uint8]
    full: bool = True


@dataclass(frozen=True)
class TrainSettings:
    """How to train; forms and command-line options are made from these fields."""

    strategy: Strategy = field(
        default="decoder",
        metadata={"help": "what is trained: decoder and head, head only, or all from scratch"},
    )
    recipe: Literal["app", "paper"] = field(
        default="app", metadata={"help": "the app's recipe, or the papers'"}
    )
    timestep: int = field(
        default=0, metadata={"help": "diffusion timestep at which the network sees the image"}
    )
    seconds: float | None = field(
        default=60.0, metadata={"help": "time budget; not used when iterations are given"}
    )
    iterations: int | None = field(default=None, metadata={"help": "optimiser steps"})
    seed: int = field(default=0, metadata={"help": "random seed"})
    device: Literal["auto", "cpu", "cuda", "mps"] = field(
        default="auto", metadata={"help": "where to run"}
    )
    grid: int | None = field(
        default=None,
        metadata={"help": "model grid points across the body; default: the backbone's"},
    )

    def __post_init__(self) -> None:
        if not 0 <= self.timestep <= 1000:
            raise TrainError(f"timestep {self.timestep} is outside 0 to 1000")
        if self.iterations is not None and self.iterations < 1:
            raise TrainError("iterations must be at least 1")
        if self.iterations is None and (self.seconds is None or self.seconds <= 0):
            raise TrainError("give a time budget above 0 s, or a number of iterations")


@dataclass(frozen=True, eq=False)
class Progress:
    """One step of a long task.

    Attributes
    ----------
    stage
        What is being done, in a word or two.
    step, steps
        Steps done in this stage, and of how many (``None`` where time decides).
    seconds, remaining
        Elapsed and remaining time of the whole task in s.
    loss
        Training loss, where there is one.
    note
        Something the user should know, else empty.
    preview
        A fresh prediction of the current slice, now and then.
    segmenter
        The trained model, on the last one only.
    """

    stage: str
    step: int
    steps: int | None
    seconds: float
    remaining: float | None
    loss: float | None = None
    note: str = ""
    preview: SlicePrediction | None = None
    segmenter: Segmenter | None = None


def class_targets(painted: Sequence[PaintedSlice], labels: Sequence[Label]) -> NDArray[np.uint8]:
    """Painted masks as class indices ``(n, y, x)`` with :data:`losses.UNKNOWN`.

    Raises
    ------
    TrainError
        If nothing is painted, or a mask holds an id without a label.
    """
    if not painted:
        raise TrainError("no slice is painted: paint a structure on at least one slice")
    full = np.zeros(256, np.uint8)
    known = {0, BACKGROUND}
    for index, label in enumerate(labels, start=1):
        full[label.id] = index
        known.add(label.id)
    partial = full.copy()
    partial[0] = UNKNOWN
    out = []
    for slice_ in painted:
        strangers = set(np.unique(slice_.mask).tolist()) - known
        if strangers:
            raise TrainError(f"slice {slice_.z} holds id {min(strangers)}, which has no label")
        out.append((full if slice_.full else partial)[slice_.mask])
    classes = np.stack(out)
    if not ((classes > 0) & (classes != UNKNOWN)).any():
        raise TrainError("only background is painted: paint a structure on at least one slice")
    return classes


def finetune(
    volume: Volume,
    painted: Sequence[PaintedSlice],
    labels: Sequence[Label],
    start: Backbone | Segmenter,
    settings: TrainSettings,
    current: Callable[[], int] | None = None,
) -> Iterator[Progress]:
    """Train a segmenter on the painted slices of one volume.

    Parameters
    ----------
    volume
        The CT.
    painted
        Painted slices.
    labels
        The structures.
    start
        Backbone, or a trained segmenter to go on from.
    settings
        Strategy, recipe and budget.
    current
        Returns the slice that the user looks at; it is predicted again now and then.

    Yields
    ------
    Progress
        At least every half second of work; the last one holds the segmenter.

    Raises
    ------
    TrainError
        If there is nothing to learn from.
    """
    classes = class_targets(painted, labels)
    began = time.perf_counter()
    device = pick_device(settings.device)
    torch.manual_seed(settings.seed)
    config = SegmenterConfig(
        strategy=settings.strategy,
        head="paper" if settings.recipe == "paper" else "levels",
        timestep=settings.timestep,
        columns=settings.grid or start.unet.config.image_size,
    )
    segmenter = Segmenter.new(start, labels, config).to(device)
    grid = SliceGrid.of(volume, config.columns, segmenter.grid_multiple, segmenter.intensity)
    images = torch.cat([grid.image(volume.hu[p.z][None]) for p in painted]).to(device)
    targets = grid.target(classes).to(device)
    loss_of = paper_loss if settings.recipe == "paper" else app_loss

    for parameter in segmenter.parameters():
        parameter.requires_grad_(False)
    groups = []
    for module in segmenter.trainable():
        parameters = [p.requires_grad_(True) for p in module.parameters()]
        head = module is segmenter.head
        groups.append(
            {
                "params": parameters,
                "lr": 1e-3 if head else 1e-4,
                "weight_decay": 1e-3 if head else 1e-4,
            }
        )
    optimiser = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(settings.seed)
    step, last_preview = 0, began
    while True:
        elapsed = time.perf_counter() - began
        if settings.iterations is not None:
            remaining = elapsed / max(step, 1) * (settings.iterations - step)
            done = step >= settings.iterations
        else:
            assert settings.seconds is not None
            remaining = settings.seconds - elapsed
            done = remaining <= 0
        if done:
            break
        chosen = torch.randint(len(images), (4,), generator=generator)
        loss = _step(segmenter, optimiser, images[chosen], targets[chosen], loss_of)
        step += 1
        preview = None
        if current is not None and time.perf_counter() - last_preview > 2:
            preview = predict_slice(segmenter, grid, volume, current())
            last_preview = time.perf_counter()
        yield Progress(
            "training", step, settings.iterations, elapsed, remaining, loss, preview=preview
        )
    yield Progress(
        "trained", step, step, time.perf_counter() - began, 0.0, segmenter=segmenter.eval()
    )


def _step(
    segmenter: Segmenter,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    targets: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> float:
    segmenter.train()
    with autocast(images.device):
        with torch.set_grad_enabled(segmenter.config.strategy == "scratch"):
            features = segmenter.encode(images)
        logits = segmenter.decode(features)
    loss = loss_of(logits.float(), targets)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())
