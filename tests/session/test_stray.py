"""Pieces of a prediction that nothing supports are taken off it."""

from __future__ import annotations

import numpy as np
import pytest
from engine_tools import DISC, disc_volume, tiny_backbone

import napari_diffseg.session.trainer as module
from napari_diffseg.engine.progress import SlicePrediction
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.session import Session


def test_a_piece_astray_is_taken_off_but_not_where_the_user_corrected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volume, truth = disc_volume((16, 48, 40), drift=0.1)
    truth = np.where(truth == DISC.id, truth, 0).astype(np.uint8)
    wrong = truth.copy()
    wrong[6:8, 2:5, 30:34] = DISC.id
    wrong[13, 2:5, 2:5] = DISC.id

    def predict(*_: object, **__: object):  # type: ignore[no-untyped-def]
        for z, mask in enumerate(wrong):
            yield SlicePrediction(z, mask, np.full(mask.shape, 80, np.uint8))

    monkeypatch.setattr(module, "predict", predict)
    with Session(volume, [DISC], tiny_backbone(), folder=False) as session:
        for z in (3, 11):
            session.paint.set_slice(z, truth[z])
        settings = TrainSettings("linear", iterations=40, device="cpu", grid=48)
        list(session.trainer.train(settings))
        session.prediction.edit(13, wrong[13])
        list(session.trainer.predict())
        assert session.trainer.stray == (6, 7)
        np.testing.assert_array_equal(session.prediction.mask[:13], truth[:13])
        np.testing.assert_array_equal(session.prediction.mask[13], wrong[13])
