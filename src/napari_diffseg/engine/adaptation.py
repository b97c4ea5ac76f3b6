"""Learn from a CT without paint: the head trains on what it is sure of itself."""

from __future__ import annotations

import math
from collections.abc import Generator
from copy import deepcopy
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.pixel_head import BATCH, PixelBank, fit_head
from napari_diffseg.engine.progress import Budget, Progress, mapped
from napari_diffseg.engine.pseudo_labels import spread, unpainted_pixels
from napari_diffseg.engine.training import Training
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.device import pick_device, within_memory
from napari_diffseg.network.segmenter import LevelHead, Segmenter

T = TypeVar("T")

_SLICES = 60  # that get pseudo-labels in one round
_ROUNDS = 2
_STEPS, _PASSES = 300, 100  # optimiser steps of one, or so often every pixel, at most
_SAMPLING = 0.7  # of a round's time
_LEARNING_RATE = 5e-4  # at its peak: a quarter of the rate at which a head learns from paint


def adapt(
    segmenter: Segmenter, volume: Volume, device: str = "auto"
) -> Generator[Progress, None, Segmenter]:
    """Adapt a model to a patient whom nobody has painted.

    The model labels the CT, and its head goes on learning from the pixels of which it is sure, in
    slices that are turned, scaled and changed in contrast. Decision 0004 has what it gains.

    Parameters
    ----------
    segmenter
        Trained with the app's recipe; it is left as it is.
    volume
        The CT.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Yields
    ------
    Progress
        After every few slices, and every optimiser step.

    Returns
    -------
    Segmenter
        For this CT only. As it was where the head has the papers' form, or finds nothing.

    Raises
    ------
    DeviceError
        If the device is absent, or its memory is too small for a single slice.

    Examples
    --------
    >>> from napari_diffseg.engine.progress import result_of
    >>> from napari_diffseg.io import Label, read_volume, sample_volume_path
    >>> from napari_diffseg.network import SegmenterConfig, load_backbone
    >>> volume = read_volume(sample_volume_path())
    >>> liver = Label(1, "liver", (230, 159, 0))
    >>> trained = Segmenter.new(load_backbone(), [liver], SegmenterConfig(columns=32))
    >>> result_of(adapt(trained, volume)).labels == trained.labels
    True
    """
    if not isinstance(segmenter.head, LevelHead):
        return segmenter
    torch.manual_seed(0)
    adapted = deepcopy(segmenter).placed(pick_device(device)).eval()
    grid = SliceGrid.of(volume, adapted.config.columns, adapted.grid_multiple, adapted.intensity)
    training = Training(
        volume=volume,
        painted=(),
        grid=grid,
        segmenter=adapted,
        images=torch.zeros(0, 1, *grid.size, device=pick_device(device)),
        targets=torch.zeros(0, *grid.size),
        generator=torch.Generator().manual_seed(0),
        budget=Budget(None),
    )
    slices = spread(range(len(volume.hu)), _SLICES)
    with within_memory():
        for number in range(_ROUNDS):
            bank, shares = yield from _timed(
                unpainted_pixels(training, adapted, slices), number, 0.0, _SAMPLING
            )
            if not any((classes > 0).any() for classes in bank.classes):
                return adapted if number else segmenter
            yield from _timed(_fit(training, bank, shares), number, _SAMPLING, 1.0)
    return adapted


def _fit(training: Training, bank: PixelBank, shares: Tensor) -> Generator[Progress, None, None]:
    head = training.segmenter.head.requires_grad_(True)
    assert isinstance(head, LevelHead)
    pixels, before = sum(map(len, bank.classes)), head.shift.clone()
    steps = min(_STEPS, math.ceil(_PASSES * pixels / BATCH))
    losses = fit_head(head, bank, shares, steps, training.generator, learning_rate=_LEARNING_RATE)
    for step, loss in enumerate(losses, start=1):
        yield training.report("adapting", step, steps, loss)
    seen = torch.zeros(len(before), dtype=torch.bool, device=before.device)
    seen[torch.cat(bank.classes)] = True
    # What is nowhere in this CT's pseudo-labels stays as likely against background as it was.
    head.shift = torch.where(seen, head.shift, head.shift[0] + before - before[0])


def _timed(
    steps: Generator[Progress, None, T], number: int, first: float, last: float
) -> Generator[Progress, None, T]:
    """Say what is left, where these steps are that part of a round."""

    def timed(progress: Progress) -> Progress:
        share = first + (last - first) * progress.step / (progress.steps or 1)
        done = (number + share) / _ROUNDS
        return replace(progress, remaining=progress.seconds * (1 / done - 1) if done else None)

    return mapped(steps, timed)
