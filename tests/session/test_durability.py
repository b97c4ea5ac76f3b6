"""Nothing is lost: kills between two records, full disks, disks that fail."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_tools import LIVER, QUICK, SPLEEN, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.session import Session, SessionError


def _after_kill(session: Session, copy: Path) -> Session:
    """What another process would open if this one were killed now."""
    assert session.folder is not None
    shutil.copytree(session.folder.parents[1], copy)
    found = Session.recover(tiny_volume(), copy, tiny_backbone())
    assert found is not None
    return found


def test_a_correction_does_not_bring_a_removed_label_back(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER, SPLEEN], folder=tmp_path / "home")
    mask = block(2)
    mask[:4, :4] = 1
    session.prediction.edit(3, mask)
    session.remove_label(2)
    with _after_kill(session, tmp_path / "first") as again:
        assert again.paint.labels == (LIVER,)
        np.testing.assert_array_equal(again.prediction.mask[3], np.where(mask == 2, 0, mask))
        again.accept(3)
        assert again.paint.labels == (LIVER,)
    # Nor does it become part of the next structure with that id.
    kidney = session.paint.add_label("kidney")
    assert kidney.id == 2
    with _after_kill(session, tmp_path / "second") as again:
        assert again.paint.labels == (LIVER, kidney)
        np.testing.assert_array_equal(again.prediction.mask, session.prediction.mask)
    session.close()


def test_a_label_that_cannot_be_journalled_as_removed_is_gone_from_the_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_volume(), [LIVER, SPLEEN], folder=tmp_path)
    session.prediction.edit(3, block(2))
    with monkeypatch.context() as patch:
        patch.setattr("napari_diffseg.session.journal.encode", _full)
        with pytest.raises(SessionError, match="autosave failed"):
            session.remove_label(2)
    assert session.paint.labels == (LIVER,)
    assert not session.prediction.mask.any()
    session.close()


def _full(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_prediction_stopped_early_keeps_the_stored_ones_of_other_slices(tmp_path: Path) -> None:
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path / "home"))
    before = session.prediction.mask.copy()
    corrected = block()
    corrected[:3] = 1
    session.prediction.edit(5, corrected)
    some = session.trainer.predict(start=0)
    next(some)
    some.close()
    with _after_kill(session, tmp_path / "copy") as again:
        assert (again.prediction.round_of == 1).all()
        np.testing.assert_array_equal(again.prediction.mask[:5], before[:5])
        np.testing.assert_array_equal(again.prediction.mask[5], corrected)
    session.close()


def test_a_stroke_that_found_no_space_is_saved_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_volume(), [LIVER], folder=tmp_path / "home")
    session.paint.set_slice(0, block())
    assert session.folder is not None
    journal = session.folder / "journal"
    before = journal.read_bytes()

    class Nearly:
        """A stream that takes a few bytes, then no more."""

        def __init__(self, stream: FileIO) -> None:
            self.stream, self.left = stream, 40

        def write(self, data: memoryview) -> int:
            if not self.left:
                _full()
            taken, self.left = data[: self.left], 0
            return self.stream.write(taken) or 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    file = session._log._journal
    assert file is not None
    assert file._stream is not None
    monkeypatch.setattr(file, "_stream", Nearly(file._stream))
    with pytest.raises(SessionError, match=r"autosave failed \(No space left on device\); nothing"):
        session.paint.set_slice(1, block())
    assert journal.read_bytes() == before
    session.paint.set_slice(2, block())
    with _after_kill(session, tmp_path / "copy") as again:
        assert again.paint.states.tolist() == [2, 2, 2, 0, 0, 0]
    session.close()


def test_what_a_failing_disk_forgot_is_written_again_with_the_next_stroke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_diffseg.session.journal.SYNC_SECONDS", 0.01)
    session = Session(tiny_volume(), [LIVER], folder=tmp_path)
    session.paint.set_slice(0, block())
    assert session.folder is not None
    inode = (session.folder / "journal").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        session.paint.set_slice(1, block())
        for timer in threading.enumerate():
            if isinstance(timer, threading.Timer):
                timer.join()
    session.paint.set_slice(2, block())  # as a new file, and synced
    assert (session.folder / "journal").stat().st_ino != inode
    session.close()
    with _reopened(tmp_path) as again:
        assert again.paint.states.tolist() == [2, 2, 2, 0, 0, 0]


def _reopened(folder: Path) -> Session:
    found = Session.recover(tiny_volume(), folder, tiny_backbone())
    assert found is not None
    return found


def test_a_session_can_be_closed_on_a_full_disk_once_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(tiny_volume(), [LIVER], folder=tmp_path)
    session.paint.set_slice(0, block())
    with monkeypatch.context() as patch:
        patch.setattr("napari_diffseg.session.journal.atomic_write", _full)
        session.close()
    with _reopened(tmp_path) as again:
        assert again.paint.states.tolist() == [2, 0, 0, 0, 0, 0]
        with monkeypatch.context() as patch:
            patch.setattr("napari_diffseg.session.journal.encode", _full)
            with pytest.raises(SessionError, match="autosave failed"):
                again.paint.set_slice(1, block())
            with pytest.raises(SessionError, match="autosave failed"):
                again.close()  # something would be lost
        again.paint.set_slice(2, block())
    with _reopened(tmp_path) as again:
        assert again.paint.states.tolist() == [2, 2, 2, 0, 0, 0]


def test_a_model_cannot_be_saved_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    trained(session)
    path = tmp_path / "model.safetensors"
    session.trainer.save_model(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", _full)
    says = r"model.safetensors: cannot be written \(No space left on device\); choose another place"
    with pytest.raises(SessionError, match=says):
        session.trainer.save_model(path)
    with pytest.raises(SessionError, match=says.replace("model.safetensors", "report.json")):
        session.export_report(tmp_path / "report.json")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_prediction_that_cannot_be_stored_is_shown_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path))
    list(session.trainer.train(replace(QUICK, seed=1)))
    with monkeypatch.context() as patch:
        patch.setattr("napari_diffseg.session.rounds.atomic_write", _full)
        with pytest.raises(SessionError, match="the prediction could not be saved"):
            list(session.trainer.predict())
    assert (session.prediction.round_of == 2).all()
    session.close()
    with _reopened(tmp_path) as again:
        again.trainer.restore(1)
        assert (again.prediction.round_of == 1).all()  # the last one that was stored
