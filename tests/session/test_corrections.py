"""What was corrected counts more, is learnt quickly, and is not repeated without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, QUICK, block, predicting, tiny_backbone, tiny_volume, trained

import napari_diffseg.session.trainer as module
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.session import Session
from napari_diffseg.session.corrections import (
    CONTINUE_SECONDS,
    CORRECTED_WEIGHT,
    Repeated,
    sentence,
)

WRONG = np.roll(block(1), 8, axis=0)  # all of the block is missed, and as much seen beside it


@pytest.fixture
def wrong(session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose models see the block 8 pixels too low on every slice."""
    monkeypatch.setattr(module, "predict", predicting(WRONG))
    return trained(session)


def _correct(session: Session, z: int) -> None:
    session.prediction.edit(z, block())
    session.accept(z)


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[int, float], TrainSettings]]:
    """The weight of each painted slice and the settings, of each training."""
    seen: list[tuple[dict[int, float], TrainSettings]] = []
    real = module.finetune

    def watched(
        volume: object, painted: object, labels: object, start: object, settings: TrainSettings,
        *rest: object, **more: object,
    ) -> Iterator[Progress]:  # fmt: skip
        seen.append(({s.z: s.weight for s in painted}, settings))  # type: ignore[attr-defined]
        quick = TrainSettings(iterations=2, device="cpu")
        return real(volume, painted, labels, start, quick, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "finetune", watched)
    return seen


def test_a_corrected_slice_counts_more_from_then_on(
    wrong: Session, taught: list[tuple[dict[int, float], TrainSettings]]
) -> None:
    _correct(wrong, 2)
    list(wrong.trainer.train(QUICK, from_model=True))
    list(wrong.trainer.predict())
    assert taught[-1][0] == {1: 1.0, 2: CORRECTED_WEIGHT, 4: 1.0}
    assert wrong.rounds.all[-1].corrected == (2,)
    wrong.paint.set_slice(0, WRONG)  # as it was predicted: no correction
    list(wrong.trainer.train(QUICK))
    assert taught[-1][0] == {0: 1.0, 1: 1.0, 2: CORRECTED_WEIGHT, 4: 1.0}
    assert wrong.rounds.all[-1].corrected == (2,)


def test_continue_is_quick_after_few_corrections(
    wrong: Session, taught: list[tuple[dict[int, float], TrainSettings]]
) -> None:
    minute = TrainSettings(seconds=60.0, device="cpu")
    list(wrong.trainer.train(minute, from_model=True))
    assert taught[-1][1].seconds == 60.0  # nothing was corrected: on and on
    _correct(wrong, 2)
    list(wrong.trainer.train(minute))
    assert taught[-1][1].seconds == 60.0  # from the base
    list(wrong.trainer.predict())
    _correct(wrong, 3)
    list(wrong.trainer.train(minute, from_model=True))
    assert taught[-1][1].seconds == CONTINUE_SECONDS


def test_corrected_pixels_weigh_more_in_the_head(session: Session) -> None:
    for z in (1, 4):
        session.paint.set_slice(z, block())
    plain = session.paint.painted()
    heavy = (replace(plain[0], weight=50.0), plain[1])
    found = []
    for painted in (plain, plain, heavy):
        *_, last = finetune(session.volume, painted, session.paint.labels, tiny_backbone(), QUICK)
        assert last.segmenter is not None
        found.append([p.detach().numpy().copy() for p in last.segmenter.head.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(found[0], found[2], strict=True))


def test_a_mistake_that_comes_back_beside_its_correction_is_named(
    wrong: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong.prediction.edit(5, WRONG)  # corrected by hand: nobody asks
    _correct(wrong, 3)
    list(wrong.trainer.train(QUICK, from_model=True))
    list(wrong.trainer.predict())
    assert [(one.z, one.corrected) for one in wrong.trainer.repeated] == [(2, 3)]
    assert wrong.trainer.repeated[0].mm2 == pytest.approx(2 * 64 * 4, rel=0.05)  # 2 x 2 mm each
    assert wrong.suggest()[0].z == 2
    assert "repeats what you corrected on slice 3" in wrong.suggest()[0].reason
    # A model that has learnt it is not accused.
    monkeypatch.setattr(module, "predict", predicting(block()))
    list(wrong.trainer.predict())
    assert wrong.trainer.repeated == ()
    assert "repeats" not in wrong.suggest()[0].reason


def test_an_edge_that_moved_is_no_mistake_that_comes_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = np.roll(block(1), 1, axis=0)  # one row off
    monkeypatch.setattr(module, "predict", predicting(near))
    trained(session)
    _correct(session, 3)
    list(session.trainer.train(QUICK, from_model=True))
    list(session.trainer.predict())
    assert session.trainer.repeated == ()


def test_the_sentence() -> None:
    names = {1: "liver", 2: "spleen"}
    assert sentence((), names) == ""
    one = Repeated(41, 42, 2, 1, 90.0)
    assert sentence((one,), names) == (
        "Slice 41 repeats what you corrected on slice 42: spleen for liver."
    )
    more = Repeated(43, 42, 0, 1, 80.0)
    assert sentence((one, more), names).startswith("Slice 41 (also 43) repeats")


def test_what_was_corrected_is_known_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "predict", predicting(WRONG))
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path))
    _correct(session, 2)
    list(session.trainer.train(QUICK, from_model=True))
    list(session.trainer.predict())
    session.close()
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    assert again.rounds.all[-1].corrected == (2,)
    list(again.trainer.train(QUICK, from_model=True))
    assert again.rounds.all[-1].corrected == (2,)
    again.close()
