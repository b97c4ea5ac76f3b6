"""A session that another window has open: looked at, or taken over without losing a stroke."""

import threading

import numpy as np
import pytest
from session_tools import (
    LIVER,
    QUICK,
    SPLEEN,
    block,
    predicting,
    tiny_backbone,
    tiny_volume,
    trained,
)

from napari_diffseg.session import ReadOnlyError, Session, SessionError, SessionInUseError

TAKEN = "another window has taken this session over"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path))
    monkeypatch.setattr("napari_diffseg.session.trainer.predict", predicting(block()))
    return tmp_path


@pytest.fixture
def other(home):
    """The other window's session."""
    session = Session(tiny_volume(), [LIVER], tiny_backbone())
    session.paint.set_slice(2, block())
    yield session
    session.close()


def recover(access):
    return Session.recover(tiny_volume(), backbone=tiny_backbone(), access=access)


def test_a_session_is_read_while_another_window_has_it(other):
    with pytest.raises(SessionInUseError, match="open it read-only, take it over, or start a new"):
        recover("alone")
    look = recover("read-only")
    assert look.folder == other.folder
    assert np.array_equal(look.paint.mask, other.paint.mask)
    before = {path: path.read_bytes() for path in other.folder.iterdir()}
    for change in (
        lambda: look.paint.set_slice(3, block()),
        lambda: look.paint.add_label("spleen"),
        lambda: look.prediction.edit(2, block()),
        lambda: look.trainer.train(QUICK),
        lambda: list(look.trainer.validate(QUICK)),
    ):
        with pytest.raises(ReadOnlyError, match="opened read-only"):
            change()
    look.save()
    look.close()
    assert {path: path.read_bytes() for path in other.folder.iterdir()} == before
    assert np.array_equal(look.paint.states, other.paint.states)
    other.paint.set_slice(3, block())  # it goes on


def test_read_only_needs_no_other_window(other):
    other.close()
    look = recover("read-only")
    assert look.paint.mask.any()
    with pytest.raises(ReadOnlyError):
        look.paint.clear_slice(2)
    recover("alone").close()  # and locks nobody out


def test_what_is_taken_over_is_whole_and_the_other_window_writes_no_more(other):
    trained(other)
    other.prediction.edit(3, block(0))
    mine = recover("take over")
    assert mine.folder != other.folder
    assert np.array_equal(mine.paint.mask, other.paint.mask)
    assert np.array_equal(mine.prediction.mask, other.prediction.mask)
    assert mine.prediction.edited == {3}
    assert mine.trainer.round.number == 1
    assert mine.trainer.segmenter is not None

    theirs = (other.folder / "journal").read_bytes()
    paint, labels = other.paint.mask.copy(), other.paint.labels
    for change in (
        lambda: other.paint.set_slice(5, block()),
        lambda: other.paint.rename_label(1, "spleen"),
        lambda: other.prediction.edit(5, block()),
        lambda: other.accept(0),
        lambda: other.trainer.train(QUICK),
        lambda: other.trainer.restore(1),
        other.save,
    ):
        with pytest.raises(ReadOnlyError, match=TAKEN):
            change()
    assert np.array_equal(other.paint.mask, paint)
    assert other.paint.labels == labels
    other.close()
    assert (other.folder / "journal").read_bytes() == theirs

    mine.paint.set_slice(5, block())
    mine.close()
    again = recover("alone")
    assert again.folder == mine.folder
    assert again.paint.mask[5].any()
    again.close()


def test_a_session_that_nobody_has_is_simply_opened(other):
    other.close()
    mine = recover("take over")
    assert mine.folder == other.folder
    mine.paint.set_slice(4, block())
    mine.close()


def test_a_session_can_be_taken_back(other):
    mine = recover("take over")
    mine.paint.adopt([SPLEEN])
    back = recover("take over")
    assert [label.name for label in back.paint.labels] == ["liver", "spleen"]
    with pytest.raises(ReadOnlyError, match=TAKEN):
        mine.paint.set_slice(1, block())
    mine.close()
    back.close()


def test_a_training_that_is_taken_over_keeps_its_model_in_memory(other):
    steps = other.trainer.train(QUICK)
    next(steps)
    mine = recover("take over")
    notes = [progress.note for progress in steps]
    assert any(TAKEN in note for note in notes)
    assert other.trainer.segmenter is not None  # to be saved to a file
    assert mine.rounds.all == ()
    mine.close()


def test_no_acknowledged_stroke_is_lost_in_a_take_over(other):
    written, began = [], threading.Event()

    def paint():
        n = 0
        while True:
            plane = np.zeros((32, 32), np.uint8)
            plane.ravel()[: 1 + n % 1000] = 1
            try:
                other.paint.set_slice(n % 6, plane)
            except SessionError:
                return
            written.append((n % 6, plane))
            n += 1
            if n > 20:
                began.set()

    painter = threading.Thread(target=paint)
    painter.start()
    assert began.wait(20)
    mine = recover("take over")
    painter.join(20)
    assert not painter.is_alive()
    for z in range(6):
        last = [plane for k, plane in written if k == z][-1]
        assert np.array_equal(mine.paint.mask[z], last)
    mine.close()
