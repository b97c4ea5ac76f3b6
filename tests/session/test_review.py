"""What a round has brought."""

from __future__ import annotations

import numpy as np
import pytest
from session_tools import QUICK, block, predicting, trained

import napari_diffseg.session.trainer as module
from napari_diffseg.session import Session, SessionError
from napari_diffseg.session.review import (
    Change,
    fighting_labels,
    review_round,
    worth_of_a_slice,
    worth_text,
)


def test_changed_slices_are_those_that_the_round_before_labelled_otherwise(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SessionError, match="train and predict first"):
        review_round(session)
    monkeypatch.setattr(module, "predict", predicting(block()))
    trained(session)
    assert review_round(session).changed == ()
    monkeypatch.setattr(module, "predict", predicting(np.roll(block(), 1, axis=0)))
    list(session.trainer.train(QUICK))
    list(session.trainer.predict())
    session.prediction.edit(3, np.zeros_like(block()))
    found = review_round(session)
    assert found.number == 2
    assert found.changed[0] == Change(3, 64 * 4.0)  # a correction is a change, too
    assert set(found.changed[1:]) == {Change(z, 16 * 4.0) for z in (0, 1, 2, 4, 5)}
    assert found.worth is None


def test_labels_fight_where_neither_is_sure() -> None:
    mask = np.zeros((3, 8, 8), np.uint8)
    mask[1, :, :4], mask[1, :, 4:] = 1, 2
    sure = np.full(mask.shape, 90, np.uint8)
    spacing = (5.0, 2.0, 3.0)
    assert fighting_labels(mask, sure, spacing) == ()
    sure[1, 2:5] = 40
    (fight,) = fighting_labels(mask, sure, spacing)
    assert (fight.labels, fight.z) == ((1, 2), 1)
    assert fight.mm2 == pytest.approx(3 * 5.0 * 2.0)  # three faces along z and y


def test_another_slice_is_worth_less_the_more_there_are() -> None:
    few, many = worth_of_a_slice([0.75], 4), worth_of_a_slice([0.75], 8)
    assert few > many > 0
    # Errors of 0.216 and 0.138 at four and eight slices: the in-volume benchmark.
    step = 100 * (0.216 - 0.138) / 4
    loo = 1 - 0.216 / (3 / 4) ** 0.6
    assert worth_of_a_slice([loo], 4) == pytest.approx(step, abs=1.0)
    assert worth_of_a_slice([1.0], 4) == 0
    assert worth_text(2.6) == "Another slice is worth about 3 points of Dice."
    assert "less than 1 point" in worth_text(0.2)


def test_a_measured_round_says_what_another_slice_is_worth(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(session)
    fake = predicting(np.roll(block(1), 2, axis=0))
    monkeypatch.setattr("napari_diffseg.session.validation.predict", fake)
    list(session.trainer.validate(QUICK))
    found = review_round(session)
    assert found.quality == {1: pytest.approx(0.75)}
    assert found.worth == pytest.approx(worth_of_a_slice([0.75], 2))
