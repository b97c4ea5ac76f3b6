from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from session_tools import (
    LIVER,
    SHAPE,
    block,
    predicting,
    trained,
)

import napari_diffseg.session.trainer as module
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.session import Session, SessionError, SliceState


def test_labels_get_free_ids_and_their_names_are_kept_apart(session: Session) -> None:
    kidney = session.paint.add_label("kidney")
    assert kidney.id == 3
    assert session.paint.add_label().name == "label 4"
    session.paint.rename_label(3, "left kidney")
    assert [label.name for label in session.paint.labels] == [
        "liver",
        "spleen",
        "left kidney",
        "label 4",
    ]
    with pytest.raises(SessionError, match="already a label 'liver'"):
        session.paint.rename_label(3, "liver")
    with pytest.raises(SessionError, match="no label with id 9"):
        session.paint.rename_label(9, "heart")
    with pytest.raises(SessionError, match="needs a name"):
        session.paint.rename_label(3, "  ")


def test_names_are_imported_and_may_be_swapped(session: Session, tmp_path: Path) -> None:
    names = tmp_path / "labels.json"
    names.write_text('{"spleen": 1, "liver": 2, "aorta": 5}')
    session.paint.import_names(names)
    assert [(label.id, label.name) for label in session.paint.labels] == [
        (1, "spleen"),
        (2, "liver"),
        (5, "aorta"),
    ]
    names.write_text("[]")
    with pytest.raises(VolumeError, match=r"labels\.json"):
        session.paint.import_names(names)


def test_a_painted_label_cannot_be_removed_by_accident(session: Session) -> None:
    session.paint.set_slice(2, block(2))
    with pytest.raises(SessionError, match=r"spleen is painted on 1 slices \(the first is 2\)"):
        session.remove_label(2)
    session.paint.clear_slice(2)
    session.remove_label(2)
    assert session.paint.labels == (LIVER,)


def test_a_removed_label_leaves_the_prediction_and_its_id_is_not_given_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "predict", predicting(block(2)))
    trained(session)
    assert (session.prediction.mask == 2).any()
    session.remove_label(2)
    assert not (session.prediction.mask == 2).any()
    assert session.paint.add_label("aorta").id == 3
    list(session.trainer.predict())  # the model still knows id 2
    assert not (session.prediction.mask == 2).any()


def test_states_follow_the_paint(session: Session) -> None:
    session.paint.set_slice(0, block())
    assert session.paint.state(0) == SliceState.PAINTED
    session.paint.set_state(0, SliceState.SCRIBBLED)
    session.paint.set_slice(0, block(2))
    assert session.paint.state(0) == SliceState.SCRIBBLED
    session.paint.set_slice(1, block(), SliceState.SCRIBBLED)
    assert session.paint.state(1) == SliceState.SCRIBBLED
    session.paint.clear_slice(0)
    assert session.paint.state(0) == SliceState.UNPAINTED
    assert not session.paint.mask[0].any()


def test_an_undone_stroke_leaves_no_empty_truth_behind(session: Session) -> None:
    session.paint.set_slice(0, block())
    session.paint.set_slice(0, np.zeros(SHAPE[1:], np.uint8))
    assert session.paint.state(0) == SliceState.UNPAINTED
    assert session.paint.painted() == ()
    # An empty slice is truth when the user says so.
    session.paint.set_state(0, SliceState.PAINTED)
    assert [s.z for s in session.paint.painted()] == [0]


def test_the_memory_of_the_paint_itself_may_be_given(session: Session) -> None:
    shared = session.paint.mask
    shared[3] = block()
    session.paint.set_slice(3, shared[3])
    assert session.paint.mask is shared
    assert session.paint.state(3) == SliceState.PAINTED


def test_an_id_without_label_gets_one(session: Session) -> None:
    session.paint.set_slice(0, block(7))
    assert session.paint.labels[-1].id == 7
    assert session.paint.labels[-1].name == "label 7"


@pytest.mark.parametrize(
    ("z", "mask", "words"),
    [
        (6, block(), "no slice 6: the volume has 0 to 5"),
        (-1, block(), "no slice -1"),
        (0, block()[:4], r"\(32, 32\) pixels"),
        (0, block().astype(float) / 2, "whole numbers"),
        (0, block().astype(int) * 300, "whole numbers"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    session: Session, z: int, mask: np.ndarray, words: str
) -> None:
    with pytest.raises(SessionError, match=words):
        session.paint.set_slice(z, mask)
    assert not session.paint.states.any()


def test_states_that_contradict_the_paint_are_refused(session: Session) -> None:
    session.paint.set_slice(0, block())
    with pytest.raises(SessionError, match="clear it"):
        session.paint.set_state(0, SliceState.UNPAINTED)
    with pytest.raises(SessionError, match="accepting its prediction"):
        session.paint.set_state(0, SliceState.ACCEPTED)
    assert session.paint.state(0) == SliceState.PAINTED


def test_training_sees_background_as_the_state_means_it(session: Session) -> None:
    painted = block(1)
    painted[0] = 255
    session.paint.set_slice(0, painted)
    session.paint.set_slice(1, painted, SliceState.SCRIBBLED)
    session.paint.set_state(2, SliceState.SCRIBBLED)  # nothing on it yet
    full, scribbled = session.paint.painted()
    assert full.full
    assert set(np.unique(full.mask)) == {0, 1}
    assert not scribbled.full
    assert set(np.unique(scribbled.mask)) == {0, 1, 255}
    full.mask[:] = 9  # a copy
    assert session.paint.mask.max() == 255


def test_an_accepted_prediction_becomes_truth(session: Session) -> None:
    trained(session)
    session.prediction.mask[3] = block(2)
    session.accept(3)
    np.testing.assert_array_equal(session.paint.mask[3], block(2))
    assert session.paint.state(3) == SliceState.ACCEPTED
    assert [(s.z, s.full) for s in session.paint.painted()] == [(1, True), (3, True), (4, True)]


def test_accepting_never_overwrites_paint(session: Session) -> None:
    trained(session)
    session.prediction.mask[1] = block(2)
    with pytest.raises(SessionError, match="slice 1 holds paint that differs"):
        session.accept(1)
    np.testing.assert_array_equal(session.paint.mask[1], block(1))
    session.prediction.mask[1] = block(1)
    session.accept(1)
    assert session.paint.state(1) == SliceState.PAINTED  # painted by hand, and still is


def test_scribbles_that_agree_may_be_completed_by_the_prediction(session: Session) -> None:
    trained(session)
    scribble = np.zeros(SHAPE[1:], np.uint8)
    scribble[10, 10], scribble[0, 0] = 1, 255
    session.paint.set_slice(2, scribble, SliceState.SCRIBBLED)
    session.prediction.mask[2] = block(2)
    with pytest.raises(SessionError, match="differs"):
        session.accept(2)
    session.prediction.mask[2] = block(1)
    session.accept(2)
    np.testing.assert_array_equal(session.paint.mask[2], block(1))
    assert session.paint.state(2) == SliceState.ACCEPTED


def test_nothing_is_accepted_without_a_prediction(session: Session) -> None:
    with pytest.raises(SessionError, match="no prediction to accept"):
        session.accept(2)


def test_a_corrected_prediction_survives_the_next_one_until_it_is_accepted(
    session: Session,
) -> None:
    trained(session)
    session.prediction.edit(3, block(2))
    trained(session, seed=1)
    np.testing.assert_array_equal(session.prediction.mask[3], block(2))
    assert session.prediction.edited == {3}
    assert 3 not in session.rounds.all[-1].slices  # not trained on
    session.accept(3)
    assert session.prediction.edited == set()
    trained(session, seed=2)
    assert 3 in session.rounds.all[-1].slices
    with pytest.raises(SessionError, match="does not fit"):
        session.prediction.edit(3, block()[:3])
