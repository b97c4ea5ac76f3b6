"""Predict every slice of a volume, the current one first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.propagation import Prior
from napari_diffseg.engine.random_walker import refined
from napari_diffseg.engine.registration import soft_tissue
from napari_diffseg.engine.scribbles import completed, frequency
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.device import autocast, pick_device, upload
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """One predicted slice.

    Attributes
    ----------
    z
        Slice index, inferior to superior.
    mask
        Label ids ``(y, x)``, uint8.
    confidence
        Probability of the chosen label in percent ``(y, x)``, uint8.
    """

    z: int
    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


_BATCH = 4
_ALONE = 0.5  # weight of what the head says, learnt from a single painted slice


def outwards(start: int, count: int) -> list[int]:
    """Slice indices ordered by distance from ``start``."""
    return sorted(range(count), key=lambda z: (abs(z - start), z))


def prior_of(
    segmenter: Segmenter, grid: SliceGrid, volume: Volume, painted: Sequence[PaintedSlice]
) -> Prior | None:
    """Make the prior that painted slices give, or ``None`` if there are none.

    Scribbled slices are completed by the segmenter, which has to be trained by then.
    """
    if segmenter.motion is None or not painted:
        return None
    classes = np.zeros(256, np.uint8)
    for index, label in enumerate(segmenter.labels, start=1):
        classes[label.id] = index
    partial = classes.copy()
    partial[0] = UNKNOWN
    targets = grid.target(np.stack([(classes if s.full else partial)[s.mask] for s in painted]))
    sources = {slice_.z: target for slice_, target in zip(painted, targets, strict=True)}
    full = torch.tensor([slice_.full for slice_ in painted])
    common = frequency(targets, full, len(segmenter.labels) + 1)

    def complete(z: int) -> torch.Tensor:
        return completed(segmenter, grid, volume, z, sources[z], common)

    return Prior(segmenter.motion, sources, len(segmenter.labels) + 1, complete)


def posterior(
    logits: torch.Tensor, prior: Prior | None, z: int, image: torch.Tensor | None
) -> torch.Tensor:
    """Class probabilities ``(K, rows, columns)`` from head, painted slices and edges.

    Head and painted slices count alike; a head that learnt from a single slice counts half.

    Parameters
    ----------
    logits
        Of one slice, ``(K, rows, columns)``.
    prior
        What travelled from painted slices, or ``None``.
    z
        Slice index.
    image
        The slice on the soft-tissue window ``(rows, columns)``, whose edges the outlines shall
        follow, or ``None``.
    """
    own = logits.float().log_softmax(dim=0)
    if prior is None:
        return own.exp() if image is None else refined(own.exp(), image)
    travelled = prior.at(z).to(own.device)
    if prior.completes(z):
        return travelled  # the network's opinion is in it already
    travelled = travelled.clamp(min=1e-3)
    weight = _ALONE if len(prior.sources) == 1 else 1.0
    joint = (travelled.log() + weight * own.clamp(min=-8)).softmax(dim=0)
    if image is None or z in prior.sources:  # what is painted has its outlines
        return joint
    return refined(joint, image)


def native_prediction(
    grid: SliceGrid, labels: Sequence[Label], z: int, probabilities: torch.Tensor
) -> SlicePrediction:
    """Bring class probabilities ``(K, rows, columns)`` back to slice ``z`` of the volume."""
    ids = np.array([0, *(label.id for label in labels)], np.uint8)
    classes, certain = grid.native(probabilities)
    return SlicePrediction(z, ids[classes], np.rint(certain * 100).astype(np.uint8))


def predict_slice(
    segmenter: Segmenter, grid: SliceGrid, volume: Volume, prior: Prior | None, z: int
) -> SlicePrediction:
    """Predict one slice on the segmenter's own device."""
    return next(_predict(segmenter, grid, volume, prior, [z]))


def _predict(
    segmenter: Segmenter,
    grid: SliceGrid,
    volume: Volume,
    prior: Prior | None,
    order: Sequence[int],
) -> Iterator[SlicePrediction]:
    device = next(segmenter.parameters()).device
    training = segmenter.training
    for first in range(0, len(order), _BATCH):
        batch = order[first : first + _BATCH]
        segmenter.eval()
        try:
            with torch.inference_mode(), autocast(device):
                logits = segmenter(upload(grid.image(volume.hu[batch]), device))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            for z in batch:
                yield from _predict(segmenter, grid, volume, prior, [z])
            continue
        finally:
            segmenter.train(training)
        soft: Sequence[torch.Tensor | None] = [None] * len(batch)
        if segmenter.config.head == "levels":  # the papers' recipe leaves outlines alone
            soft = list(upload(soft_tissue(grid, volume.hu[batch]), device))
        for z, one, image in zip(batch, logits, soft, strict=True):
            yield native_prediction(grid, segmenter.labels, z, posterior(one, prior, z, image))


def predict(
    segmenter: Segmenter,
    volume: Volume,
    painted: Sequence[PaintedSlice] = (),
    start: int = 0,
    device: str = "auto",
) -> Iterator[SlicePrediction]:
    """Predict all slices, ``start`` first, then outwards; one yield a slice.

    Parameters
    ----------
    segmenter
        Trained model.
    volume
        The CT.
    painted
        Painted slices of this very volume; what they tell of their neighbours is used where the
        segmenter was trained on this volume.
    start
        Slice to begin with.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Yields
    ------
    SlicePrediction
        Mask and confidence of one slice, on the native grid.
    """
    segmenter.placed(pick_device(device))
    grid = SliceGrid.of(
        volume, segmenter.config.columns, segmenter.grid_multiple, segmenter.intensity
    )
    prior = None
    if segmenter.motion is not None and segmenter.motion.fits(volume, grid):
        prior = prior_of(segmenter, grid, volume, painted)
    order = outwards(start, len(volume.hu))
    yield from _predict(segmenter, grid, volume, prior, order[:1])
    yield from _predict(segmenter, grid, volume, prior, order[1:])
