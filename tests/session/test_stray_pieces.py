"""A session keeps the largest piece of what a model calls one piece, as ``predict`` does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, SHAPE, block, predicting, tiny_backbone, tiny_volume, trained

from napari_diffseg.network import Segmenter
from napari_diffseg.session import Session, trainer


@pytest.fixture
def model(tmp_path: Path, session: Session) -> Path:
    trained(session)
    segmenter = session.trainer.segmenter
    segmenter.labels = (replace(LIVER, name="Liver"),)
    segmenter.card = replace(segmenter.card, single_pieces=("Liver",))
    segmenter.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_pieces_astray_are_removed_and_corrections_stay(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    astray = block()
    astray[20:22, 20:22] = 1
    monkeypatch.setattr(trainer, "predict", predicting(astray))
    with Session(tiny_volume(), [LIVER], tiny_backbone(), tmp_path / "home") as session:
        session.trainer.load_model(model, by_name=True)
        mine = block()
        mine[26, 26] = 1
        session.prediction.edit(0, mine)
        steps = session.trainer.predict()
        next(steps)
        steps.close()  # nobody knows the pieces of a part
        assert (session.prediction.mask[session.trainer.current] == astray).all()
        list(session.trainer.predict())
        assert session.trainer.stray == (1, 2, 3, 4, 5)
        expected = np.stack([block()] * SHAPE[0])
        expected[0] = mine
        assert (session.prediction.mask == expected).all()
    with Session.recover(tiny_volume(), tmp_path / "home") as again:
        assert (again.prediction.mask == expected).all()


def test_a_model_that_says_nothing_of_pieces_changes_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
):
    segmenter = Segmenter.load(model)
    segmenter.card = replace(segmenter.card, single_pieces=())
    segmenter.save(model)
    astray = block()
    astray[20:22, 20:22] = 1
    monkeypatch.setattr(trainer, "predict", predicting(astray))
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=False)
    session.trainer.load_model(model, by_name=True)
    list(session.trainer.predict())
    assert session.trainer.stray == ()
    assert (session.prediction.mask == astray).all()
