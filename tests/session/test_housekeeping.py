"""The folder of sessions stays bounded, and nobody's work is deleted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, QUICK, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.io import atomic_write
from napari_diffseg.session import Session, SessionError, SliceState


def _session(folder: Path, seed: int) -> Session:
    return trained(Session(tiny_volume(seed), [LIVER], tiny_backbone(), folder=folder))


def _models(session: Session) -> list[str]:
    assert session.folder is not None
    return sorted(path.name for path in session.folder.glob("*.safetensors"))


def test_unused_sessions_give_up_what_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, open_ = _session(tmp_path, 0), _session(tmp_path, 1)
    old.paint.set_slice(5, block(), SliceState.SCRIBBLED)
    corrected = block(1)
    corrected[20:24, 20:24] = 1
    old.prediction.edit(2, corrected)
    old.accept(3)
    states, paint = old.paint.states.copy(), old.paint.mask.copy()
    old.close()
    assert _models(old) == ["round-0001.safetensors"]
    assert old.folder is not None
    killed = atomic_write(old.folder / "round-0002.npz")  # never comes to its end
    half = killed.__enter__()
    half.write_bytes(b"half")
    newest = _session(tmp_path, 2)
    assert _models(old)  # there is room

    monkeypatch.setattr("napari_diffseg.session.housekeeping.MAX_BYTES", 1)
    list(newest.trainer.train(QUICK))
    assert _models(newest) == ["round-0001.safetensors", "round-0002.safetensors"]
    assert _models(open_) == ["round-0001.safetensors"]
    assert _models(old) == []
    assert not half.exists()
    newest.close()
    open_.close()

    again = Session.recover(tiny_volume(0), tmp_path, tiny_backbone())
    assert again is not None
    np.testing.assert_array_equal(again.paint.states, states)
    np.testing.assert_array_equal(again.paint.mask, paint)
    assert again.paint.labels == (LIVER,)
    assert again.trainer.segmenter is None
    assert again.notes == ("the model of round 1 was deleted to make room; train again",)
    assert len(again.rounds.all) == 1
    with pytest.raises(SessionError, match="deleted to make room"):
        again.trainer.restore(1)
    again.accept(2)  # the correction is there, though what it corrected is gone
    np.testing.assert_array_equal(again.paint.mask[2], corrected)
    trained(again)
    assert again.prediction.round_of.all()
    again.close()


def test_the_session_unused_for_longest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _session(tmp_path, 0), _session(tmp_path, 1)
    second.close()
    first.close()  # used later
    assert first.folder is not None
    assert second.folder is not None
    size = sum(path.stat().st_size for path in first.folder.iterdir())
    monkeypatch.setattr("napari_diffseg.session.housekeeping.MAX_BYTES", round(2.5 * size))
    third = _session(tmp_path, 2)
    assert _models(first)
    assert not _models(second)
    third.close()


def test_slices_for_later_patients_count_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _session(tmp_path, 0)
    first.close()
    assert first.folder is not None
    size = sum(path.stat().st_size for path in first.folder.iterdir())
    second = _session(tmp_path, 1)
    monkeypatch.setattr("napari_diffseg.session.housekeeping.MAX_BYTES", 3 * size)
    kept = first.folder / "slices.npz"
    assert kept.exists()
    with kept.open("ab") as file:  # as a large CT would leave it
        file.truncate(4 * size)
    list(second.trainer.train(QUICK))
    assert not _models(first)
    assert kept.exists()
    second.close()
