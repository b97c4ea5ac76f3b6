"""Our own rows: the app's engine and the papers' recipes, through the same two generators."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np

from diffseg_training.benchmark.tasks import Outcome, Task, stacked
from napari_diffseg.backbone import load_backbone
from napari_diffseg.finetune import TrainSettings, finetune
from napari_diffseg.predict import predict
from napari_diffseg.segmenter import Segmenter, Strategy


def diffseg(
    task: Task,
    recipe: Literal["app", "paper"] = "app",
    strategy: Strategy = "decoder",
    timestep: int = 0,
    backbone: str | Path | None = None,
    side: int | None = None,
) -> Outcome:
    """Fine-tune on the painted slices and predict every slice.

    Parameters
    ----------
    task
        What to learn from and what to segment. Slices of several volumes are stacked.
    recipe, strategy, timestep
        See :class:`napari_diffseg.finetune.TrainSettings`.
    backbone
        Name or file; the shipped one by default.
    side
        Model grid points across the body; the backbone's by default.
    """
    example = stacked(task.train)
    settings = TrainSettings(
        strategy=strategy,
        recipe=recipe,
        timestep=timestep,
        seconds=task.budget.seconds,
        iterations=task.budget.iterations,
        seed=task.seed,
        device=task.device,  # type: ignore[arg-type]
        grid=side,
    )
    start = load_backbone(backbone)
    began = time.perf_counter()
    segmenter: Segmenter | None = None
    steps = 0
    for progress in finetune(example.volume, example.painted, task.labels, start, settings):
        steps += progress.loss is not None
        segmenter = progress.segmenter or segmenter
    fitted = time.perf_counter() - began
    assert segmenter is not None
    masks = []
    for volume in task.test:
        # Painted slices tell of their own volume only.
        painted = example.painted if volume is example.volume else ()
        mask = np.zeros(volume.hu.shape, np.uint8)
        for one in predict(segmenter, volume, painted, device=task.device):
            mask[one.z] = one.mask
        masks.append(mask)
    return Outcome(tuple(masks), fitted, steps, f"backbone {start.name}")
