"""One training: its state, its previews, and the loop over whole slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.augment import augment
from napari_diffseg.engine.crossing import Crossing
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.planes import PaintedPlane
from napari_diffseg.engine.predict import native_prediction, predict_slices
from napari_diffseg.engine.progress import Budget, Progress, SlicePrediction
from napari_diffseg.engine.propagation import PropagatedLabels
from napari_diffseg.engine.registration import Registration
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.compiler import load_compiler
from napari_diffseg.network.device import autocast
from napari_diffseg.network.losses import app_loss, merge_unknown, paper_loss
from napari_diffseg.network.segmenter import Segmenter

_PREVIEW_EVERY = 2.0  # s


@dataclass
class Training:
    """What the stages of a training share."""

    volume: Volume
    painted: tuple[PaintedSlice, ...]
    grid: SliceGrid
    segmenter: Segmenter
    images: Tensor  # (n, 1, rows, columns), the painted slices on the grid, then crossed ones
    targets: Tensor  # (n, rows, columns), their class indices
    generator: torch.Generator  # on the CPU
    budget: Budget
    current: Callable[[], int] | None = None  # gives the slice to preview
    registration: Registration | None = None
    planes: tuple[PaintedPlane, ...] = ()
    crossing: Crossing | None = None
    propagated: PropagatedLabels | None = None
    learnt: bool = False  # whether the head can be shown; until then propagated labels are
    unknown: Tensor | None = None  # (K,) bool, classes that nobody looked for in this volume
    teacher: Segmenter | None = None  # model of other patients that training began at
    batch: int = 4  # slices a step, as in arXiv 2402.15216v2
    _note: str = ""
    _previewed: float = field(default=0.0, repr=False)

    def report(
        self,
        stage: str,
        step: int,
        steps: int | None,
        loss: float | None = None,
        preview: bool = False,
    ) -> Progress:
        """Report a step; with ``preview``, the current slice is predicted when it is due."""
        remaining = max(self.budget.left, 0.0)
        left = None if math.isinf(remaining) else remaining
        shown = self._preview() if preview and not self.budget.finishing else None
        note, self._note = self._note, ""
        return Progress(stage, step, steps, self.budget.elapsed, left, loss, note, shown)

    def halve_batch(self) -> None:
        """Go on with half the batch after the device ran out of memory; the next report says so."""
        self.batch = max(1, self.batch // 2)
        self._note = f"The device ran out of memory: {self.batch} slices at a time from here."
        torch.cuda.empty_cache()

    def _preview(self) -> SlicePrediction | None:
        if self.current is None or self.budget.elapsed - self._previewed < _PREVIEW_EVERY:
            return None
        z = self.current()
        if self.learnt:
            (shown,) = predict_slices(self.segmenter, self.grid, self.volume, self.propagated, [z])
        elif self.propagated is not None:
            shown = native_prediction(self.grid, self.segmenter.labels, z, self.propagated.at(z))
        else:
            return None
        self._previewed = self.budget.elapsed
        return shown


def train_dense(
    training: Training, iterations: int | None, paper: bool, others: Sequence[Training] = ()
) -> Iterator[Progress]:
    """Train on whole painted slices until the iterations are done or the time is up.

    Parameters
    ----------
    training
        Its segmenter is trained in place; what the strategy leaves alone is frozen.
    iterations
        Optimiser steps; ``None`` lets the budget decide.
    paper
        Use the papers' loss on plain slices; otherwise the class-averaged loss on augmented ones.
    others
        Trainings of other patients that share the segmenter; each step takes slices of one.

    Notes
    -----
    As arXiv 2402.15216v2 fine-tunes: Adam with coupled L2, learning rate and weight decay 1e-4, for
    the head ten times as much. A head that the app's recipe has taught keeps the lower rate.
    """
    load_compiler()
    segmenter, taught = training.segmenter.requires_grad_(False), training.learnt
    optimiser = torch.optim.Adam(
        {
            "params": list(module.requires_grad_(True).parameters()),
            "lr": 1e-3 if module is segmenter.head and not taught else 1e-4,
            "weight_decay": 1e-3 if module is segmenter.head else 1e-4,
        }
        for module in segmenter.trainable()
    )
    scratch = segmenter.config.strategy == "scratch"
    training.learnt, step = True, 0
    while training.budget.left > 0 and step != iterations:
        one = training
        if others:
            chosen = int(torch.randint(len(others) + 1, (), generator=training.generator))
            one = [training, *others][chosen]
        n = torch.randint(len(one.images), (training.batch,), generator=training.generator)
        images, targets = one.images[n], one.targets[n]  # (B, 1, H, W), (B, H, W)
        if not paper:
            images, targets = augment(images, targets, training.generator)
        segmenter.train()
        # A taught head has the statistics of sampled pixels; whole slices, mostly air, spoil them.
        segmenter.head.train(not taught)
        try:
            with autocast(images.device):
                with torch.set_grad_enabled(scratch):
                    features = segmenter.encode(images)
                logits = segmenter.decode(features)  # (B, K, H, W)
            logits = logits.float()
            if one.unknown is not None:
                logits = merge_unknown(
                    logits, one.unknown.expand(len(logits), -1).to(logits.device)
                )
            loss = (paper_loss if paper else app_loss)(logits, targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        except torch.OutOfMemoryError:
            if training.batch == 1:
                raise
            training.halve_batch()
            continue
        step += 1
        yield training.report("training", step, iterations, float(loss.detach()), preview=True)
