"""Predict every slice of a volume, the current one first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_diffseg.device import autocast, pick_device
from napari_diffseg.segmenter import Segmenter
from napari_diffseg.slices import SliceGrid
from napari_diffseg.volume import Volume


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


def outwards(start: int, count: int) -> list[int]:
    """Slice indices ordered by distance from ``start``."""
    return sorted(range(count), key=lambda z: (abs(z - start), z))


def predict_slice(segmenter: Segmenter, grid: SliceGrid, volume: Volume, z: int) -> SlicePrediction:
    """Predict one slice on the segmenter's own device."""
    device = next(segmenter.parameters()).device
    training = segmenter.training
    segmenter.eval()
    with torch.inference_mode(), autocast(device):
        logits = segmenter(grid.image(volume.hu[z][None]).to(device))
    segmenter.train(training)
    return _native(segmenter, grid, z, logits[0].float().softmax(dim=0))


def _native(
    segmenter: Segmenter, grid: SliceGrid, z: int, probabilities: torch.Tensor
) -> SlicePrediction:
    classes, certain = grid.native(probabilities)
    ids = np.array([0, *(label.id for label in segmenter.labels)], np.uint8)
    return SlicePrediction(z, ids[classes], np.rint(certain * 100).astype(np.uint8))


def predict(
    segmenter: Segmenter,
    volume: Volume,
    painted: Sequence[object] = (),
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
        Painted slices of this very volume.
    start
        Slice to begin with.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Yields
    ------
    SlicePrediction
        Mask and confidence of one slice, on the native grid.
    """
    segmenter.to(pick_device(device))
    grid = SliceGrid.of(
        volume, segmenter.config.columns, segmenter.grid_multiple, segmenter.intensity
    )
    for z in outwards(start, len(volume.hu)):
        yield predict_slice(segmenter, grid, volume, z)
