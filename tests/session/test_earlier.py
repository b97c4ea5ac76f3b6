"""What sessions keep for later patients, and what is learnt from it without their volumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_tools import DISC, SPOT, dice, disc_volume
from session_tools import LIVER, QUICK, SPLEEN, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.engine import SlicePrediction, TrainSettings
from napari_diffseg.io import Label
from napari_diffseg.network import Segmenter
from napari_diffseg.session import (
    Session,
    SessionError,
    SliceState,
    earlier_sessions,
    learn_from,
    read_cases,
)

SETTINGS = TrainSettings(iterations=120, grid=32, device="cpu")


def keep(folder: Path, seed: int = 0, labels=(LIVER, SPLEEN)) -> None:
    with Session(tiny_volume(seed), labels, tiny_backbone(), folder) as session:
        trained(session)


def test_painted_slices_are_kept_and_what_the_own_model_is_sure_of(tmp_path: Path):
    keep(tmp_path)
    (found,) = earlier_sessions(tmp_path)
    assert found.problem == ""
    assert (found.name, found.painted, found.stored, found.trainings) == ("tiny", 2, 2, 1)
    assert found.labels == (LIVER,)  # nobody may have looked for a spleen
    case = found()
    assert case.cropped
    assert [slice_.full for slice_ in case.painted] == [True, True]
    assert len(case.volume.hu) == 2 + len(case.predicted) == 6
    assert not any(slice_.full for slice_ in case.predicted)
    assert {n for slice_ in case.predicted for n in np.unique(slice_.mask)} <= {0, 1, 255}
    for slice_, plane in zip(case.painted, case.volume.hu[:2], strict=True):
        assert plane[slice_.mask == 1].mean() == pytest.approx(100, abs=5)
        assert (slice_.mask == 1).sum() == 64
    assert case.volume.hu.shape[1:] < (32, 32)  # the air around the body is cut off


def test_later_paint_is_kept_when_asked_for(tmp_path: Path):
    with Session(tiny_volume(), [LIVER], tiny_backbone(), tmp_path) as session:
        session.paint.set_slice(1, block())
        assert "keeps no slices yet" in earlier_sessions(tmp_path)[0].problem
        session.trainer.keep_slices()
        assert earlier_sessions(tmp_path)[0].stored == 1
        scribbles = np.zeros((32, 32), np.uint8)
        scribbles[10, 9:14], scribbles[20, 9:14] = 1, 255
        session.paint.set_slice(3, scribbles, SliceState.SCRIBBLED)
        session.trainer.keep_slices()
        (found,) = earlier_sessions(tmp_path)
    assert [slice_.full for slice_ in found().painted] == [True, False]
    assert set(np.unique(found().painted[1].mask)) == {0, 1, 255}


def test_sessions_that_cannot_be_learnt_from_say_why(tmp_path: Path):
    keep(tmp_path, 0)
    (one,) = earlier_sessions(tmp_path)
    (one.folder / "slices.npz").write_bytes(b"PK nothing")
    with Session(tiny_volume(1), [LIVER], tiny_backbone(), tmp_path) as session:
        session.paint.add_label("nothing painted")
    problems = {found.folder: found.problem for found in earlier_sessions(tmp_path)}
    assert "is damaged" in problems.pop(one.folder)
    assert list(problems.values()) == ["Nothing is painted in it."]
    with pytest.raises(SessionError, match=r"slices\.npz: is damaged"):
        one()
    assert earlier_sessions(tmp_path, without=[path.name for path in tmp_path.iterdir()]) == ()
    assert earlier_sessions(tmp_path / "none") == ()


def test_of_several_sessions_of_a_volume_the_newest_with_slices_counts(tmp_path: Path):
    keep(tmp_path)
    with Session(tiny_volume(), [LIVER], tiny_backbone(), tmp_path) as fresh:
        fresh.paint.set_slice(0, block())
    (found,) = earlier_sessions(tmp_path)
    assert (found.folder.name, found.stored) == ("0001", 2)


def test_a_model_of_other_patients_labels_nothing_for_later_ones(tmp_path: Path):
    trained(donor := Session(tiny_volume(1), [LIVER], tiny_backbone(), folder=False))
    donor.trainer.save_model(tmp_path / "model.safetensors")
    with Session(tiny_volume(), [LIVER], tiny_backbone(), tmp_path / "a") as session:
        session.trainer.load_model(tmp_path / "model.safetensors")
        session.paint.set_slice(1, block())
        list(session.trainer.predict())
    (found,) = earlier_sessions(tmp_path / "a")
    assert len(found().predicted) == 0
    assert len(found().painted) == 1


def test_pixels_that_the_model_is_not_sure_of_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from napari_diffseg.session import trainer

    with Session(tiny_volume(), [LIVER], tiny_backbone(), tmp_path) as session:
        trained(session)

        def unsure(*_):
            confidence = np.full((32, 32), 90, np.uint8)
            confidence[:, 12:] = 60
            return iter(SlicePrediction(z, block(), confidence) for z in range(6))

        monkeypatch.setattr(trainer, "predict", unsure)
        list(session.trainer.predict())
    for slice_ in earlier_sessions(tmp_path)[0]().predicted:
        assert (slice_.mask == 1).sum() == 32
        assert (slice_.mask == 0).sum() > 32
        assert (slice_.mask == 255).any()


def discs(folder: Path, drift: float, labels: tuple[Label, ...], slices=(1, 3, 5, 7)) -> None:
    volume, truth = disc_volume(drift=drift)
    ids = np.zeros(256, np.uint8)
    for label in labels:
        ids[{"disc": DISC.id, "spot": SPOT.id}[label.name.lower()]] = label.id
    with Session(volume, labels, tiny_backbone(), folder) as session:
        for z in slices:
            session.paint.set_slice(z, ids[truth[z]], SliceState.PAINTED)
        session.trainer.keep_slices()


def test_the_next_patient_starts_from_what_earlier_ones_taught(tmp_path: Path):
    home, path = tmp_path / "sessions", tmp_path / "model.safetensors"
    discs(home, 0.5, (DISC, SPOT))
    discs(home, -0.5, (Label(9, "Disc", (1, 2, 3)),))
    cases = earlier_sessions(home)
    steps = list(learn_from(cases, path, SETTINGS, tiny_backbone()))
    assert steps[-1].remaining == 0
    card = Segmenter.load(path).card
    assert (card.cases, card.slices, card.single_pieces) == (2, 8, ())

    volume, truth = disc_volume(drift=0.2)
    mine = Label(1, "spot", (9, 9, 9))
    with Session(volume, [mine], tiny_backbone(), folder=home) as session:
        session.trainer.load_model(path, by_name=True)
        names = {label.name.lower(): label.id for label in session.paint.labels}
        assert names["spot"] == 1
        assert set(names) == {"disc", "spot"}
        list(session.trainer.predict())  # before any paint
        assert dice(session.prediction.mask == names["disc"], truth == DISC.id, 1) > 0.8
        assert dice(session.prediction.mask == 1, truth == SPOT.id, 1) > 0.5
        session.paint.set_slice(4, (truth[4] == SPOT.id).astype(np.uint8))
        for number in (2, 3):  # also when it is trained again
            list(session.trainer.train(replace(SETTINGS, iterations=2), from_model="loaded"))
            assert session.rounds.all[-1].parent == 1
            assert session.rounds.all[-1].number == number
        assert session.trainer.segmenter.card.cases == 3
        assert len(session.trainer.segmenter.labels) == 2


def test_training_begins_at_the_backbone_where_no_model_was_loaded_or_it_is_gone(tmp_path: Path):
    keep(tmp_path / "a")
    with Session(tiny_volume(), [LIVER], tiny_backbone(), tmp_path / "b") as session:
        session.paint.set_slice(1, block())
        list(session.trainer.train(QUICK, from_model="loaded"))
        assert session.rounds.all[-1].parent is None
        session.trainer.save_model(tmp_path / "model.safetensors")
        session.trainer.load_model(tmp_path / "model.safetensors")
        (session.folder / "round-0002.safetensors").unlink()  # as housekeeping does
        list(session.trainer.train(QUICK, from_model="loaded"))
        assert session.rounds.all[-1].parent is None


def test_giving_a_training_up_leaves_the_model_as_it_was(tmp_path: Path):
    keep(tmp_path / "sessions")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"before")
    steps = learn_from(earlier_sessions(tmp_path / "sessions"), path, SETTINGS, tiny_backbone())
    next(steps)
    next(steps)
    steps.close()
    assert path.read_bytes() == b"before"


def test_session_folders_are_cases(tmp_path: Path):
    keep(tmp_path / "sessions", 0)
    keep(tmp_path / "sessions", 1)
    assert len(read_cases(tmp_path / "sessions")) == 2
    one = earlier_sessions(tmp_path / "sessions")[0].folder
    (case,) = read_cases(one)
    assert len(case().painted) == 2
    rows = [{"volume": str(one)}]
    (tmp_path / "cases.json").write_text(json.dumps(rows), encoding="utf-8")
    (listed,) = read_cases(tmp_path / "cases.json")
    assert listed().labels == (LIVER,)
