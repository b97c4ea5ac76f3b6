"""A model of other patients learns from a CT that nobody has painted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_tools import DISC, SPOT, dice, disc_volume, paint, tiny_backbone

from napari_diffseg.engine import adaptation
from napari_diffseg.engine.adaptation import adapt
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import result_of
from napari_diffseg.engine.settings import TrainSettings


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(adaptation, "_STEPS", 40)


@pytest.fixture(scope="module")
def model():
    """Learnt from one patient."""
    volume, truth = disc_volume()
    settings = TrainSettings(iterations=40, grid=32, device="cpu")
    steps = finetune(volume, paint(truth, 1, 4, 7), (DISC, SPOT), tiny_backbone(), settings)
    return [progress.segmenter for progress in steps][-1]


def other_patient(contrast):
    """Both structures are brighter than in the patient of the model."""
    volume, truth = disc_volume(drift=0.2)
    return replace(
        volume, hu=(volume.hu + np.where(truth > 0, contrast, 0)).astype(np.int16)
    ), truth


def predicted(model, volume):
    mask, confidence = (np.zeros(volume.hu.shape, np.uint8) for _ in range(2))
    for found in predict(model, volume, device="cpu"):
        mask[found.z], confidence[found.z] = found.mask, found.confidence
    return mask, confidence


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_model_becomes_surer_of_this_patient(model):
    """Of what it saw rightly before, for nobody says what it sees wrongly."""
    volume, truth = other_patient(contrast=70)
    before, sure_before = predicted(model, volume)
    given = weights(model)
    adapted = result_of(adapt(model, volume, "cpu"))
    after, sure_after = predicted(adapted, volume)
    inside = (truth > 0) & (before == truth)
    assert sure_after[inside].mean() > sure_before[inside].mean()
    assert dice(after, truth, DISC.id) > 0.8
    assert same(given, weights(model))  # it is left as it was
    assert not same(given, weights(adapted))
    assert adapted.labels == model.labels
    assert adapted.card == model.card
    assert same(weights(adapted), weights(result_of(adapt(model, volume, "cpu"))))


def test_only_the_head_learns(model):
    volume, _ = other_patient(contrast=0)
    adapted = weights(result_of(adapt(model, volume, "cpu")))
    changed = {name for name, tensor in weights(model).items() if not adapted[name].equal(tensor)}
    assert {name.split(".")[0] for name in changed} == {"head"}


def test_the_time_that_is_left_is_told(model):
    volume, _ = other_patient(contrast=0)
    left = [progress.remaining for progress in adapt(model, volume, "cpu")]
    assert all(seconds is None or seconds >= 0 for seconds in left)
    assert left[-1] == pytest.approx(0)


def test_a_model_that_finds_nothing_stays_as_it_is(model):
    air = replace(disc_volume()[0], hu=np.full((4, 48, 40), -1000, np.int16))
    assert result_of(adapt(model, air, "cpu")) is model


def test_the_papers_head_stays_as_it_is():
    volume, truth = disc_volume()
    settings = TrainSettings(iterations=2, grid=32, device="cpu", recipe="paper")
    steps = finetune(volume, paint(truth, 1, 4), (DISC, SPOT), tiny_backbone(), settings)
    model = [progress.segmenter for progress in steps][-1]
    assert result_of(adapt(model, volume, "cpu")) is model
