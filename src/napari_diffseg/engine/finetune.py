"""Fine-tune a segmenter on painted slices, as a generator of progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice, TrainError, class_targets
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.recipe import TIMESTEP, app_recipe, columns
from napari_diffseg.engine.registration import Motion
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.engine.training import Run, train_dense
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone
from napari_diffseg.network.device import pick_device, upload
from napari_diffseg.network.segmenter import Segmenter, SegmenterConfig

__all__ = [
    "BACKGROUND",
    "PaintedSlice",
    "Progress",
    "TrainError",
    "TrainSettings",
    "class_targets",
    "finetune",
]


def finetune(
    volume: Volume,
    painted: Sequence[PaintedSlice],
    labels: Sequence[Label],
    start: Backbone | Segmenter,
    settings: TrainSettings,
    current: Callable[[], int] | None = None,
    motion: Motion | None = None,
    finished: Callable[[], bool] | None = None,
    hidden: int = SegmenterConfig.hidden,
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
    motion
        The volume's motion from an earlier training, so that it is not computed again.
    finished
        Asked at every step; once true, training ends with what it has learnt so far.
    hidden
        Hidden width of the head.

    Yields
    ------
    Progress
        At least every half second of work; the last one holds the segmenter.

    Raises
    ------
    TrainError
        If there is nothing to learn from, no end is set, or the training was finished before its
        first step.
    """
    if settings.seconds is None and settings.iterations is None and finished is None:
        raise TrainError("no end is set: give a time budget, iterations, or a way to finish")
    for slice_ in painted:
        if not 0 <= slice_.z < len(volume.hu):
            raise TrainError(
                f"slice {slice_.z} is painted, but the volume ends at {len(volume.hu) - 1}"
            )
        if slice_.mask.shape != volume.hu.shape[1:]:
            raise TrainError(
                f"slice {slice_.z} is painted on {slice_.mask.shape} pixels, "
                f"but the volume has {volume.hu.shape[1:]}"
            )
    classes = class_targets(painted, labels)
    began = time.perf_counter()
    device = pick_device(settings.device)
    torch.manual_seed(settings.seed)
    paper = settings.recipe == "paper"
    timestep = 0 if paper else TIMESTEP
    size = start.unet.config.image_size if paper else columns(start.unet, device)
    config = SegmenterConfig(
        strategy=settings.strategy,
        head="paper" if paper else "levels",
        hidden=hidden,
        timestep=timestep if settings.timestep is None else settings.timestep,
        columns=settings.grid or size,
    )
    segmenter = Segmenter.new(start, labels, config).placed(device)
    grid = SliceGrid.of(volume, config.columns, segmenter.grid_multiple, segmenter.intensity)
    run = Run(
        volume=volume,
        painted=tuple(painted),
        grid=grid,
        segmenter=segmenter,
        images=upload(grid.image(np.stack([volume.hu[p.z] for p in painted])), device),
        targets=upload(grid.target(classes), device),
        settings=settings,
        generator=torch.Generator().manual_seed(settings.seed),
        began=began,
        current=current,
        finished=finished,
    )
    yield run.progress("preparing", 0, None)
    if paper:
        yield from train_dense(run, "training", settings.iterations)
    else:
        yield from app_recipe(run, motion)
    last = run.progress("trained", 1, 1)
    yield replace(last, remaining=0.0, segmenter=segmenter.eval())
