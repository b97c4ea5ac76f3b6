from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from session_tools import (
    QUICK,
    block,
    predicting,
)

import napari_diffseg.session.trainer as module
from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.progress import Progress
from napari_diffseg.session import Session, SessionError


def test_validation_never_trains_on_the_slice_it_judges(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    real = module.finetune

    def watched(
        volume: object, painted: object, *rest: object, **more: object
    ) -> Iterator[Progress]:
        seen.append(tuple(s.z for s in painted))  # type: ignore[attr-defined]
        return real(volume, painted, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("napari_diffseg.session.validation.finetune", watched)
    for z in (0, 2, 5):
        session.paint.set_slice(z, block())
    steps = list(session.trainer.validate(QUICK))
    assert seen == [(2, 5), (0, 5), (0, 2)]
    assert steps[-1].stage == "validated"
    assert session.trainer.quality.keys() == {1}
    assert 0 <= session.trainer.quality[1] <= 1
    assert session.rounds.all == ()


def test_quality_is_that_of_the_slices_left_out(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = predicting(np.roll(block(1), 2, axis=0))
    monkeypatch.setattr("napari_diffseg.session.validation.predict", fake)
    session.paint.set_slice(0, block())
    session.paint.set_slice(3, block())
    list(session.trainer.validate(replace(QUICK, seed=5)))
    assert session.trainer.quality == {1: pytest.approx(0.75)}
    list(session.trainer.train(QUICK))
    assert session.rounds.all[0].quality == {}  # that was of other settings
    list(session.trainer.validate(QUICK))
    assert session.rounds.all[0].quality == session.trainer.quality
    list(session.trainer.train(QUICK))
    assert (
        session.rounds.all[1].quality == session.trainer.quality
    )  # nothing was painted in between


def test_the_folds_share_the_seconds(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[float | None] = []
    real = module.finetune

    def watched(*given: object, **more: object) -> Iterator[Progress]:
        budgets.append(given[4].seconds)  # type: ignore[attr-defined]
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("napari_diffseg.session.validation.finetune", watched)
    for z in range(4):
        session.paint.set_slice(z, block())
    list(session.trainer.validate(replace(QUICK, seconds=8.0)))
    assert budgets == [2.0] * 4


def test_many_painted_slices_are_sampled_evenly(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_diffseg.session.validation.MAX_FOLDS", 3)
    for z in range(5):
        session.paint.set_slice(z, block())
    left_out = {step.note.split(" (")[0] for step in session.trainer.validate(QUICK)}
    assert left_out == {f"without slice {z}" for z in (0, 2, 4)} | {"validated"}


def test_quality_needs_two_slices(session: Session) -> None:
    session.paint.set_slice(0, block())
    with pytest.raises(SessionError, match="needs two slices"):
        list(session.trainer.validate(QUICK))
    session.paint.set_slice(1, block(2))
    with pytest.raises(SessionError, match="on one slice only"):
        list(session.trainer.validate(QUICK))
    session.paint.set_slice(2, block(2))
    list(session.trainer.validate(QUICK))
    assert session.trainer.quality.keys() == {2}  # nothing can be said of the liver


def test_a_stopped_validation_changes_nothing(session: Session) -> None:
    session.paint.set_slice(0, block())
    session.paint.set_slice(1, block())
    steps = session.trainer.validate(QUICK)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert session.trainer.quality == {}


def test_a_validation_without_an_end_is_refused(session: Session) -> None:
    session.paint.set_slice(0, block())
    session.paint.set_slice(3, block())
    with pytest.raises(TrainError, match="no end is set"):
        next(session.trainer.validate(replace(QUICK, iterations=None, seconds=None)))
