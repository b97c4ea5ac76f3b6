"""The square model grid that every learning rival gets, and slices on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffseg_training.benchmark.tasks import BenchmarkTask, Example, Mask
from napari_diffseg.engine.grid import SliceGrid, body_box
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Intensity
from napari_diffseg.network.losses import UNKNOWN


def task_intensity(task: BenchmarkTask) -> Intensity:
    """HU range from the painted structures: nnU-Net's 0.5 and 99.5 percentiles of foreground."""
    inside = [
        example.volume.hu[one.z][(one.mask > 0) & (one.mask < 255)].ravel()
        for example in task.train
        for one in example.painted
    ]
    low, high = np.percentile(np.concatenate(inside), [0.5, 99.5])
    return Intensity((float(low), float(max(high, low + 1))), (-1.0, 1.0))


def square_grid(volume: Volume, side: int, intensity: Intensity) -> SliceGrid:
    """Fit a square grid of `side` pixels, square in mm, about the body box."""
    y0, y1, x0, x1 = body_box(volume.hu)
    _, dy, dx = volume.geometry.spacing
    length = max((y1 - y0) * dy, (x1 - x0) * dx)
    box = []
    for low, high, step in ((y0, y1, dy), (x0, x1, dx)):
        pixels = max(1, round(length / step))
        start = (low + high - pixels) // 2
        box += [start, start + pixels]
    shape = volume.hu.shape[1], volume.hu.shape[2]
    return SliceGrid((box[0], box[1], box[2], box[3]), shape, (side, side), intensity)


def training_pairs(task: BenchmarkTask, side: int, intensity: Intensity) -> tuple[Tensor, Tensor]:
    """Painted slices on the square grid.

    Returns
    -------
    images, classes
        ``(n, 1, side, side)`` in [-1, 1] and class indices ``(n, side, side)``, int64, with
        ``losses.UNKNOWN`` where a scribbled slice is not painted.
    """
    images, classes = [], []
    for example in task.train:
        grid = square_grid(example.volume, side, intensity)
        painted = example.painted
        images.append(grid.image(example.volume.hu[[one.z for one in painted]]))
        classes.append(grid.target(classes_of(example, task)))
    return torch.cat(images), torch.cat(classes)


def classes_of(example: Example, task: BenchmarkTask) -> Mask:
    """Class indices ``(n, y, x)`` of an example's painted slices."""
    lookup = np.zeros((2, 256), np.uint8)
    lookup[0, 0] = UNKNOWN  # scribbled: what is not painted is not known
    for index, label in enumerate(task.labels, start=1):
        lookup[:, label.id] = index
    return np.stack([lookup[int(one.full)][one.mask] for one in example.painted])


def segmented(
    volume: Volume,
    grid: SliceGrid,
    task: BenchmarkTask,
    probabilities: Callable[[Tensor], Tensor],
    batch: int = 8,
) -> Mask:
    """Segment a whole volume a few slices at a time.

    Parameters
    ----------
    volume, grid
        What to segment, and the grid of the method.
    task
        For its labels.
    probabilities
        Class probabilities ``(b, classes, side, side)`` of images ``(b, 1, side, side)``.
    batch
        Slices at a time.

    Returns
    -------
    ndarray
        Label ids, uint8 ``(z, y, x)``.
    """
    ids = np.array([0, *(label.id for label in task.labels)], np.uint8)
    planes = []
    with torch.inference_mode():
        for z in range(0, len(volume.hu), batch):
            scores = probabilities(grid.image(volume.hu[z : z + batch]))
            planes += [ids[grid.native(one)[0]] for one in scores]
    return np.stack(planes)
