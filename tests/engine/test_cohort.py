"""Several patients at once: joined labels, unknown structures, self-training, validation."""

import numpy as np
import pytest
import torch
from engine_tools import DISC, SPOT, dice, disc_volume, paint, tiny_backbone

from napari_diffseg.engine.annotations import PaintedSlice, TrainError
from napari_diffseg.engine.cohort import Case, joint_labels, prepare_cohort
from napari_diffseg.engine.cohort_training import leave_one_patient_out, train_cohort
from napari_diffseg.engine.pieces import largest_pieces, single_pieces
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.labels import Label
from napari_diffseg.network.losses import merge_unknown

SETTINGS = TrainSettings(iterations=90, grid=32, device="cpu")


def finished(steps):
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def cohort_of(*cases, settings=SETTINGS):
    return finished(prepare_cohort([lambda c=c: c for c in cases], tiny_backbone(), settings))


def whole(seed_drift, labels=(DISC, SPOT)):
    volume, truth = disc_volume(drift=seed_drift)
    shown = np.where(np.isin(truth, [label.id for label in labels]), truth, 0).astype(np.uint8)
    return Case(volume, paint(shown, *range(len(truth))), labels), truth


def predicted(segmenter, volume):
    mask = np.zeros(volume.hu.shape, np.uint8)
    for found in predict(segmenter, volume, device="cpu"):
        mask[found.z] = found.mask
    return mask


def test_what_two_patients_teach_holds_for_a_third():
    cohort = cohort_of(whole(0.5)[0], whole(-0.5)[0])
    segmenter = finished(train_cohort(cohort, SETTINGS))
    volume, truth = disc_volume(drift=0.2)
    mask = predicted(segmenter, volume)
    assert dice(mask, truth, DISC.id) > 0.8
    assert dice(mask, truth, SPOT.id) > 0.6
    assert segmenter.labels == (DISC, SPOT)


def sureness(segmenter, volume, where):
    """Mean confidence in percent that a voxel is what it is; 0 where it is called otherwise."""
    mask, confidence = (np.zeros(volume.hu.shape, np.uint8) for _ in range(2))
    for found in predict(segmenter, volume, device="cpu"):
        mask[found.z], confidence[found.z] = found.mask, found.confidence
    return float(np.where(mask == DISC.id, confidence, 0)[where].mean())


def test_a_structure_that_nobody_looked_for_is_no_background():
    """One patient shows the disc, three show the spot only, though they have a disc as well."""
    cases = [whole(0.5, (DISC,))[0], *(whole(drift, (SPOT,))[0] for drift in (-0.5, -0.1, 0.3))]
    cohort = cohort_of(*cases)
    assert [unknown.tolist() for unknown in cohort.unknown] == [
        [False, False, True],
        *[[False, True, False]] * 3,
    ]
    segmenter = finished(train_cohort(cohort, SETTINGS))
    volume, truth = disc_volume(drift=0.2)
    mask = predicted(segmenter, volume)
    assert dice(mask, truth, DISC.id) > 0.7
    assert dice(mask, truth, SPOT.id) > 0.5
    # Told that the disc is background where nobody looked for it, the model doubts all discs.
    told = cohort_of(*(Case(case.volume, case.painted, (DISC, SPOT)) for case in cases))
    doubting = finished(train_cohort(told, SETTINGS))
    inside = truth == DISC.id
    assert sureness(doubting, volume, inside) < sureness(segmenter, volume, inside) - 10


def test_labels_are_joined_by_name():
    other = Label(7, "Disc", (1, 2, 3))  # the id that SPOT has in the first patient
    joined = joint_labels([(DISC, SPOT), (other, Label(3, "liver", (4, 5, 6)))])
    assert [(label.id, label.name) for label in joined] == [(1, "liver"), (3, "disc"), (7, "spot")]
    volume, truth = disc_volume()
    renamed = Case(volume, paint(np.where(truth == 3, 7, 0).astype(np.uint8), 1), (other,))
    cohort = cohort_of(whole(0.5)[0], renamed)
    assert set(np.unique(cohort.cases[1].painted[0].mask)) == {0, 3}


def test_painted_in_part_the_rest_is_learnt_from_too():
    volume, truth = disc_volume()
    part = Case(volume, paint(truth, 1, 6), (DISC, SPOT))
    cohort = cohort_of(part, whole(-0.5)[0])
    stages = [progress.stage for progress in train_cohort(cohort, SETTINGS)]
    assert "registering slices" in stages
    assert "self-training, round 2 of 2" in stages


def test_unlabelled_patients_are_learnt_from():
    alone = Case(disc_volume(drift=0.1)[0], (), ())
    cohort = cohort_of(whole(0.5)[0], alone)
    assert cohort.single == {DISC.id, SPOT.id}
    steps = train_cohort(cohort, SETTINGS)
    stages = []
    while True:
        try:
            stages.append(next(steps).stage)
        except StopIteration as stop:
            segmenter = stop.value
            break
    assert "pseudo-labelling" in stages
    volume, truth = disc_volume(drift=-0.4)
    assert dice(predicted(segmenter, volume), truth, DISC.id) > 0.8


def test_scribbles_of_a_case_leave_the_rest_unknown():
    volume, truth = disc_volume()
    strokes = np.zeros_like(truth[2])
    strokes[16:20, 14:22], strokes[5:8, 10:30] = DISC.id, 255
    case = Case(volume, (PaintedSlice(2, strokes, full=False),), (DISC,))
    shrunk = cohort_of(case).cases[0].painted[0]
    assert not shrunk.full
    assert set(np.unique(shrunk.mask)) == {0, DISC.id, 255}
    segmenter = finished(train_cohort(cohort_of(case), SETTINGS))
    assert dice(predicted(segmenter, volume)[2:3], truth[2:3], DISC.id) > 0.5


def test_decoder_learns_from_all_patients():
    settings = TrainSettings(iterations=8, grid=32, strategy="decoder", device="cpu")
    cohort = cohort_of(whole(0.5)[0], whole(-0.5)[0], settings=settings)
    before = {name: p.clone() for name, p in cohort.start.unet.decoder.named_parameters()}
    after = dict(finished(train_cohort(cohort, settings)).unet.decoder.named_parameters())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_leave_one_patient_out_judges_the_unseen():
    good = leave_one_patient_out(cohort_of(whole(0.5)[0], whole(-0.5)[0]), SETTINGS)
    quality = finished(good)
    assert set(quality) == {"disc", "spot"}
    assert quality["disc"] > 0.7
    # Where another patient's labels are exchanged, what one teaches is wrong for the other.
    volume, truth = disc_volume(drift=-0.5)
    swapped = np.select([truth == 3, truth == 7], [7, 3]).astype(np.uint8)
    wrong = Case(volume, paint(swapped, *range(len(truth))), (DISC, SPOT))
    assert finished(leave_one_patient_out(cohort_of(whole(0.5)[0], wrong), SETTINGS))["disc"] < 0.3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (TrainSettings(recipe="paper"), "app's recipe"),
        (TrainSettings(strategy="scratch"), "app's recipe"),
    ],
)
def test_other_recipes_are_refused(settings, says):
    with pytest.raises(TrainError, match=says):
        cohort_of(whole(0.5)[0], settings=settings)


def test_validation_needs_two_patients():
    alone = Case(disc_volume()[0], (), ())
    with pytest.raises(TrainError, match="two patients"):
        finished(leave_one_patient_out(cohort_of(whole(0.5)[0], alone), SETTINGS))
    with pytest.raises(TrainError, match="no slice is painted"):
        cohort_of(alone)


def test_merged_probabilities_add_up():
    logits = torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    unknown = torch.tensor([[False, True, False, True]]).expand(5, -1)
    merged, plain = merge_unknown(logits, unknown).softmax(1), logits.softmax(1)
    torch.testing.assert_close(merged[:, 0], plain[:, 0] + plain[:, 1] + plain[:, 3])
    torch.testing.assert_close(merged[:, 2], plain[:, 2])


def test_pieces():
    mask = np.zeros((3, 6, 6), np.uint8)
    mask[:, :3, :3], mask[0, 5, 5], mask[:, 4, 0], mask[:, 4, 4] = 1, 1, 2, 2
    assert single_pieces(mask, [1, 2, 5]) == set()
    mask[0, 5, 5] = 0
    assert single_pieces(mask, [1, 2, 5]) == {1}
    mask[0, 5, 5] = 1
    kept = largest_pieces(mask, [1])
    assert kept[0, 5, 5] == 0
    np.testing.assert_array_equal(kept == 2, mask == 2)
    assert (kept == 1).sum() == 27
