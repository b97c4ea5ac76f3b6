from __future__ import annotations

import numpy as np
import pytest

from napari_diffseg.engine.suggest import (
    distance_to_painted,
    likely_empty,
    slice_change,
    slice_confidence,
    soft_tissue_share,
    structure_share,
    suggest,
)


def painted(count: int, *at: int) -> np.ndarray:
    marked = np.zeros(count, bool)
    marked[list(at)] = True
    return marked


def test_distance_counts_slices() -> None:
    np.testing.assert_array_equal(distance_to_painted(painted(6, 1, 4)), [1, 0, 1, 1, 0, 1])
    assert np.isinf(distance_to_painted(painted(3))).all()


def test_confidence_is_that_of_the_structures() -> None:
    prediction = np.zeros((2, 4, 4), np.uint8)
    confidence = np.full((2, 4, 4), 100, np.uint8)
    prediction[1, 0, 0] = 3
    confidence[1, 0, 0] = 60
    confidence[1, 3, 3] = 40  # unsure background counts, certain background does not
    np.testing.assert_array_equal(slice_confidence(prediction, confidence), [100, 50])


def test_change_is_one_minus_dice_with_the_worse_neighbour() -> None:
    prediction = np.zeros((4, 4, 4), np.uint8)
    prediction[0, :2] = 1
    prediction[1, :2] = 1
    prediction[2, :2] = 2  # another label on the same pixels
    np.testing.assert_allclose(slice_change(prediction), [0, 1, 1, 1])
    prediction[2] = prediction[3] = prediction[1]
    prediction[3, 1] = 0
    np.testing.assert_allclose(slice_change(prediction), [0, 0, 1 / 3, 1 / 3])


def test_without_a_prediction_the_volume_is_covered_evenly() -> None:
    (first,) = suggest(painted(101))
    assert abs(first.z - 50) <= 1
    assert "nothing is painted yet" in first.reason
    found = sorted(s.z for s in suggest(painted(101), n=4))
    assert np.diff([-1, *found, 101]).max() <= 35
    assert np.diff(found).min() >= 15


def test_the_gap_is_suggested_and_the_distance_is_named() -> None:
    (found,) = suggest(painted(60, 0, 5, 10, 50, 55, 59))
    assert 28 <= found.z <= 32
    assert (
        found.reason
        == f"Slice {found.z}: far from any painted slice ({min(found.z - 10, 50 - found.z)} slices)"
    )


def test_low_confidence_attracts_and_is_named() -> None:
    confidence = np.full(60, 98.0)
    confidence[40:45] = 61
    (found,) = suggest(painted(60, 10, 25, 38, 50), confidence)
    assert 40 <= found.z < 45
    assert found.reason == f"Slice {found.z}: confidence is low (61 %)"


def test_a_jump_attracts_and_is_named() -> None:
    change = np.full(60, 0.02)
    change[19:22] = 0.9
    (found,) = suggest(painted(60, 5, 15, 25, 40, 55), np.full(60, 99.0), change)
    assert 19 <= found.z < 22
    assert found.reason == (
        f"Slice {found.z}: the prediction jumps between neighbours (90 % differs)"
    )


def test_a_painted_slice_is_never_suggested() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        marked = rng.random(12) < 0.5
        found = suggest(marked, rng.uniform(30, 100, 12), rng.random(12), n=12)
        assert {s.z for s in found} == set(np.flatnonzero(~marked).tolist())


@pytest.mark.parametrize("count", [1, 2])
def test_tiny_volumes(count: int) -> None:
    assert suggest(painted(count, *range(count))) == []
    assert len(suggest(painted(count), n=5)) == count


def test_where_paint_shows_nothing_soft_tissue_leads() -> None:
    hu = np.full((100, 8, 8), -850, np.int16)  # lungs
    hu[:, :2] = 40
    for low, high in ((0, 50), (51, 100)):
        abdomen = hu.copy()
        abdomen[low:high, :6] = 40
        weight = soft_tissue_share(abdomen)
        assert weight[low] == 0.75
        assert low <= suggest(painted(100, 50), weight=weight)[0].z < high


def test_slices_between_empty_ones_are_likely_empty() -> None:
    shown = painted(12, 8)
    empty = likely_empty(painted(12, 2, 5, 8), shown)
    np.testing.assert_array_equal(np.flatnonzero(empty), range(6))
    assert not likely_empty(painted(12), shown).any()


def volume_with(extent: dict[int, range]) -> np.ndarray:
    """Sixty slices on which each label covers `label` pixels of those of its range."""
    prediction = np.zeros((60, 4, 4), np.uint8)
    for label, slices in extent.items():
        for z in slices:
            prediction[z, label, :label] = label
    return prediction


def test_structures_count_alike_whether_large_or_small() -> None:
    prediction = volume_with({1: range(10, 20), 3: range(30, 40)})
    share = structure_share(prediction, [1, 3], np.ones(60))
    np.testing.assert_allclose(share[10:20], share[30])
    assert share.mean() == pytest.approx(1)
    assert not share[:10].any()


def test_what_is_predicted_nowhere_may_be_where_soft_tissue_is() -> None:
    prediction = volume_with({1: range(10, 20)})
    elsewhere = (np.arange(60) >= 40).astype(float)
    share = structure_share(prediction, [1, 2], elsewhere)
    assert share[10:20].sum() == pytest.approx(share[40:].sum())
    assert not share[20:40].any()
    np.testing.assert_allclose(structure_share(prediction, [], elsewhere), 1)


def test_the_first_slice_is_where_a_model_of_other_patients_sees_structures() -> None:
    prediction = volume_with({1: range(5, 15), 2: range(5, 15), 3: range(5, 45)})
    weight = structure_share(prediction, [1, 2, 3], np.ones(60))
    confidence = np.full(60, 80.0)
    confidence[40:] = 45  # in doubt, but hardly anything is there
    (found,) = suggest(painted(60), confidence, weight=weight)
    assert 5 <= found.z < 15
    assert found.reason == (
        f"Slice {found.z}: nothing is painted yet, and most errors are expected near it"
    )
