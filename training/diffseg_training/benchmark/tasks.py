"""A task for a method: painted slices in, masks out; and the score of what came out.

A method never sees the reference: a :class:`BenchmarkTask` holds the painted slices and the
volumes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from diffseg_training.benchmark.protocols import Chosen, Split
from diffseg_training.benchmark.scribbles import scribbled
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.metrics import Absent, Evaluation, evaluate
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume

Mask = NDArray[np.uint8]
_AIR = -1024.0


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume with its reference mask ``(z, y, x)``, and whose it is."""

    volume: Volume
    reference: Mask
    patient: str


@dataclass(frozen=True)
class LearningBudget:
    """How long a method may learn: seconds or optimiser steps, one of them given."""

    seconds: float | None = None
    iterations: int | None = None


@dataclass(frozen=True, eq=False)
class Example:
    """Painted slices of one volume."""

    volume: Volume
    painted: tuple[PaintedSlice, ...]


@dataclass(frozen=True, eq=False)
class BenchmarkTask:
    """What a method is given.

    Attributes
    ----------
    labels
        Structures to segment.
    train
        Painted slices, grouped by volume.
    test
        Volumes to segment, whole.
    budget
        Time or steps for learning.
    seed
        Random seed.
    device
        ``auto``, ``cpu`` or ``cuda``.
    start
        Painted slices of other volumes, on which the starting model is trained.
    """

    labels: tuple[Label, ...]
    train: tuple[Example, ...]
    test: tuple[Volume, ...]
    budget: LearningBudget
    seed: int = 0
    device: str = "auto"
    start: tuple[Example, ...] = ()


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method gives back.

    Attributes
    ----------
    masks
        One mask ``(z, y, x)`` for each tested volume.
    fit_seconds
        Time spent learning, before any prediction.
    steps
        Optimiser steps, for methods that take them.
    note
        What a reader of the row should know.
    stages
        Seconds and optimiser steps of each stage of learning, where there are several.
    confidence
        Probability of the chosen label in percent, for each mask, where it is known.
    """

    masks: tuple[Mask, ...]
    fit_seconds: float = 0.0
    steps: int | None = None
    note: str = ""
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confidence: tuple[Mask, ...] | None = None


def make_task(
    split: Split,
    scans: Mapping[str, Scan],
    labels: Sequence[Label],
    budget: LearningBudget,
    seed: int,
    device: str = "auto",
) -> BenchmarkTask:
    """Take from the scans what a split allows a method to see."""
    ids = [label.id for label in labels]

    def painted(one: Chosen, full: bool) -> Example:
        reference = scans[one.scan].reference
        masks = (
            (z, only(reference[z], ids) if full else scribbled(reference[z], ids, z))
            for z in one.slices
        )
        volume = scans[one.scan].volume
        return Example(volume, tuple(PaintedSlice(z, mask, full) for z, mask in masks))

    return BenchmarkTask(
        tuple(labels),
        tuple(painted(one, split.protocol != "scribbles") for one in split.train),
        tuple(scans[one.scan].volume for one in split.test),
        budget,
        seed,
        device,
        tuple(painted(one, True) for one in split.start),
    )


def score(
    split: Split,
    scans: Mapping[str, Scan],
    labels: Sequence[Label],
    masks: Sequence[Mask],
    absent: Absent = "leave-out",
) -> tuple[dict[str, Any], list[Evaluation]]:
    """Score the masks of the tested scans.

    Parameters
    ----------
    split, scans, labels
        As for :func:`make_task`.
    masks
        One mask ``(z, y, x)`` for each tested scan, in the split's order.
    absent
        The rule for absent labels, see :mod:`napari_diffseg.engine.metrics`.

    Returns
    -------
    row
        ``dice``, ``jaccard``, ``hd95_mm`` and ``surface_dice``: for each label the mean over the
        scans that have it (``labels``), and the mean of those (the papers' mean over organs).
    evaluations
        The figures of each scan.
    """
    ids = [label.id for label in labels]
    evaluations = []
    for one, mask in zip(split.test, masks, strict=True):
        scan = scans[one.scan]
        excluded = sorted(set(range(len(mask))) - set(one.slices))
        evaluations.append(
            evaluate(
                mask,
                only(scan.reference, ids),
                scan.volume.geometry.spacing,
                labels,
                exclude_slices=excluded,
                absent=absent,
            )
        )
    figures = [evaluation.to_json()["labels"] for evaluation in evaluations]
    keys = ("dice", "jaccard", "hd95_mm", "surface_dice")
    per_label = {
        label.name: {key: _mean([f[n][key] for f in figures]) for key in keys}
        for n, label in enumerate(labels)
    }
    means = {key: _mean([one[key] for one in per_label.values()]) for key in keys}
    return {**means, "labels": per_label}, evaluations


def stacked(examples: Sequence[Example], pixel_mm: float | None = None) -> Example:
    """Put the painted slices of several volumes into one volume, for methods that take one.

    Slices are resampled to one pixel size (the largest by default) about their centres. They lie
    a metre apart, so that no method takes them for neighbours.
    """
    if len(examples) == 1:
        return examples[0]
    pixel = pixel_mm or max(max(e.volume.geometry.spacing[1:]) for e in examples)
    sizes = []
    for example in examples:
        _, height, width = example.volume.hu.shape
        _, dy, dx = example.volume.geometry.spacing
        sizes.append((max(1, round(height * dy / pixel)), max(1, round(width * dx / pixel))))
    shape = max(h for h, _ in sizes), max(w for _, w in sizes)
    planes, painted = [], []
    for example, size in zip(examples, sizes, strict=True):
        for one in example.painted:
            hu = resized(example.volume.hu[one.z], size, "bilinear")
            planes.append(_centred(hu, shape, _AIR))
            mask = resized(one.mask, size, "nearest-exact").astype(np.uint8)
            painted.append(PaintedSlice(len(planes) - 1, _centred(mask, shape, 0), one.full))
    affine = np.diag([-pixel, -pixel, 1000.0, 1.0])
    hu = np.stack(planes)
    geometry = Geometry.from_affine(affine, (shape[1], shape[0], len(hu)))
    return Example(Volume(hu, geometry, "several scans"), tuple(painted))


def resized(plane: NDArray[Any], size: tuple[int, int], mode: str) -> NDArray[np.float32]:
    """Resample ``(y, x)`` or ``(n, y, x)`` to a size in pixels; bilinear does not alias."""
    image = torch.from_numpy(np.ascontiguousarray(plane, np.float32))
    smooth = {"antialias": True, "align_corners": False} if mode == "bilinear" else {}
    out = F.interpolate(image.reshape(-1, 1, *image.shape[-2:]), size=size, mode=mode, **smooth)
    result: NDArray[np.float32] = out.reshape(*image.shape[:-2], *size).numpy()
    return result


def _centred(plane: NDArray[Any], shape: tuple[int, int], fill: float) -> NDArray[Any]:
    spare = [want - have for want, have in zip(shape, plane.shape, strict=True)]
    return np.pad(plane, [(n // 2, n - n // 2) for n in spare], constant_values=fill)


def only(mask: Mask, ids: Sequence[int]) -> Mask:
    """Drop labels that are not asked for."""
    keep = np.zeros(256, np.uint8)
    keep[list(ids)] = list(ids)
    return keep[mask]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
