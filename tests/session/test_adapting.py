"""The model of other patients learns from a CT before anybody has painted it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, QUICK, block, tiny_backbone, tiny_volume, trained, weights

from napari_diffseg.engine import BACKGROUND
from napari_diffseg.io import write_volume
from napari_diffseg.network import Segmenter
from napari_diffseg.session import Queue, Session, SessionError, SliceState, adapt_model

pytestmark = pytest.mark.usefixtures("short_adaptation")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learnt from one patient."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=False), iterations=60)
    session.trainer.save_model(path)
    return path


@pytest.fixture
def session(model: Path, tmp_path: Path) -> Session:
    """Another patient, with that model loaded."""
    session = Session(tiny_volume(1), (), tiny_backbone(), folder=tmp_path / "home")
    session.trainer.load_model(model)
    return session


def test_it_is_a_round_that_is_there_again_and_can_be_taken_back(session: Session, tmp_path: Path):
    before = weights(session.trainer.segmenter)
    stages = {progress.stage for progress in adapt_model(session)}
    assert stages == {"pseudo-labelling", "extracting features", "adapting"}
    made = session.trainer.round
    assert (made.number, made.parent, made.adapted) == (2, 1, True)
    after = weights(session.trainer.segmenter)
    assert not all(map(np.array_equal, before, after))
    list(session.trainer.predict())
    assert (session.prediction.round_of == 2).all()
    session.close()
    with Session.recover(tiny_volume(1), tmp_path / "home") as again:
        assert again.trainer.round.adapted
        assert all(map(np.array_equal, after, weights(again.trainer.segmenter)))
        again.trainer.restore(1)
        assert all(map(np.array_equal, before, weights(again.trainer.segmenter)))


def test_stopped_it_leaves_the_model_as_it_was(session: Session):
    steps = adapt_model(session)
    while next(steps).stage != "adapting":
        pass
    steps.close()
    assert session.trainer.round.number == 1
    assert len(session.rounds.all) == 1


def test_training_goes_on_from_it(session: Session):
    list(adapt_model(session))
    session.paint.set_slice(1, block(1, BACKGROUND))
    trained(session)
    list(session.trainer.train(session.trainer.round.settings, from_model="loaded"))
    assert session.trainer.round.parent == 2


def test_far_from_paint_training_asks_the_model_of_other_patients(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    """Until the model descends from this patient's paint alone."""
    monkeypatch.setattr("napari_diffseg.engine.recipe._REACHES", (1, 2))
    session.paint.set_slice(1, block(1, BACKGROUND))
    assert session.trainer.segmenter.card.cases == 1
    for go_on, asked in (("loaded", True), (True, True), (False, False), (True, False)):
        stages = {progress.stage for progress in session.trainer.train(QUICK, from_model=go_on)}
        assert ("asking the earlier model" in stages) is asked
        assert session.trainer.segmenter.card.cases == 1 + asked


def test_a_slice_without_anything_corrects_a_model_of_other_patients(session: Session):
    list(session.trainer.predict())
    wrong = np.argmax((session.prediction.mask > 0).sum(axis=(1, 2)))
    assert session.prediction.mask[wrong].any()
    session.paint.set_slice(wrong, np.zeros_like(block()), SliceState.PAINTED)
    settings = replace(QUICK, iterations=60)
    with pytest.raises(SessionError, match="Only background is painted"):
        session.trainer.train(settings)  # from the backbone, which knows no structure
    list(session.trainer.train(settings, from_model="loaded"))
    list(session.trainer.predict())
    assert not session.prediction.mask[wrong].any()


def test_what_other_patients_have_shown_is_not_called_unpainted(session: Session):
    spleen = session.paint.add_label("spleen")
    session.paint.set_slice(1, block(spleen.id, BACKGROUND))

    def notes(from_model):
        steps = session.trainer.train(QUICK, from_model=from_model)
        return " ".join(progress.note for progress in steps)

    assert "No painted pixel" not in notes("loaded")
    assert "No painted pixel yet: liver." in notes(False)


def test_the_next_patient_gets_the_model_from_before(session: Session, model: Path, tmp_path: Path):
    list(adapt_model(session))
    queue = Queue(tmp_path)
    queue.take_model(session)
    # What was adapted is good for one patient; what was loaded is for the next one, too.
    loaded, kept = Segmenter.load(model), Segmenter.load(queue.model)
    assert all(map(np.array_equal, weights(loaded), weights(kept)))
    written = queue.model.stat().st_mtime_ns
    os.utime(queue.model, (0, 0))  # long before
    queue.take_model(session)  # it has these weights, so patients it has predicted stay so
    assert queue.model.stat().st_mtime_ns < written
    trained(session)
    queue.take_model(session)
    assert queue.model.stat().st_mtime_ns > written
    queue.model.write_bytes(b"damaged")
    os.utime(queue.model, (0, 0))
    queue.take_model(session)
    Segmenter.load(queue.model)


def test_without_a_model_the_next_patient_is_not_predicted(tmp_path: Path):
    write_volume(tmp_path / "anna.nii.gz", tiny_volume())
    queue = Queue(tmp_path)
    queue.add([tmp_path / "anna.nii.gz"])
    assert list(queue.prepare(queue.cases[0])) == []
    assert not queue.cases[0].model


def test_without_a_model_there_is_nothing_to_adapt(tmp_path: Path):
    empty = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=False)
    with pytest.raises(SessionError, match="no model yet"):
        list(adapt_model(empty))
