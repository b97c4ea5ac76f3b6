"""Scribbled slices are completed from the strokes outwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_tools import DISC, SHAPE, SPOT, dice, disc_volume, tiny_backbone

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.scribbles import class_prior
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.network.losses import UNKNOWN


def test_slices_in_full_alone_say_how_common_a_class_is() -> None:
    targets = torch.full((2, 4, 5), UNKNOWN)
    targets[0, 0], targets[1, :2], targets[1, 2:] = 2, 0, 1
    shares = class_prior(targets, torch.tensor([False, True]), 3)
    assert shares.tolist() == pytest.approx([0.5, 0.5, 0.0])
    shares = class_prior(targets, torch.tensor([False, False]), 3)
    assert shares.tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_labels_are_propagated_from_scribbles() -> None:
    volume, truth = disc_volume(drift=1.0)
    scribbled = []
    for z in (1, 6):
        mask = np.zeros(SHAPE[1:], np.uint8)
        mask[17:20, 14 + z : 21 + z] = DISC.id
        mask[32:34, 17:19] = SPOT.id
        mask[5:9, 8:30] = BACKGROUND
        mask[26:28, 8:30] = BACKGROUND
        scribbled.append(PaintedSlice(z, mask, full=False))
    steps = TrainSettings("linear", iterations=40, device="cpu", grid=40)
    *_, last = finetune(volume, scribbled, [DISC, SPOT], tiny_backbone(), steps)
    assert last.segmenter is not None

    def found(painted: list[PaintedSlice]) -> np.ndarray:
        slices = sorted(
            predict(last.segmenter, volume, painted, 0, "cpu", last.registration),
            key=lambda one: one.z,
        )
        return np.stack([one.mask for one in slices])

    told, untold = found(scribbled), found([])
    between = slice(2, 6)
    assert dice(told[between], truth[between], DISC.id) > 0.85
    assert dice(told[between], truth[between], DISC.id) > dice(
        untold[between], truth[between], DISC.id
    )
    for slice_ in scribbled:  # what was painted stays
        strokes = (slice_.mask > 0) & (slice_.mask < BACKGROUND)
        assert np.array_equal(told[slice_.z][strokes], slice_.mask[strokes])
