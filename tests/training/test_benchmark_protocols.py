"""Splits: coverage, no leak of patients, determinism; tasks show no reference; scores."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from diffseg_training.benchmark.protocols import (
    ProtocolError,
    Split,
    covering_slices,
    cross_patient,
    in_volume,
    presence,
    split_patients,
)
from diffseg_training.benchmark.tasks import (
    Example,
    LearningBudget,
    Scan,
    make_task,
    score,
    stacked,
)
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume

LABELS = (Label(1, "one", (1, 2, 3)), Label(4, "four", (4, 5, 6)))


def _present(depth: int, *ranges: tuple[int, int]) -> np.ndarray:
    present = np.zeros((depth, len(ranges)), np.int64)
    for column, (first, last) in enumerate(ranges):
        present[first : last + 1, column] = 1
    return present


def _scan(depth: int = 6, patient: str = "a", pixel: float = 1.0) -> Scan:
    mask = np.zeros((depth, 12, 10), np.uint8)
    mask[1:5, 2:6, 2:6] = 1
    mask[3:5, 7:10, 3:8] = 4
    mask[2, 0, 0] = 9  # a structure that nobody asks for
    affine = np.diag([-pixel, -pixel, 2.0, 1.0])
    hu = np.where(mask == 1, 50, -100).astype(np.int16)
    return Scan(Volume(hu, Geometry.from_affine(affine, (10, 12, depth)), patient), mask, patient)


def test_every_label_is_covered_as_soon_as_that_is_possible() -> None:
    present = _present(40, (0, 30), (2, 5), (20, 24), (38, 39))
    assert present[list(covering_slices(present, 3))].any(axis=0).all()
    assert present[list(covering_slices(present, 8))].any(axis=0).all()


def test_chosen_slices_are_spread_over_the_labelled_range() -> None:
    present = _present(60, (10, 49))
    chosen = covering_slices(present, 4)
    assert chosen == covering_slices(present, 4)
    assert min(chosen) < 20
    assert max(chosen) > 39
    assert np.diff(chosen).min() >= 8


def test_the_last_sliver_of_an_organ_does_not_cover_it() -> None:
    present = np.zeros((30, 2), np.int64)
    present[0:15, 0] = 100
    present[14:25, 1] = [5, *[80] * 9, 5]
    for count in (1, 2, 3):
        chosen = covering_slices(present, count)
        assert 14 not in chosen
    assert present[list(covering_slices(present, 2)), 1].max() == 80


def test_more_slices_than_there_are_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="3 slices hold a label"):
        covering_slices(_present(10, (4, 6)), 4)


def test_in_volume_tests_the_rest_of_the_labelled_range() -> None:
    split = in_volume("scan", _present(20, (3, 8), (10, 15)), 4)
    painted, tested = split.train[0].slices, split.test[0].slices
    assert len(painted) == 4
    assert sorted((*painted, *tested)) == list(range(3, 16))


def test_patients_are_never_on_both_sides() -> None:
    patients = {f"scan{n}": f"patient{n // 2}" for n in range(20)}
    train, test = split_patients(patients, seed=3)
    assert len(test) == 4
    assert {patients[s] for s in train}.isdisjoint({patients[s] for s in test})
    assert (train, test) == split_patients(patients, seed=3)
    assert test != split_patients(patients, seed=4)[1]


def test_cross_patient_amounts() -> None:
    present = {
        "a": _present(50, (0, 30), (40, 41)),
        "b": _present(50, (5, 9), (5, 9)),
        "c": _present(7, (0, 6), (0, 6)),
    }
    four = cross_patient(present, ["a", "b"], ["c"], 4)
    assert (four.painted, four.amount) == (4, "4 slices")
    assert four.test[0].slices == tuple(range(7))
    tenth = cross_patient(present, ["a", "b"], ["c"], 0.1, seed=1)
    assert (tenth.painted, tenth.amount) == (10, "10 %")
    assert tenth.digest == cross_patient(present, ["a", "b"], ["c"], 0.1, seed=1).digest
    assert tenth.digest != cross_patient(present, ["a", "b"], ["c"], 0.1, seed=2).digest
    assert cross_patient(present, ["a", "b"], ["c"], 1.0).painted == 100


def test_few_slices_over_several_scans_cover_every_label() -> None:
    present = {"a": _present(9, (0, 8), (9, 8), (9, 8)), "b": _present(9, (9, 8), (0, 3), (6, 8))}
    split = cross_patient(present, ["a", "b"], [], 3)
    covered = [present[one.scan][z] for one in split.train for z in one.slices]
    assert np.any(covered, axis=0).all()


def test_a_split_survives_json() -> None:
    split = in_volume("scan", _present(20, (3, 8)), 2)
    again = Split.from_json(json.loads(json.dumps(dataclasses.asdict(split))))
    assert again == split
    assert again.digest == split.digest


def test_a_task_holds_painted_slices_and_no_other_labels() -> None:
    scan = _scan()
    present = presence(scan.reference, [1, 4])
    split = in_volume("scan", present, 2)
    task = make_task(split, {"scan": scan}, LABELS, LearningBudget(seconds=1), seed=0)
    assert task.test[0] is task.train[0].volume
    assert {one.z for one in task.train[0].painted} == set(split.train[0].slices)
    for one in task.train[0].painted:
        assert set(np.unique(one.mask)) <= {0, 1, 4}
        np.testing.assert_array_equal(one.mask == 1, scan.reference[one.z] == 1)


def test_only_tested_slices_are_scored() -> None:
    scan = _scan()
    split = in_volume("scan", presence(scan.reference, [1, 4]), 2)
    right = np.where(scan.reference == 9, 0, scan.reference).astype(np.uint8)
    outside = right.copy()
    outside[[0, 5, *split.train[0].slices]] = 4
    row, evaluations = score(split, {"scan": scan}, LABELS, [outside])
    assert row["dice"] == pytest.approx(1)
    assert evaluations[0].slices == len(split.test[0].slices)
    wrong = right.copy()
    wrong[:, 2:4] = 0  # half of label 1
    row, _ = score(split, {"scan": scan}, LABELS, [wrong])
    assert row["labels"]["one"]["dice"] == pytest.approx(2 / 3)
    assert row["labels"]["four"]["dice"] == pytest.approx(1)
    assert row["dice"] == pytest.approx(5 / 6)


def test_stacking_brings_slices_of_several_scans_to_one_pixel_size() -> None:
    examples = []
    for pixel in (1.0, 2.0):
        scan = _scan(pixel=pixel)
        painted = tuple(PaintedSlice(z, scan.reference[z], True) for z in (1, 3))
        examples.append(Example(scan.volume, painted))
    together = stacked(examples)
    assert together.volume.hu.shape == (4, 12, 10)
    assert together.volume.geometry.spacing[1:] == (2.0, 2.0)
    # The same square, seen with pixels twice as large, covers a quarter of the pixels.
    areas = [int((one.mask == 1).sum()) for one in together.painted]
    assert areas == [4, 4, 16, 16]
    for one in together.painted:
        inside = together.volume.hu[one.z][one.mask == 1]
        assert inside.mean() > -30
    assert stacked(examples[:1]) is examples[0]
