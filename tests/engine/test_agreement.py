"""Two masks of one CT."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from napari_diffseg.engine.agreement import compare, matched
from napari_diffseg.io.labels import Label, LabelMap, labels_for


def test_kappa_and_dice_of_each_label():
    rng = np.random.default_rng(0)
    a = rng.choice(np.array([0, 1, 4], np.uint8), (4, 9, 8), p=[0.5, 0.3, 0.2])
    b = np.where(rng.random(a.shape) < 0.3, rng.permuted(a), a)
    found = compare(a, b, (2.0, 1.0, 1.0), labels_for([1, 4, 7]))
    for one in found.labels[:2]:
        i = one.scores.label.id
        expected = cohen_kappa_score((a == i).ravel(), (b == i).ravel())
        assert one.kappa == pytest.approx(expected)
        both = ((a == i) & (b == i)).sum()
        assert one.scores.dice == pytest.approx(2 * both / ((a == i).sum() + (b == i).sum()))
    assert math.isnan(found.labels[2].kappa)
    last = found.labels_csv().splitlines()[-1]
    assert last == "7,label 7,0,0,,,,"


def test_slices_that_differ_most_come_first():
    a = np.zeros((5, 8, 8), np.uint8)
    a[1:4, 2:6, 2:6] = 1
    b = a.copy()
    b[1, 2, 2:4] = 0
    b[3, 2:6, 2:6] = 2
    b[4, 0, 0] = 1
    found = compare(a, b, (3.0, 2.0, 0.5), labels_for([1, 2]))
    assert [(s.z, s.differing_mm2) for s in found.slices] == [(3, 16.0), (1, 2.0), (4, 1.0)]
    assert [s.dice for s in found.slices] == pytest.approx([0, 28 / 30, 0])
    assert found.slices_csv().splitlines()[1] == "3,16.0,0.0000"


def test_labels_are_matched_by_name_and_else_by_id():
    liver, spleen = Label(1, "liver", (1, 1, 1)), Label(2, "spleen", (2, 2, 2))
    mask = np.arange(4, dtype=np.uint8).reshape(1, 1, 4)
    a = LabelMap(mask, (liver, spleen, *labels_for([3])))
    named = LabelMap(mask, (Label(1, "Spleen", (0, 0, 0)), Label(2, "tumour", (0, 0, 0)),
                            Label(3, "aorta", (0, 0, 0))))  # fmt: skip
    found, labels = matched(a, named)
    assert found.ravel().tolist() == [0, 2, 4, 3]
    assert [(label.id, label.name) for label in labels] == [
        (1, "liver"), (2, "spleen"), (3, "aorta"), (4, "tumour"),
    ]  # fmt: skip
    nameless = LabelMap(mask, labels_for([1, 2, 3]))
    found, labels = matched(a, nameless)
    assert np.array_equal(found, mask)
    assert labels == a.labels
