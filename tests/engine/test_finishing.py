"""A training that is finished early keeps what it has learnt."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from engine_tools import DISC, SPOT, dice, disc_volume, paint, tiny_backbone

from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.settings import TrainSettings

_VOLUME, _TRUTH = disc_volume((30, 48, 40), drift=0.1)
_LABELS = (DISC, SPOT)
_ENDLESS = TrainSettings("linear", seconds=None, device="cpu")


def _finished_at(stage: str, settings: TrainSettings, steps: int = 2) -> list[Progress]:
    """Train until some steps of a stage are done, and finish there."""
    seen: list[Progress] = []

    def reached() -> bool:
        return sum(one.stage == stage for one in seen) >= steps

    painted, start = paint(_TRUTH, 4, 25), tiny_backbone()
    for progress in finetune(_VOLUME, painted, _LABELS, start, settings, finished=reached):
        seen.append(progress)
        assert progress.seconds < 120, f"there is no stage called {stage!r}"
    return seen


@pytest.mark.parametrize(
    ("stage", "recipe"),
    [
        ("learning", "app"),
        ("pseudo-labelling", "app"),
        ("self-training 3 slices around", "app"),
        ("training", "paper"),
    ],
)
def test_finishing_ends_any_stage_at_once_with_a_model(
    stage: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stage is reached soon, but goes on for longer than until it is finished.
    monkeypatch.setattr("napari_diffseg.engine.recipe._STEPS", (8,) * 5)
    settings = TrainSettings("linear", recipe, seconds=None, device="cpu")  # type: ignore[arg-type]
    seen = _finished_at(stage, settings)
    assert sum(one.stage == stage for one in seen) == 2
    assert seen[-2].stage == stage
    last = seen[-1]
    assert last.segmenter is not None
    assert not last.segmenter.training
    assert (last.stage, last.remaining) == ("trained", 0)
    assert not any(one.note for one in seen)
    with torch.inference_mode():
        assert torch.isfinite(last.segmenter(torch.zeros(1, 1, 32, 32))).all()


@pytest.mark.parametrize("stage", ["preparing", "registering slices", "extracting features"])
def test_finishing_before_anything_is_learnt_keeps_nothing(stage: str) -> None:
    with pytest.raises(TrainError, match="nothing was learnt yet"):
        _finished_at(stage, _ENDLESS, steps=1)


def test_a_training_without_an_end_needs_a_way_to_finish() -> None:
    steps = finetune(_VOLUME, paint(_TRUTH, 4), _LABELS, tiny_backbone(), _ENDLESS)
    with pytest.raises(TrainError, match="no end is set"):
        next(steps)


def test_finishing_beats_the_budget() -> None:
    seen = _finished_at("learning", TrainSettings(seconds=600.0, device="cpu"))
    assert seen[-1].segmenter is not None
    assert sum(one.loss is not None for one in seen) == 2  # of 400 in 600 s


def test_many_painted_slices_leave_time_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which looking at all painted slices and their copies takes twice the budget."""
    volume, truth = disc_volume((96, 48, 40), drift=0.02)
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 4)
    monkeypatch.setattr("napari_diffseg.engine.progress.time", clock)
    settings = TrainSettings("linear", seconds=60.0, device="cpu", grid=40)
    seen = list(finetune(volume, paint(truth, *range(96)), _LABELS, tiny_backbone(), settings))
    looked = [one for one in seen if one.stage == "extracting features"]
    learning = [one for one in seen if one.loss is not None]
    assert 24 / 4 <= len(looked) < 96 / 4 * 5
    assert looked[-1].seconds - looked[0].seconds < 20
    assert len(learning) >= 40
    found = next(predict(seen[-1].segmenter, volume, start=50))
    assert dice(found.mask, truth[50], DISC.id) > 0.6
