from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from session_tools import (
    LIVER,
    QUICK,
    block,
    predicting,
    tiny_backbone,
    tiny_volume,
    trained,
    weights,
)

import napari_diffseg.session.learning as module
from napari_diffseg.io.volume import Volume, write_volume
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.session import Session


def test_rounds_are_kept_compared_and_restored(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(session).prediction.copy()
    model = weights(session.segmenter)
    monkeypatch.setattr(module, "predict", predicting(np.roll(block(1), 2, axis=0)))
    trained(session, seed=1)
    monkeypatch.setattr(module, "predict", predicting(block(1)))
    trained(session, seed=2)

    compared = session.compare(2, 3)
    assert compared.changed.tolist() == [32] * 6  # two rows of eight pixels on either side
    assert compared.dice == {1: pytest.approx(0.75)}
    assert session.compare(2, 2).dice == {1: 1.0}

    session.restore(1)
    np.testing.assert_array_equal(session.prediction, first)
    for old, new in zip(model, weights(session.segmenter), strict=True):
        np.testing.assert_array_equal(old, new)
    assert session.round == session.rounds[0]
    assert len(session.rounds) == 3
    list(session.train(QUICK, from_model=True))
    assert (session.rounds[3].number, session.rounds[3].parent) == (4, 1)
    with pytest.raises(SessionError, match="no round 9"):
        session.restore(9)
    with pytest.raises(SessionError, match="round 4 has no prediction"):
        session.compare(1, 4)


def test_everything_comes_back_after_closing(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    trained(session)
    list(session.validate(QUICK))
    session.edit_prediction(0, block())
    session.set_slice(5, block(), SliceState.SCRIBBLED)
    trained(session, seed=1)
    session.restore(1)
    session.accept(3)
    expected = {
        name: getattr(session, name).copy()
        for name in ("paint", "states", "prediction", "confidence", "predicted")
    }
    rounds, quality, model = session.rounds, session.quality, weights(session.segmenter)
    assert quality

    for way in ("as after a kill", "closed"):
        if way == "closed":
            session.close()
        else:
            assert session._place is not None
            session._place.release()  # the operating system would
        again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
        assert again is not None
        assert again.notes == ()
        for name, array in expected.items():
            np.testing.assert_array_equal(getattr(again, name), array, err_msg=f"{name} {way}")
        assert again.edited == {0}
        assert again.labels == (LIVER,)
        assert again.rounds == rounds
        assert again.round == rounds[0]
        assert again.quality == quality
        for old, new in zip(model, weights(again.segmenter), strict=True):
            np.testing.assert_array_equal(old, new)
        session = again
    again.close()


def test_a_round_that_was_predicted_in_part_is_restored_in_part(tmp_path: Path) -> None:
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path))
    list(session.train(QUICK))
    prediction = session.predict(start=0)
    next(prediction), next(prediction)
    prediction.close()  # type: ignore[attr-defined]
    session.restore(1)
    assert session.predicted.tolist() == [1] * 6
    session.restore(2)
    assert session.predicted.tolist() == [2, 2, 0, 0, 0, 0]
    assert not session.prediction[2:].any()
    assert session._place is not None
    session._place.release()  # as after a kill
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    assert again.predicted.tolist() == [2, 2, 0, 0, 0, 0]
    np.testing.assert_array_equal(again.prediction, session.prediction)
    again.close()


def test_damaged_rounds_never_cost_the_paint(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    trained(session)
    folder = session.folder
    assert folder is not None
    session.close()
    for name in ("round-0001.safetensors", "round-0001.npz"):
        (folder / name).write_bytes(b"damaged")
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    assert again.states.tolist() == [0, 2, 0, 0, 2, 0]
    assert again.segmenter is None
    assert any("model of round 1 is damaged" in note for note in again.notes)
    assert any("prediction of round 1 is damaged" in note for note in again.notes)
    trained(again, seed=1)
    assert again.rounds[-1].number == 2
    again.close()


def test_a_reopened_session_predicts_as_before(tmp_path: Path) -> None:
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path))
    before = session.prediction.copy(), session.confidence.copy()
    session.close()
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    list(again.predict())
    np.testing.assert_array_equal(again.prediction, before[0])
    np.testing.assert_array_equal(again.confidence, before[1])
    stages = [progress.stage for progress in again.train(QUICK)]
    assert "comparing slices" not in stages  # that is known, too
    again.close()

    # Without what the slices tell of each other it goes on, less well, and says so.
    assert again.folder is not None
    (again.folder / "motion.npz").write_bytes(b"damaged")
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    assert any("until the next training" in note for note in again.notes)
    list(again.predict())
    assert not np.array_equal(again.confidence, before[1])
    trained(again)
    assert np.array_equal(again.confidence, before[1])
    again.close()


def test_painting_goes_on_while_a_worker_trains_and_predicts(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    session.set_slice(1, block())

    def work() -> None:
        list(session.train(QUICK))
        list(session.predict())

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        strokes = 0
        while not done.done() or strokes < 20:
            session.set_slice(strokes % 6, np.roll(block(), strokes, axis=1))
            strokes += 1
        done.result()
    assert session.rounds[0].slices == (1,)
    expected, prediction = session.paint.copy(), session.prediction.copy()
    session.close()
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    np.testing.assert_array_equal(again.paint, expected)
    np.testing.assert_array_equal(again.prediction, prediction)
    again.close()


def test_a_full_disk_is_said_and_the_paint_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    session.set_slice(0, block())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_diffseg.session.journal.Journal.append", full)
        with pytest.raises(SessionError, match=r"autosave failed \(No space left on device\)"):
            session.set_slice(1, block())
    assert session.state(1) == SliceState.PAINTED
    session.save()  # there is space again
    session.close()
    again = Session.recover(tiny_volume(), tmp_path)
    assert again is not None
    assert again.states.tolist() == [2, 2, 0, 0, 0, 0]
    again.close()


def test_a_round_that_cannot_be_written_leaves_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    trained(session)
    before = session.segmenter

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Segmenter, "save", full)
    with pytest.raises(SessionError, match="autosave failed"):
        list(session.train(QUICK))
    assert session.segmenter is before
    assert len(session.rounds) == 1
    session.close()


def test_a_session_on_disk_names_nobody(tmp_path: Path) -> None:
    secret = "Doe^Jane"
    folder = tmp_path / secret
    folder.mkdir()
    volume = tiny_volume()
    write_volume(folder / "scan.nii.gz", volume)
    volume = Volume(volume.hu, volume.geometry, secret)
    session = Session(volume, [LIVER], tiny_backbone(), folder=tmp_path / "sessions")
    trained(session)
    list(session.validate(QUICK))
    session.save_model(tmp_path / "model.safetensors")
    session.export_report(tmp_path / "report.json")
    session.close()
    files = [path for path in (tmp_path / "sessions").rglob("*") if path.is_file()]
    assert len(files) >= 5
    for path in [*files, tmp_path / "model.safetensors", tmp_path / "report.json"]:
        data = path.read_bytes()
        for trace in (b"Doe", b"Jane", str(tmp_path).encode(), b"scan"):
            assert trace not in data, path
        assert "Doe" not in str(path.relative_to(tmp_path))
