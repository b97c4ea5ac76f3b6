"""Training that begins at a model of other patients keeps what that one knows far from paint."""

from dataclasses import replace

import numpy as np
import pytest
from engine_tools import DISC, SPOT, dice, disc_volume, paint, tiny_backbone, volume_of

from napari_diffseg.engine import recipe
from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.planes import PaintedPlane
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.settings import TrainSettings

SHAPE = (14, 48, 40)
SETTINGS = TrainSettings(iterations=200, grid=32, device="cpu")
STAGES = replace(SETTINGS, iterations=15)  # enough to go through all stages


def patient(drift=0.3, noise=0):
    """The disc is in the lower half of the slices, the spot in the upper half."""
    volume, truth = disc_volume(SHAPE, drift)
    z = np.arange(SHAPE[0])[:, None, None]
    gone = ((truth == DISC.id) & (z > 6)) | ((truth == SPOT.id) & (z <= 6))
    hu = volume.hu + np.random.default_rng(noise).integers(-20, 20, SHAPE)
    hu = np.where(gone, hu - np.where(truth == DISC.id, 250, 600), hu)
    return volume_of(hu.astype(np.int16)), np.where(gone, 0, truth).astype(np.uint8)


def learnt(volume, painted, labels, start, rehearse=False, settings=SETTINGS):
    steps = finetune(volume, painted, labels, start, settings, rehearse=rehearse)
    *_, last = steps
    return last


def predicted(last, volume, painted):
    mask = np.zeros(volume.hu.shape, np.uint8)
    found = predict(last.segmenter, volume, painted, device="cpu", registration=last.registration)
    for one in found:
        mask[one.z] = one.mask
    return mask


@pytest.fixture(scope="module")
def model():
    """Learnt from one patient."""
    volume, truth = patient()
    painted = paint(truth, 1, 4, 8, 12)
    segmenter = learnt(volume, painted, (DISC, SPOT), tiny_backbone()).segmenter
    return replace_card(segmenter, cases=1)


def replace_card(segmenter, **changes):
    segmenter.card = replace(segmenter.card, **changes)
    return segmenter


@pytest.fixture(autouse=True)
def short_reach(monkeypatch):
    monkeypatch.setattr(recipe, "_REACHES", (1, 2))


def test_one_painted_slice_does_not_undo_what_it_does_not_show(model):
    volume, truth = patient(drift=0.2, noise=1)
    painted = paint(truth, 2)  # shows the disc alone
    kept = learnt(volume, painted, model.labels, model, rehearse=True)
    mask = predicted(kept, volume, painted)
    assert dice(mask, truth, SPOT.id) > 0.6
    assert dice(mask, truth, DISC.id) > 0.6
    lost = learnt(volume, painted, model.labels, model)
    assert dice(predicted(lost, volume, painted), truth, SPOT.id) < 0.2
    assert kept.segmenter.card.cases == 2


def test_a_structure_that_no_painted_slice_shows_is_kept_near_them_too(model, monkeypatch):
    monkeypatch.setattr(recipe, "_REACHES", (1, 20))
    volume, truth = patient(drift=0.2, noise=1)
    painted = paint(truth, 2, 5)
    kept = learnt(volume, painted, model.labels, model, rehearse=True)
    mask = predicted(kept, volume, painted)
    assert dice(mask, truth, SPOT.id) > 0.5
    assert dice(mask, truth, DISC.id) > 0.6
    assert not (mask[[2, 5]] == SPOT.id).any()  # where it is painted that there is none


def test_a_slice_without_anything_does_not_undo_what_is_elsewhere(model):
    volume, truth = patient(drift=0.2, noise=1)
    hu, truth = volume.hu.copy(), truth.copy()
    hu[:2], truth[:2] = hu[2, :1, :1], 0
    volume, painted = volume_of(hu), paint(truth, 0)
    kept = learnt(volume, painted, model.labels, model, rehearse=True)
    mask = predicted(kept, volume, painted)
    assert dice(mask, truth, DISC.id) > 0.6
    assert dice(mask, truth, SPOT.id) > 0.6
    with pytest.raises(TrainError, match="only background is painted"):
        learnt(volume, painted, model.labels, model)


def test_a_plane_alone_does_not_undo_what_it_does_not_show(model):
    volume, truth = patient(drift=0.2, noise=1)
    planes = [PaintedPlane("coronal", 18, truth[:, 18], full=True)]  # crosses the disc alone
    steps = finetune(volume, (), model.labels, model, SETTINGS, planes=planes, rehearse=True)
    *_, last = steps
    mask = np.zeros(volume.hu.shape, np.uint8)
    for one in predict(
        last.segmenter, volume, device="cpu", registration=last.registration, planes=planes
    ):
        mask[one.z] = one.mask
    assert dice(mask, truth, SPOT.id) > 0.5


def test_a_structure_that_the_model_does_not_know_is_not_background_far_away():
    volume, truth = disc_volume(SHAPE, 0.3)
    known = np.where(truth == DISC.id, truth, 0).astype(np.uint8)
    model = learnt(volume, paint(known, 1, 4, 8, 12), (DISC,), tiny_backbone()).segmenter
    other, truth = disc_volume(SHAPE, 0.2)
    painted = paint(truth, 2)
    labels = (DISC, SPOT)
    mask = predicted(learnt(other, painted, labels, model, rehearse=True), other, painted)
    far = slice(6, None)
    assert dice(mask[far], truth[far], SPOT.id) > 0.5
    assert dice(mask[far], truth[far], DISC.id) > 0.5


def test_near_paint_the_model_is_not_asked(model):
    """Every slice is within the reach of a painted one, so nothing is rehearsed."""
    volume, truth = patient(drift=0.2, noise=1)
    painted = paint(truth, 2, 6, 10, 13)
    stages = {
        progress.stage
        for progress in finetune(volume, painted, model.labels, model, STAGES, rehearse=True)
    }
    assert "pseudo-labelling" in stages  # by self-training
    one = {
        progress.stage
        for progress in finetune(volume, painted[:1], model.labels, model, STAGES, rehearse=True)
    }
    assert "asking the earlier model" in one - stages


def test_finished_in_the_middle_it_keeps_what_it_has(model):
    volume, truth = patient(drift=0.2, noise=1)
    ended = []
    steps = finetune(
        volume, paint(truth, 2), model.labels, model, STAGES,
        finished=lambda: bool(ended), rehearse=True,
    )  # fmt: skip
    last = None
    for progress in steps:
        last = progress
        if progress.loss is not None:
            ended.append(True)
    assert last.segmenter is not None


@pytest.mark.parametrize("start", ["backbone", "paper", "other labels"])
def test_what_cannot_teach_is_only_begun_at(start, model):
    volume, truth = patient(drift=0.2, noise=1)
    painted = paint(truth, 2)
    begun = {"backbone": tiny_backbone(), "paper": None, "other labels": model}[start]
    if begun is None:
        short = TrainSettings(iterations=2, grid=32, device="cpu", recipe="paper")
        begun = learnt(volume, painted, (DISC, SPOT), tiny_backbone(), settings=short).segmenter
    labels = (SPOT, DISC) if start == "other labels" else (DISC, SPOT)
    steps = finetune(volume, painted, labels, begun, STAGES, rehearse=True)
    assert "asking the earlier model" not in {progress.stage for progress in steps}
