"""Overlap and surface metrics of a mask against a reference, and the one rule for absent labels.

Labels are judged on the *evaluated* slices, which are all slices except those in
``exclude_slices`` (the painted ones: a user's own paint is no achievement of the network).

The rule for absent labels (:data:`RULE`), used everywhere in this project:

====================  ==================  =====================================================
reference             mask                counts as
====================  ==================  =====================================================
absent                absent              nothing: left out of every mean
absent                present             0 for Dice, Jaccard and surface Dice; no HD95
present               absent              0 for Dice, Jaccard and surface Dice; no HD95
present               present             its true figures
====================  ==================  =====================================================

With ``absent="papers"`` a label absent from both counts 0 as well, which is how the papers' mean
over 13 organs treats their "NA" entries. HD95 stays undefined there: a distance of 0 would be
praise.

Surfaces next to an excluded slice need a rule too. Excluded slices are taken from the reference
in both masks, as known truth, so it does not matter what `mask` holds there, no organ is cut open
and no cap invented. Surface voxels in excluded slices are not counted, but a counted one may be
nearest to one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.io.errors import UserError

if TYPE_CHECKING:
    from napari_diffseg.io.labels import Label

Absent = Literal["leave-out", "papers"]
TOLERANCE_MM = 2.0
RULE: dict[str, str] = {
    "leave-out": (
        "a label absent from both masks is left out of the mean; a label in only one of them "
        "counts 0 (its HD95 is undefined and left out)"
    ),
    "papers": (
        "a label absent from both masks counts 0, as the papers count NA; a label in only one of "
        "them counts 0 (HD95 is undefined for both and left out)"
    ),
}


class MetricsError(UserError):
    """Two masks cannot be compared."""


@dataclass(frozen=True)
class Scores:
    """Four figures of one label, or their means.

    ``dice``, ``jaccard`` and ``surface_dice`` lie in 0..1, ``hd95`` is in mm; NaN is undefined.
    """

    dice: float
    jaccard: float
    hd95: float
    surface_dice: float


@dataclass(frozen=True)
class LabelScores(Scores):
    """The figures of one label, with its size in both masks (voxels, evaluated slices)."""

    label: Label
    mask_voxels: int
    reference_voxels: int


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    ``mean`` averages each figure over the labels that have it; ``rule`` says in words how absent
    labels counted; ``slices`` is the number of evaluated slices.
    """

    scores: tuple[LabelScores, ...]
    mean: Scores
    rule: str
    slices: int
    tolerance_mm: float

    def to_json(self) -> dict[str, Any]:
        """Return plain types for ``json.dumps``; undefined figures become ``None``."""
        return {
            "labels": [
                {"id": s.label.id, "name": s.label.name, **_figures(s)}
                | {"mask_voxels": s.mask_voxels, "reference_voxels": s.reference_voxels}
                for s in self.scores
            ],
            "mean": _figures(self.mean),
            "rule": self.rule,
            "slices": self.slices,
            "surface_dice_tolerance_mm": self.tolerance_mm,
        }


def _figures(scores: Scores) -> dict[str, float | None]:
    names = {
        "dice": "dice",
        "jaccard": "jaccard",
        "hd95": "hd95_mm",
        "surface_dice": "surface_dice",
    }
    figures = {key: getattr(scores, name) for name, key in names.items()}
    return {key: None if math.isnan(value) else value for key, value in figures.items()}


def confusion(mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pairs of values in two masks.

    Parameters
    ----------
    mask, reference : uint8 arrays of one shape
        Label ids; the first axis is walked a slice at a time, so that memory does not grow with
        the volume.

    Returns
    -------
    int64 array (n, n)
        ``[i, j]`` is the number of voxels that are ``i`` in `mask` and ``j`` in `reference`;
        ``n`` is the largest id in either plus one.

    Raises
    ------
    MetricsError
        The shapes differ or the masks are not uint8.
    """
    _check(mask, reference)
    if mask.size == 0:
        return np.zeros((1, 1), np.int64)
    n = max(int(mask.max()), int(reference.max())) + 1
    counts = np.zeros(n * n, np.int64)
    if mask.ndim < 3:
        mask, reference = mask[None], reference[None]
    for a, b in zip(mask, reference, strict=True):
        pairs = a.astype(np.uint16) * np.uint16(n) + b  # 256 * 256 - 1 fits uint16
        counts += np.bincount(pairs.ravel(), minlength=n * n)
    return counts.reshape(n, n)


def dice(
    mask: NDArray[np.uint8], reference: NDArray[np.uint8], ids: Iterable[int] | None = None
) -> dict[int, float]:
    """Return the Dice of each label, fast, for arrays of any number of axes.

    Parameters
    ----------
    mask, reference : uint8 arrays of one shape
    ids : label ids; default all non-zero ids that occur in either

    Returns
    -------
    dict
        Label id -> Dice; NaN where the label is in neither mask.

    Examples
    --------
    >>> dice(np.array([0, 1, 1], np.uint8), np.array([0, 0, 1], np.uint8))
    {1: 0.6666666666666666}
    """
    counts = confusion(mask, reference)
    if ids is None:
        ids = (int(i) for i in np.flatnonzero(counts.sum(0) + counts.sum(1)) if i != 0)
    return {i: _overlap(counts, i)[0] for i in ids}


def mean_of(values: Iterable[float]) -> float:
    """Average the figures that are defined; NaN when none is.

    Examples
    --------
    >>> mean_of([0.5, math.nan, 1.0])
    0.75
    """
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def evaluate(
    mask: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    spacing: Sequence[float],
    labels: Sequence[Label],
    exclude_slices: Iterable[int] = (),
    absent: Absent = "leave-out",
    tolerance_mm: float = TOLERANCE_MM,
) -> Evaluation:
    """Compare `mask` with `reference` label by label.

    Parameters
    ----------
    mask, reference : uint8 (z, y, x)
    spacing : voxel size in mm, in (z, y, x) order
    labels : the labels to report, 0 excluded
    exclude_slices : indices along z that do not count (the painted slices)
    absent : how a label absent from both masks counts, see :data:`RULE`
    tolerance_mm : a surface voxel this near to the other surface is right (surface Dice)

    Returns
    -------
    Evaluation
        HD95 is the larger of the two directed 95th percentiles. Surface voxels are those that a
        6-connected erosion takes away (MONAI's definition without sub-voxels).

    Raises
    ------
    MetricsError
        Shapes differ, a slice index does not exist, or no slice is left.
    """
    if mask.ndim != 3:
        raise MetricsError(f"a mask needs 3 axes (z, y, x), not {mask.ndim}")
    _check(mask, reference)
    kept = np.ones(mask.shape[0], bool)
    for z in exclude_slices:
        if not 0 <= z < len(kept):
            raise MetricsError(f"there is no slice {z}: the volume has 0..{len(kept) - 1}")
        kept[z] = False
    if not kept.any():
        raise MetricsError("every slice is excluded: nothing is left to evaluate")
    counts = confusion(mask[kept], reference[kept])
    mask = np.where(kept[:, None, None], mask, reference)

    scores = []
    for label in labels:
        dsc, jaccard = _overlap(counts, label.id)
        known = label.id < len(counts)
        a = int(counts[label.id].sum()) if known else 0
        b = int(counts[:, label.id].sum()) if known else 0
        hd95, surface = math.nan, math.nan
        if a and b:
            hd95, surface = _surface(
                mask == label.id, reference == label.id, kept, spacing, tolerance_mm
            )
        elif a or b:
            surface = 0.0
        elif absent == "papers":
            dsc = jaccard = surface = 0.0
        scores.append(LabelScores(dsc, jaccard, hd95, surface, label, a, b))
    names = (field.name for field in fields(Scores))
    mean = Scores(*(mean_of(getattr(s, name) for s in scores) for name in names))
    return Evaluation(tuple(scores), mean, RULE[absent], int(kept.sum()), tolerance_mm)


def _check(mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> None:
    if mask.shape != reference.shape:
        raise MetricsError(
            f"the masks have different shapes {mask.shape} and {reference.shape}: "
            "bring both to one grid first"
        )
    if mask.dtype != np.uint8 or reference.dtype != np.uint8:
        raise MetricsError(f"the masks must be uint8, not {mask.dtype} and {reference.dtype}")


def _overlap(counts: NDArray[np.int64], label: int) -> tuple[float, float]:
    """Return Dice and Jaccard of one label from a confusion matrix; NaN when in neither mask."""
    if label >= len(counts):
        return math.nan, math.nan
    both = int(counts[label, label])
    total = int(counts[label].sum() + counts[:, label].sum())
    return (2 * both / total, both / (total - both)) if total else (math.nan, math.nan)


def _surface(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    spacing: Sequence[float],
    tolerance_mm: float,
) -> tuple[float, float]:
    """Return HD95 (mm) and surface Dice of two boolean volumes that are both non-empty."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    (box,) = ndimage.find_objects((a | b).view(np.int8))
    # MONAI's own crop pads by a voxel; ours keeps z aligned with `kept`.
    edges_a, edges_b = get_mask_edges(a[box], b[box], crop=False)
    counted = kept[box[0], None, None]
    near = [
        np.asarray(get_surface_distance(ours & counted, other, spacing=tuple(spacing)))
        for ours, other in ((edges_a, edges_b), (edges_b, edges_a))
    ]
    hd95 = max(float(np.percentile(distance, 95)) for distance in near)
    right = sum(int((distance <= tolerance_mm).sum()) for distance in near)
    return hd95, right / sum(len(distance) for distance in near)
