"""One training run: its inputs, its clock, and the plain loop over whole slices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_diffseg.engine.annotations import PaintedSlice, TrainError
from napari_diffseg.engine.augment import augment
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.predict import SlicePrediction, native_prediction, predict_slice
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.propagation import Prior
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.device import autocast
from napari_diffseg.network.losses import app_loss, paper_loss
from napari_diffseg.network.segmenter import Segmenter

_BATCH = 4  # PAPER row 11
_PREVIEW_EVERY = 2.0  # s


@dataclass
class Run:
    """What the stages of a training share.

    Attributes
    ----------
    volume, painted, grid, segmenter, settings
        As given to :func:`~napari_diffseg.engine.finetune.finetune`, and made from it.
    images
        Painted slices on the grid ``(n, 1, rows, columns)``.
    targets
        Their class indices ``(n, rows, columns)``.
    generator
        Source of randomness, on the CPU.
    began
        ``time.perf_counter()`` at the start.
    current
        Returns the slice to preview.
    finished
        Returns whether training should end with what it has learnt.
    prior
        What the painted slices tell of the others, once known.
    learnt
        Whether the head has learnt enough to be shown; until then the prior is.
    note
        What the next progress tells the user.
    batch
        Slices a step; halved when the device runs out of memory.
    steps
        Optimiser steps done.
    """

    volume: Volume
    painted: tuple[PaintedSlice, ...]
    grid: SliceGrid
    segmenter: Segmenter
    images: Tensor
    targets: Tensor
    settings: TrainSettings
    generator: torch.Generator
    began: float
    current: Callable[[], int] | None = None
    finished: Callable[[], bool] | None = None
    prior: Prior | None = None
    learnt: bool = False
    batch: int = _BATCH
    steps: int = 0
    note: str = ""
    _previewed: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began

    @property
    def finishing(self) -> bool:
        """Whether training was asked to end with what it has learnt."""
        return self.finished is not None and self.finished()

    @property
    def left(self) -> float:
        """Seconds that are left: infinite without a time budget, none once it is finished."""
        if self.finishing:
            return 0.0
        if self.settings.iterations is not None or self.settings.seconds is None:
            return float("inf")
        return self.settings.seconds - self.elapsed

    def progress(
        self,
        stage: str,
        step: int,
        steps: int | None,
        loss: float | None = None,
        preview: bool = False,
    ) -> Progress:
        """Report a step; with ``preview``, the current slice is predicted when it is due.

        Raises
        ------
        TrainError
            If training is to end and nothing has been learnt.
        """
        self.steps += loss is not None
        if self.finishing and not self.steps:
            raise TrainError("nothing was learnt yet, so there is nothing to keep")
        remaining: float | None = max(self.left, 0.0)
        if remaining == float("inf"):
            remaining = None
        shown = self._preview() if preview and not self.finishing else None
        note, self.note = self.note, ""
        return Progress(stage, step, steps, self.elapsed, remaining, loss, note, shown)

    def shrink(self) -> None:
        """Halve the batch after the device ran out of memory; the next progress says so."""
        self.batch = max(1, self.batch // 2)
        self.note = f"The device ran out of memory: {self.batch} slices at a time from here."
        torch.cuda.empty_cache()

    def _preview(self) -> SlicePrediction | None:
        if self.current is None or self.elapsed - self._previewed < _PREVIEW_EVERY:
            return None
        z = self.current()
        if self.learnt:
            shown = predict_slice(self.segmenter, self.grid, self.volume, self.prior, z)
        elif self.prior is not None:
            shown = native_prediction(self.grid, self.segmenter.labels, z, self.prior.at(z))
        else:
            return None
        self._previewed = self.elapsed
        return shown


def train_dense(run: Run, stage: str, iterations: int | None) -> Iterator[Progress]:
    """Train whole slices until the iterations are done or the time is up.

    Adam with coupled L2, 1e-4 (head: learning rate ten times higher, weight decay 1e-3), batch 4
    (PAPER rows 10 and 11); the papers' loss and plain slices with the ``paper`` recipe, class
    averaged Dice and changed slices otherwise. What the app's recipe has already taught the head
    is spared: all at 1e-4, falling to nothing with the time or the iterations.
    """
    paper = run.settings.recipe == "paper"
    taught = run.learnt
    segmenter = run.segmenter.requires_grad_(False)
    groups = []
    for module in segmenter.trainable():
        if module is segmenter:  # scratch
            parts = [(segmenter.unet, False), (segmenter.head, True)]
        else:
            parts = [(module, module is segmenter.head)]
        for part, head in parts:
            groups.append(
                {
                    "params": list(part.requires_grad_(True).parameters()),
                    "lr": 1e-3 if head and not taught else 1e-4,
                    "weight_decay": 1e-3 if head else 1e-4,
                }
            )
    optimiser = torch.optim.Adam(groups)
    run.learnt = True
    step, began, budget = 0, run.elapsed, run.left
    while run.left > 0 and (iterations is None or step < iterations):
        if taught:
            done = step / iterations if iterations else (run.elapsed - began) / budget
            for group in optimiser.param_groups:
                group["lr"] = 1e-4 * (1 - done)
        chosen = torch.randint(len(run.images), (run.batch,), generator=run.generator)
        images, targets = run.images[chosen], run.targets[chosen]
        if not paper:
            images, targets = augment(images, targets, run.generator)
        try:
            loss = _step(segmenter, optimiser, images, targets, paper, taught)
        except torch.OutOfMemoryError:
            if run.batch == 1:
                raise
            run.shrink()
            continue
        step += 1
        yield run.progress(stage, step, iterations, loss, preview=True)


def _step(
    segmenter: Segmenter,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    targets: Tensor,
    paper: bool,
    taught: bool,
) -> float:
    segmenter.train()
    # The head's statistics are those of sampled pixels: whole slices, mostly air, would spoil them.
    segmenter.head.train(not taught)
    with autocast(images.device):
        with torch.set_grad_enabled(segmenter.config.strategy == "scratch"):
            features = segmenter.encode(images)
        logits = segmenter.decode(features)
    loss = (paper_loss if paper else app_loss)(logits.float(), targets)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(loss.detach())
