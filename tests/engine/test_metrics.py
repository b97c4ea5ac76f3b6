"""Metrics against closed forms, MONAI's own calls and SimpleITK."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

from napari_diffseg.engine import metrics
from napari_diffseg.engine.metrics import MetricsError, confusion, dice, evaluate
from napari_diffseg.io.labels import Label

SPACING = (2.5, 0.8, 0.5)
LIVER, SPLEEN, AORTA = (
    Label(1, "liver", (1, 2, 3)),
    Label(2, "spleen", (4, 5, 6)),
    Label(7, "aorta", (7, 8, 9)),
)


def cube(shape: tuple[int, int, int], low: tuple[int, int, int], size: int, value: int = 1):
    volume = np.zeros(shape, np.uint8)
    volume[tuple(slice(start, start + size) for start in low)] = value
    return volume


def blobs(seed: int) -> NDArray[np.uint8]:
    field = np.random.default_rng(seed).normal(size=(14, 20, 22))
    smooth = sitk.GetArrayFromImage(
        sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(field), 2)
    )
    return np.digitize(smooth, np.quantile(smooth, [0.6, 0.85])).astype(np.uint8)


def test_identical_masks_are_perfect():
    mask = blobs(0)
    result = evaluate(mask, mask, SPACING, (LIVER, SPLEEN))
    for scores in (*result.scores, result.mean):
        assert (scores.dice, scores.jaccard, scores.hd95, scores.surface_dice) == (1, 1, 0, 1)
    assert result.slices == 14


@pytest.mark.parametrize(
    ("axis", "shift"), [(0, 1), (1, 1), (1, 3), (2, 2), (2, 4)], ids=lambda value: str(value)
)
def test_shifted_cube_has_closed_form(axis, shift):
    size = 8
    low = [6, 6, 6]
    reference = cube((20, 20, 20), tuple(low), size)
    low[axis] += shift
    mask = cube((20, 20, 20), tuple(low), size)
    (scores,) = evaluate(mask, reference, SPACING, (LIVER,)).scores
    overlap = (size - shift) / size
    assert scores.dice == pytest.approx(overlap)
    assert scores.jaccard == pytest.approx(overlap / (2 - overlap))
    # The far face (1 / 6 of the surface, more than 5 %) lies exactly `shift` voxels away.
    assert scores.hd95 == pytest.approx(shift * SPACING[axis])
    assert (scores.mask_voxels, scores.reference_voxels) == (size**3, size**3)


def test_surface_dice_counts_what_is_within_two_millimetres():
    reference = cube((20, 20, 20), (5, 5, 5), 8)
    near = cube((20, 20, 20), (5, 5, 9), 8)  # 4 voxels of 0.5 mm: 2 mm, just within
    far = cube((20, 20, 20), (6, 5, 5), 8)  # one slice of 2.5 mm
    assert evaluate(near, reference, SPACING, (LIVER,)).mean.surface_dice == 1
    # Beyond 2 mm are only the far face's inner voxels: its rim lies on the other cube's sides
    # nowhere, since those end one slice earlier. So all 8 x 8 voxels of one face, both ways.
    surface = 8**3 - 6**3
    expected = 1 - 8 * 8 / surface
    assert evaluate(far, reference, SPACING, (LIVER,)).mean.surface_dice == pytest.approx(expected)
    assert evaluate(far, reference, SPACING, (LIVER,), tolerance_mm=2.5).mean.surface_dice == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_equals_monai_and_simpleitk(seed):
    mask, reference = blobs(seed), blobs(seed + 10)
    result = evaluate(mask, reference, SPACING, (LIVER, SPLEEN))
    for scores in result.scores:
        a, b = mask == scores.label.id, reference == scores.label.id
        pair = [torch.from_numpy(one)[None, None] for one in (a, b)]
        hd95 = compute_hausdorff_distance(
            *pair, include_background=True, percentile=95, spacing=SPACING
        )
        nsd = compute_surface_dice(*pair, [2.0], include_background=True, spacing=SPACING)
        assert scores.hd95 == pytest.approx(float(hd95), abs=1e-4)
        assert scores.surface_dice == pytest.approx(float(nsd), abs=1e-6)

        images = [sitk.GetImageFromArray(one.astype(np.uint8)) for one in (a, b)]
        for image in images:
            image.SetSpacing(SPACING[::-1])
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(*images)
        assert scores.dice == pytest.approx(overlap.GetDiceCoefficient())
        assert scores.jaccard == pytest.approx(overlap.GetJaccardCoefficient())
        # The largest distance bounds the 95th percentile from above.
        hausdorff = sitk.HausdorffDistanceImageFilter()
        hausdorff.Execute(*images)
        assert scores.hd95 <= hausdorff.GetHausdorffDistance() + 1e-4
    assert result.mean.dice == pytest.approx(np.mean([s.dice for s in result.scores]))
    assert result.mean.hd95 == pytest.approx(np.mean([s.hd95 for s in result.scores]))


def test_absent_labels_follow_the_rule():
    reference = cube((6, 8, 8), (1, 1, 1), 4)
    mask = cube((6, 8, 8), (1, 1, 1), 4) + cube((6, 8, 8), (0, 6, 6), 2, value=2)
    result = evaluate(mask, reference, SPACING, (LIVER, SPLEEN, AORTA))
    liver, spleen, aorta = result.scores
    assert liver.dice == 1
    assert (spleen.dice, spleen.jaccard, spleen.surface_dice) == (0, 0, 0)
    assert math.isnan(spleen.hd95)
    assert all(math.isnan(v) for v in (aorta.dice, aorta.jaccard, aorta.hd95, aorta.surface_dice))
    assert (result.mean.dice, result.mean.jaccard, result.mean.surface_dice) == (0.5, 0.5, 0.5)
    assert result.mean.hd95 == 0  # the liver's alone
    # The other way round: present in the reference, not predicted.
    missed = evaluate(reference, mask, SPACING, (LIVER, SPLEEN)).scores[1]
    assert (missed.dice, missed.surface_dice) == (0, 0)
    assert math.isnan(missed.hd95)

    papers = evaluate(mask, reference, SPACING, (LIVER, SPLEEN, AORTA), absent="papers")
    assert papers.scores[2].dice == 0
    assert papers.mean.dice == pytest.approx(1 / 3)
    assert papers.rule != result.rule


def test_painted_slices_do_not_count():
    reference = cube((10, 12, 12), (2, 2, 2), 6)
    mask = reference.copy()
    mask[4] = 0  # one wrong slice inside
    assert evaluate(mask, reference, SPACING, (LIVER,)).mean.dice < 1
    result = evaluate(mask, reference, SPACING, (LIVER,), exclude_slices=(4, 4))
    assert result.mean.dice == result.mean.jaccard == 1
    assert result.slices == 9
    # A label that lives on excluded slices alone is absent.
    alone = evaluate(mask, reference, SPACING, (LIVER,), exclude_slices=range(2, 8))
    assert math.isnan(alone.mean.dice)


def test_excluding_slices_makes_no_artificial_caps():
    reference = cube((12, 20, 20), (2, 4, 4), 8)
    mask = cube((12, 20, 20), (2, 4, 6), 8)  # two voxels of 0.5 mm to the side
    inner = range(4, 9)
    result = evaluate(mask, reference, SPACING, (LIVER,), exclude_slices=inner)
    assert result.mean.hd95 == pytest.approx(1.0)
    # What the mask holds on excluded slices does not matter.
    mask[4:9] = 0
    mask[5, 15:, :5] = 1
    assert evaluate(mask, reference, SPACING, (LIVER,), exclude_slices=inner).mean.hd95 == (
        pytest.approx(1.0)
    )


def test_confusion_and_fast_dice_agree_with_numpy():
    rng = np.random.default_rng(3)
    a = rng.choice(np.array([0, 1, 9, 255], np.uint8), size=(5, 30, 31))
    b = rng.choice(np.array([0, 1, 9, 255], np.uint8), size=(5, 30, 31))
    counts = confusion(a, b)
    assert counts.shape == (256, 256)
    assert counts.sum() == a.size
    assert counts[9, 255] == ((a == 9) & (b == 255)).sum()
    scores = dice(a, b)
    assert sorted(scores) == [1, 9, 255]
    for label, value in scores.items():
        both = ((a == label) & (b == label)).sum()
        assert value == pytest.approx(2 * both / ((a == label).sum() + (b == label).sum()))
    assert dice(a[0], b[0])[9] != scores[9]  # a single slice works too
    assert math.isnan(dice(a, b, [4])[4])


def test_report_is_strict_json():
    result = evaluate(
        cube((4, 4, 4), (0, 0, 0), 2), cube((4, 4, 4), (0, 0, 0), 3), SPACING, (AORTA,)
    )
    text = json.dumps(result.to_json(), allow_nan=False)
    assert json.loads(text)["labels"][0] == {
        "id": 7,
        "name": "aorta",
        "dice": None,
        "jaccard": None,
        "hd95_mm": None,
        "surface_dice": None,
        "mask_voxels": 0,
        "reference_voxels": 0,
    }
    assert metrics.RULE["leave-out"] in text


@dataclass(frozen=True)
class Bad:
    mask: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    exclude: tuple[int, ...]
    says: str


OK = np.zeros((3, 4, 4), np.uint8)


@pytest.mark.parametrize(
    "bad",
    [
        Bad(OK, OK[:2], (), "different shapes"),
        Bad(OK.astype(np.int32), OK, (), "uint8"),
        Bad(OK[0], OK[0], (), "3 axes"),
        Bad(OK, OK, (3,), "no slice 3"),
        Bad(OK, OK, (-1,), "no slice -1"),
        Bad(OK, OK, (0, 1, 2), "every slice is excluded"),
    ],
    ids=lambda bad: bad.says,
)
def test_wrong_use_is_named(bad):
    with pytest.raises(MetricsError, match=bad.says):
        evaluate(bad.mask, bad.reference, SPACING, (LIVER,), exclude_slices=bad.exclude)
