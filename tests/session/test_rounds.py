from __future__ import annotations

import shutil
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

import napari_diffseg.session.trainer as module
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume, write_volume
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session import Session, SessionError, SliceState

DATA = Path(__file__).with_name("data")


def arrays(session: Session) -> dict[str, np.ndarray]:
    """Copies of all that is known of the slices."""
    return {
        "paint": session.paint.mask.copy(),
        "states": session.paint.states.copy(),
        "prediction": session.prediction.mask.copy(),
        "confidence": session.prediction.confidence.copy(),
        "predicted": session.prediction.round_of.copy(),
    }


def test_rounds_are_kept_and_restored(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(session).prediction.mask.copy()
    model = weights(session.trainer.segmenter)
    monkeypatch.setattr(module, "predict", predicting(np.roll(block(1), 2, axis=0)))
    trained(session, seed=1)
    assert not np.array_equal(session.prediction.mask, first)
    trained(session, seed=2)

    session.trainer.restore(1)
    np.testing.assert_array_equal(session.prediction.mask, first)
    for old, new in zip(model, weights(session.trainer.segmenter), strict=True):
        np.testing.assert_array_equal(old, new)
    assert session.trainer.round == session.rounds.all[0]
    assert len(session.rounds.all) == 3
    list(session.trainer.train(QUICK, from_model=True))
    assert (session.rounds.all[3].number, session.rounds.all[3].parent) == (4, 1)
    with pytest.raises(SessionError, match="no round 9"):
        session.trainer.restore(9)


def test_everything_comes_back_after_closing(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    trained(session)
    list(session.trainer.validate(QUICK))
    session.prediction.edit(0, block())
    session.paint.set_slice(5, block(), SliceState.SCRIBBLED)
    trained(session, seed=1)
    session.trainer.restore(1)
    session.accept(3)
    expected, rounds = arrays(session), session.rounds.all
    quality, model = session.trainer.quality, weights(session.trainer.segmenter)
    assert quality

    killed = shutil.copytree(tmp_path, tmp_path / "as after a kill")
    session.close()
    for folder in (killed, tmp_path):
        again = Session.recover(tiny_volume(), folder, tiny_backbone())
        assert again is not None
        assert again.notes == ()
        for name, array in arrays(again).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=f"{name}, {folder.name}")
        assert again.prediction.edited == {0}
        assert again.paint.labels == (LIVER,)
        assert again.rounds.all == rounds
        assert again.trainer.round == rounds[0]
        assert again.trainer.quality == quality
        for old, new in zip(model, weights(again.trainer.segmenter), strict=True):
            np.testing.assert_array_equal(old, new)
        again.close()


def test_a_session_of_an_earlier_version_opens(tmp_path: Path) -> None:
    # Written by the code of before the rooms, killed after its last stroke: two rounds, the first
    # one restored, a validation, an accepted and a corrected slice, a renamed and a removed label.
    shutil.unpack_archive(DATA / "before_rooms.zip", tmp_path)
    y, x = np.mgrid[:32, :32]
    hu = np.full((4, 32, 32), -1000, np.int16)
    hu[:, (y - 15) ** 2 + (x - 15) ** 2 < 196] = -80
    for z in range(4):
        hu[z, 8:16, 8 + z : 16 + z] = 100
    geometry = Geometry.from_affine(np.diag([-2.0, -2.0, 5.0, 1.0]), (32, 32, 4))
    session = Session.recover(Volume(hu, geometry, "earlier"), tmp_path, tiny_backbone())
    assert session is not None
    assert session.notes == ()
    expected = np.load(tmp_path / "expected.npz")
    for name, array in arrays(session).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    assert [label.name for label in session.paint.labels] == ["liver", "Milz"]
    assert session.paint.add_label().id == 4  # the models may know 3, which was removed
    assert session.prediction.edited == {3}
    assert [made.slices for made in session.rounds.all] == [(0, 2), (0, 2, 3)]
    assert [made.parent for made in session.rounds.all] == [None, 1]
    assert session.trainer.round == session.rounds.numbered(1)
    assert session.trainer.quality == {1: 0.8125}

    # Model and registration are those that made the stored prediction.
    session.paint.clear_slice(1)
    session.paint.clear_slice(3)
    list(session.trainer.predict())
    known = np.setdiff1d(np.arange(4), [3])
    np.testing.assert_array_equal(session.prediction.mask[known], expected["prediction"][known])
    difference = session.prediction.confidence.astype(int) - expected["confidence"]
    assert np.abs(difference).max() <= 1  # in percent; the last bit is the processor's own
    session.close()


def test_a_round_that_was_predicted_in_part_is_restored_in_part(tmp_path: Path) -> None:
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path))
    list(session.trainer.train(QUICK))
    prediction = session.trainer.predict(start=0)
    next(prediction), next(prediction)
    prediction.close()  # type: ignore[attr-defined]
    session.trainer.restore(1)
    assert session.prediction.round_of.tolist() == [1] * 6
    session.trainer.restore(2)
    assert session.prediction.round_of.tolist() == [2, 2, 0, 0, 0, 0]
    assert not session.prediction.mask[2:].any()
    killed = shutil.copytree(tmp_path, tmp_path / "as after a kill")
    again = Session.recover(tiny_volume(), killed, tiny_backbone())
    assert again is not None
    assert again.prediction.round_of.tolist() == [2, 2, 0, 0, 0, 0]
    np.testing.assert_array_equal(again.prediction.mask, session.prediction.mask)
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
    assert again.paint.states.tolist() == [0, 2, 0, 0, 2, 0]
    assert again.trainer.segmenter is None
    assert any("model of round 1 is damaged" in note for note in again.notes)
    assert any("prediction of round 1 is damaged" in note for note in again.notes)
    trained(again, seed=1)
    assert again.rounds.all[-1].number == 2
    again.close()


def test_a_reopened_session_predicts_as_before(tmp_path: Path) -> None:
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path))
    before = session.prediction.mask.copy(), session.prediction.confidence.copy()
    session.close()
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    list(again.trainer.predict())
    np.testing.assert_array_equal(again.prediction.mask, before[0])
    np.testing.assert_array_equal(again.prediction.confidence, before[1])
    stages = [progress.stage for progress in again.trainer.train(QUICK)]
    assert "registering slices" not in stages  # that is known, too
    assert "learning" in stages
    again.close()

    # Without what the slices tell of each other it goes on, less well, and says so.
    assert again.folder is not None
    (again.folder / "motion.npz").write_bytes(b"damaged")
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    assert any("until the next training" in note for note in again.notes)
    list(again.trainer.predict())
    assert not np.array_equal(again.prediction.confidence, before[1])
    trained(again)
    assert np.array_equal(again.prediction.confidence, before[1])
    again.close()


def test_painting_goes_on_while_a_worker_trains_and_predicts(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    session.paint.set_slice(1, block())

    def work() -> None:
        list(session.trainer.train(QUICK))
        list(session.trainer.predict())

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        strokes = 0
        while not done.done() or strokes < 20:
            session.paint.set_slice(strokes % 6, np.roll(block(), strokes, axis=1))
            strokes += 1
        done.result()
    assert session.rounds.all[0].slices == (1,)
    expected, prediction = session.paint.mask.copy(), session.prediction.mask.copy()
    session.close()
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    np.testing.assert_array_equal(again.paint.mask, expected)
    np.testing.assert_array_equal(again.prediction.mask, prediction)
    again.close()


def test_a_full_disk_is_said_and_the_paint_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    session.paint.set_slice(0, block())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_diffseg.session.journal.Journal.append", full)
        with pytest.raises(SessionError, match=r"autosave failed \(No space left on device\)"):
            session.paint.set_slice(1, block())
    assert session.paint.state(1) == SliceState.PAINTED
    session.save()  # there is space again
    session.close()
    again = Session.recover(tiny_volume(), tmp_path)
    assert again is not None
    assert again.paint.states.tolist() == [2, 2, 0, 0, 0, 0]
    again.close()


def test_a_round_that_cannot_be_written_is_used_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    trained(session)
    assert session.folder is not None
    files = {path.name: path.read_bytes() for path in session.folder.glob("round-*")}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Segmenter, "save", full)
        *_, last = session.trainer.train(QUICK)
    assert "the model could not be saved (No space left on device)" in last.note
    assert session.trainer.segmenter is last.segmenter
    assert {p.name: p.read_bytes() for p in session.folder.glob("round-*")} == files
    session.trainer.save_model(tmp_path / "elsewhere.safetensors")
    session.trainer.restore(1)
    session.trainer.restore(2)
    session.close()
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    assert [round_.number for round_ in again.rounds.all] == [1]
    again.trainer.restore(1)
    again.close()


def test_a_session_on_disk_names_nobody(tmp_path: Path) -> None:
    secret = "Doe^Jane"
    folder = tmp_path / secret
    folder.mkdir()
    volume = tiny_volume()
    write_volume(folder / "scan.nii.gz", volume)
    volume = Volume(volume.hu, volume.geometry, secret)
    session = Session(volume, [LIVER], tiny_backbone(), folder=tmp_path / "sessions")
    trained(session)
    list(session.trainer.validate(QUICK))
    session.trainer.save_model(tmp_path / "model.safetensors")
    session.export_report(tmp_path / "report.json")
    session.close()
    files = [path for path in (tmp_path / "sessions").rglob("*") if path.is_file()]
    assert len(files) >= 5
    for path in [*files, tmp_path / "model.safetensors", tmp_path / "report.json"]:
        data = path.read_bytes()
        for trace in (b"Doe", b"Jane", str(tmp_path).encode(), b"scan"):
            assert trace not in data, path
        assert "Doe" not in str(path.relative_to(tmp_path))
