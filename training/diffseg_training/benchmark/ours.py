"""Our own rows: the app's engine and the papers' recipes, through the same two generators."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from diffseg_training.benchmark.tasks import BenchmarkTask, Example, Outcome, stacked
from napari_diffseg.engine.adaptation import adapt
from napari_diffseg.engine.cohort import Case, prepare_cohort
from napari_diffseg.engine.cohort_training import train_cohort
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.pieces import largest_pieces
from napari_diffseg.engine.predict import predict, stray_pieces
from napari_diffseg.engine.progress import Progress, result_of
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.labels import Label
from napari_diffseg.network.backbone import Backbone, load_backbone
from napari_diffseg.network.segmenter import Segmenter, Strategy
from napari_diffseg.session.learning import cohort_card

Stages = dict[str, dict[str, float]]


def diffseg(
    task: BenchmarkTask,
    recipe: Literal["app", "paper"] = "app",
    strategy: Strategy = "linear",
    timestep: int | None = None,
    hidden: int = 128,
    backbone: str | Path | None = None,
    side: int | None = None,
) -> Outcome:
    """Fine-tune on the painted slices and predict every slice.

    Parameters
    ----------
    task
        What to learn from and what to segment. Slices of several volumes are stacked. Where
        there are volumes to start from, a model is trained on them first, with the same budget.
    recipe, strategy, timestep
        See :class:`napari_diffseg.engine.finetune.TrainSettings`.
    hidden
        Hidden width of the head.
    backbone
        Name or file; the shipped one by default.
    side
        Model grid points across the body; the backbone's by default.
    """
    settings = TrainSettings(
        strategy=strategy,
        recipe=recipe,
        seconds=task.budget.seconds,
        iterations=task.budget.iterations,
        seed=task.seed,
        device=task.device,  # type: ignore[arg-type]
        grid=side,
    )
    if timestep is not None:
        settings = replace(settings, timestep=timestep)
    loaded = load_backbone(backbone)
    start: Backbone | Segmenter = loaded
    if task.start:
        last, _ = _fit(stacked(task.start), task.labels, loaded, settings, hidden)
        assert last.segmenter is not None
        start = _saved_and_loaded(last.segmenter)
    example = stacked(task.train)
    last, stages = _fit(example, task.labels, start, settings, hidden)
    assert last.segmenter is not None
    masks, confidence = [], []
    for volume in task.test:
        # Labels are propagated from painted slices to their own volume only.
        own = volume is example.volume
        painted, registration = (example.painted, last.registration) if own else ((), None)
        mask, percent = (np.zeros(volume.hu.shape, np.uint8) for _ in range(2))
        found = predict(
            last.segmenter, volume, painted, device=task.device, registration=registration
        )
        for one in found:
            mask[one.z], percent[one.z] = one.mask, one.confidence
        if own and recipe == "app":  # as a session does after predicting
            mask[stray_pieces(last.segmenter, volume, mask, painted, registration)] = 0
        masks.append(mask)
        confidence.append(percent)
    return Outcome(
        tuple(masks),
        sum(stage["seconds"] for stage in stages.values()),
        int(sum(stage["steps"] for stage in stages.values())),
        f"backbone {loaded.name}",
        stages,
        tuple(confidence),
    )


def cohort(
    task: BenchmarkTask,
    backbone: str | Path | None = None,
    side: int | None = None,
    adapts: bool = True,
) -> Outcome:
    """Learn from all labelled volumes as ``napari-diffseg train`` does, and predict the others.

    Parameters
    ----------
    task
        What to learn from and what to segment; every label counts as looked for.
    backbone, side
        As for :func:`diffseg`.
    adapts
        Whether the model adapts to each volume before it predicts it, as ``predict`` does.
    """
    settings = TrainSettings(
        seconds=task.budget.seconds,
        iterations=task.budget.iterations,
        seed=task.seed,
        device=task.device,  # type: ignore[arg-type]
        grid=side,
    )
    loaded, began = load_backbone(backbone), time.perf_counter()
    cases = [partial(Case, one.volume, one.painted, task.labels) for one in task.train]
    ready = result_of(prepare_cohort(cases, loaded, settings))
    segmenter = result_of(train_cohort(ready, settings))
    segmenter.card = cohort_card(ready, segmenter)  # the pieces of a structure are on it
    seconds = time.perf_counter() - began
    masks = []
    for volume in task.test:
        mask = np.zeros(volume.hu.shape, np.uint8)
        own = segmenter
        if adapts:
            own = result_of(adapt(segmenter, volume, task.device))
        for one in predict(own, volume, device=task.device):
            mask[one.z] = one.mask
        masks.append(largest_pieces(mask, ready.single))
    return Outcome(tuple(masks), seconds, note=f"backbone {loaded.name}")


def _fit(
    example: Example,
    labels: tuple[Label, ...],
    start: Backbone | Segmenter,
    settings: TrainSettings,
    hidden: int,
) -> tuple[Progress, Stages]:
    """Train, and count seconds and optimiser steps of each stage."""
    stages: Stages = {}
    progress, last = None, time.perf_counter()
    for progress in finetune(
        example.volume, example.painted, labels, start, settings, hidden=hidden
    ):
        stage = stages.setdefault(progress.stage, {"seconds": 0.0, "steps": 0})
        stage["seconds"] += time.perf_counter() - last
        stage["steps"] += progress.loss is not None
        last = time.perf_counter()
    assert progress is not None
    return progress, stages


def _saved_and_loaded(segmenter: Segmenter) -> Segmenter:
    """What ``segment --save-model`` and then ``segment --model`` do."""
    with tempfile.TemporaryDirectory(prefix="diffseg-model-") as folder:
        path = Path(folder) / "model.safetensors"
        segmenter.save(path)
        return Segmenter.load(path)
