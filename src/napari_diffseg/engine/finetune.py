"""Fine-tune a segmenter on the painted slices of one volume, as a generator of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch

from napari_diffseg.engine.annotations import PaintedSlice, TrainError, class_targets
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.grid_width import grid_width
from napari_diffseg.engine.planes import PaintedPlane, check_planes, crossed_slices, with_planes
from napari_diffseg.engine.progress import Budget, Progress
from napari_diffseg.engine.recipe import TIMESTEP, app_recipe
from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.engine.training import Training, train_dense
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone
from napari_diffseg.network.device import pick_device, upload, within_memory
from napari_diffseg.network.segmenter import Segmenter, SegmenterConfig

_MAX_CROSSED = 16  # slices of which the rows and columns that planes cross are learnt from


def finetune(
    volume: Volume,
    painted: Sequence[PaintedSlice],
    labels: Sequence[Label],
    start: Backbone | Segmenter,
    settings: TrainSettings,
    current: Callable[[], int] | None = None,
    registration: Registration | None = None,
    finished: Callable[[], bool] | None = None,
    hidden: int = SegmenterConfig.hidden,
    planes: Sequence[PaintedPlane] = (),
    rehearse: bool = False,
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
    registration
        The volume's registration from an earlier training, so that it is not computed again.
    finished
        Asked at every step; once true, training ends with what it has learnt so far.
    hidden
        Hidden width of the head.
    planes
        Painted coronal and sagittal planes; transverse slices are right where they disagree.
    rehearse
        Learn what ``start`` predicts, too, far from any paint: it has learnt from other patients.
        Background alone is paint enough then.

    Yields
    ------
    Progress
        At least every half second of work; the last one holds the segmenter and, with the app's
        recipe, the volume's registration.

    Raises
    ------
    TrainError
        If there is nothing to learn from, no end is set, or the training was finished before its
        first step.
    DeviceError
        If the device is absent, or its memory is too small for a single slice.

    Examples
    --------
    >>> from napari_diffseg.io import read_labels, read_volume
    >>> from napari_diffseg.io import sample_labels_path, sample_volume_path
    >>> from napari_diffseg.network import load_backbone
    >>> volume = read_volume(sample_volume_path())
    >>> labels = read_labels(sample_labels_path(), volume.geometry)
    >>> painted = [PaintedSlice(z, labels.mask[z]) for z in (40, 70)]
    >>> settings = TrainSettings(recipe="paper", iterations=1, grid=32)
    >>> for progress in finetune(volume, painted, labels.labels, load_backbone(), settings):
    ...     print(progress.stage, progress.step)
    preparing 0
    training 1
    trained 1
    >>> progress.segmenter.labels == labels.labels
    True
    """
    if settings.seconds is None and settings.iterations is None and finished is None:
        raise TrainError("no end is set: give a time budget, iterations, or a way to finish")
    budget = Budget(settings.seconds if settings.iterations is None else None, finished)
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
    check_planes(planes, volume)
    painted = with_planes(painted, planes, volume.hu.shape)
    crossed = crossed_slices(planes, volume.hu.shape, _MAX_CROSSED, {p.z for p in painted})
    learnt_from = (*painted, *crossed)
    with within_memory():
        classes = class_targets(learnt_from, labels, known=rehearse)
        device = pick_device(settings.device)
        torch.manual_seed(settings.seed)
        paper = settings.recipe == "paper"
        timestep = 0 if paper else TIMESTEP
        width = settings.grid
        if not width:
            shape = start.unet.config
            width = shape.image_size if paper else grid_width(shape, device)
        config = SegmenterConfig(
            strategy=settings.strategy,
            head="paper" if paper else "levels",
            hidden=hidden,
            timestep=timestep if settings.timestep is None else settings.timestep,
            columns=width,
        )
        segmenter = Segmenter.new(start, labels, config).placed(device)
        teacher = _teacher(start, segmenter) if rehearse else None
        if teacher is not None:
            segmenter.card = replace(segmenter.card, cases=teacher.card.cases + 1)
        grid = SliceGrid.of(volume, config.columns, segmenter.grid_multiple, segmenter.intensity)
        training = Training(
            volume=volume,
            painted=tuple(painted),
            grid=grid,
            segmenter=segmenter,
            images=upload(grid.image(np.stack([volume.hu[p.z] for p in learnt_from])), device),
            targets=upload(grid.target(classes), device),
            generator=torch.Generator().manual_seed(settings.seed),
            budget=budget,
            current=current,
            registration=None if paper else registration,
            planes=tuple(planes),
            teacher=teacher,
        )
        learnt = 0
        for progress in _stages(training, settings):
            learnt += progress.loss is not None
            if budget.finishing and not learnt:
                raise TrainError("nothing was learnt yet, so there is nothing to keep")
            yield progress


def _teacher(start: Backbone | Segmenter, segmenter: Segmenter) -> Segmenter | None:
    """Give the start if it can label slices for the segmenter, whose first labels are its own."""
    if not isinstance(start, Segmenter) or segmenter.labels[: len(start.labels)] != start.labels:
        return None
    if {start.config.head, segmenter.config.head} != {"levels"}:
        return None
    return deepcopy(start).placed(next(segmenter.parameters()).device)


def _stages(training: Training, settings: TrainSettings) -> Iterator[Progress]:
    yield training.report("preparing", 0, None)
    if settings.recipe == "paper":
        yield from train_dense(training, settings.iterations, paper=True)
    else:
        yield from app_recipe(training, settings.iterations)
    yield replace(
        training.report("trained", 1, 1),
        remaining=0.0,
        segmenter=training.segmenter.eval(),
        registration=training.registration,
    )
