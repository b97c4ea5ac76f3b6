"""Two masks of one CT: how far two readers, or a reader and a model, agree."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.metrics import LabelScores, confusion, evaluate
from napari_diffseg.io.labels import MAX_LABEL, Label, LabelMap, labels_for, unnamed


@dataclass(frozen=True)
class LabelAgreement:
    """Agreement on one label: the metrics of :mod:`.metrics`, and Cohen's kappa over all voxels."""

    scores: LabelScores
    kappa: float


@dataclass(frozen=True)
class SliceAgreement:
    """Agreement on one slice.

    Attributes
    ----------
    z
        Slice.
    differing_mm2
        Area of the pixels whose labels differ.
    dice
        Of all labelled pixels: twice those with the same label in both, by those of both.
    """

    z: int
    differing_mm2: float
    dice: float


@dataclass(frozen=True)
class Agreement:
    """What :func:`compare` found; slices that differ most come first, equal ones are left out."""

    labels: tuple[LabelAgreement, ...]
    slices: tuple[SliceAgreement, ...]

    def labels_csv(self) -> str:
        """Write a row for each label; undefined figures are empty."""
        rows = [
            (
                *(a.scores.label.id, a.scores.label.name),
                *(a.scores.mask_voxels, a.scores.reference_voxels),
                *map(_text, (a.scores.dice, a.scores.hd95, a.scores.surface_dice, a.kappa)),
            )
            for a in self.labels
        ]
        head = ("id", "label", "voxels A", "voxels B", "Dice", "HD95 mm", "surface Dice", "kappa")
        return _csv(head, rows)

    def slices_csv(self) -> str:
        """Write a row for each slice that differs, the most different first."""
        rows = [(s.z, round(s.differing_mm2, 2), _text(s.dice)) for s in self.slices]
        return _csv(("slice", "differing mm2", "Dice"), rows)


def matched(a: LabelMap, b: LabelMap) -> tuple[NDArray[np.uint8], tuple[Label, ...]]:
    """Give the labels of `b` the ids that labels of the same name have in `a`.

    Labels without a name are the same if their ids are.

    Returns
    -------
    The mask of `b` with these ids, and the labels of both.

    Raises
    ------
    ValueError
        If they have more than 254 labels together.
    """
    names = {label.name.strip().lower(): label.id for label in a.labels}
    taken = {label.id for label in a.labels}
    nameless = {label.id for label in a.labels if label.name == unnamed(label.id)}
    table = np.zeros(256, np.uint8)
    more = []
    for label in b.labels:
        same = names.get(label.name.strip().lower())
        if same is None and label.id in taken:
            plain = label.name == unnamed(label.id)
            same = label.id if plain or label.id in nameless else None
        if same is None:
            free = (i for i in (label.id, *range(1, MAX_LABEL + 1)) if i not in taken)
            same = next(free, None)
            if same is None:
                raise ValueError(f"the masks have more than {MAX_LABEL} labels together")
            taken.add(same)
            more.append(Label(same, label.name, label.colour))
        elif label.name != unnamed(label.id) and same in nameless:
            more.append(Label(same, label.name, label.colour))
        table[label.id] = same
    known = {label.id: label for label in (*a.labels, *more)}
    return table[b.mask], labels_for(known, known.values())


def compare(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    spacing: Sequence[float],
    labels: Sequence[Label],
) -> Agreement:
    """Compare two masks label by label and slice by slice.

    Parameters
    ----------
    a, b
        uint8 ``(z, y, x)`` with the same ids; see :func:`matched`.
    spacing
        Voxel size ``(z, y, x)`` in mm.
    labels
        The labels to report.

    Raises
    ------
    MetricsError
        If the shapes differ.

    Notes
    -----
    Kappa is that of Cohen, "A coefficient of agreement for nominal scales", Educational and
    Psychological Measurement 20 (1960), for *is this label* against *is not* over all voxels. It
    nears Dice where a label fills little of the volume.
    """
    scores = evaluate(a, b, spacing, labels).scores
    counts = confusion(a, b)
    found = tuple(LabelAgreement(one, _kappa(counts, one.label.id)) for one in scores)
    area = float(spacing[1] * spacing[2])
    slices = []
    for z, (one, other) in enumerate(zip(a, b, strict=True)):
        differing = int((one != other).sum())
        if differing:
            same = int(((one == other) & (one != 0)).sum())
            total = int((one != 0).sum() + (other != 0).sum())
            slices.append(SliceAgreement(z, differing * area, 2 * same / total))
    slices.sort(key=lambda s: -s.differing_mm2)
    return Agreement(found, tuple(slices))


def _kappa(counts: NDArray[np.int64], label_id: int) -> float:
    """Cohen's kappa of one label; NaN where it is in neither mask, or everywhere in both."""
    n = float(counts.sum())
    if label_id >= len(counts) or n == 0:
        return math.nan
    both = float(counts[label_id, label_id])
    in_a, in_b = float(counts[label_id].sum()), float(counts[:, label_id].sum())
    observed = (n - in_a - in_b + 2 * both) / n
    expected = (in_a * in_b + (n - in_a) * (n - in_b)) / n**2
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    return text.getvalue()
