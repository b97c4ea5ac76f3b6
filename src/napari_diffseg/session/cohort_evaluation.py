"""Compare a folder of masks with a folder of references, patient by patient."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from napari_diffseg.engine.intervals import LEVEL, Interval, bootstrap
from napari_diffseg.engine.metrics import Absent, Evaluation, Scores, evaluate
from napari_diffseg.io.errors import UserError
from napari_diffseg.io.files import atomic_write
from napari_diffseg.io.finding import case_name, files_in
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Overlap, labels_for, unnamed
from napari_diffseg.io.volume import LABEL_ENDINGS, read_labels, read_volume

MEAN = "mean"
"""Stands for a label in tables: the mean over all labels of a case."""
_COLUMNS = {
    "dice": "dice",
    "jaccard": "jaccard",
    "hd95": "hd95_mm",
    "surface_dice": "surface_dice",
}


class EvaluateError(UserError):
    """Masks cannot be compared."""


@dataclass(frozen=True)
class Pairs:
    """Masks and references that belong together.

    Attributes
    ----------
    both
        ``(mask, reference)`` by name of the case.
    without_reference, without_mask
        Names of the cases that have only one of them.
    """

    both: Mapping[str, tuple[Path, Path]]
    without_reference: tuple[str, ...]
    without_mask: tuple[str, ...]


def find_pairs(masks: Path, references: Path) -> Pairs:
    """Pair the label files of two folders by name, without ending and nnU-Net's ``_0000``.

    Raises
    ------
    EvaluateError
        If no names agree, or a folder has two files of one name.
    """
    ours, theirs = _by_name(masks), _by_name(references)
    both = {name: (ours[name], theirs[name]) for name in ours if name in theirs}
    if not both:
        raise EvaluateError(
            f"{masks}: no mask has the name of one in {references}; they are paired by name"
        )
    return Pairs(
        both,
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
    )


def _by_name(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files_in(folder, LABEL_ENDINGS):
        name = case_name(path)
        if name in found:
            raise EvaluateError(f"{path}: {found[name].name} is the same case; keep one of them")
        found[name] = path
    if not found:
        raise EvaluateError(f"{folder}: holds no label files; choose a folder of masks")
    return found


def evaluate_pair(
    mask: Path,
    reference: Path,
    names: Mapping[int, str] | None = None,
    exclude_slices: Sequence[int] = (),
    absent: Absent = "leave-out",
    overlap: Overlap = "last",
) -> Evaluation:
    """Compare two label files on their common grid.

    Parameters
    ----------
    mask, reference
        Label files; either may be stored in another order of axes.
    names
        Names of labels by id, which win over those in the files.
    exclude_slices, absent
        As for :func:`~napari_diffseg.engine.metrics.evaluate`.
    overlap
        Which label wins where several lie.

    Raises
    ------
    ValueError
        If a file cannot be read, the grids differ, or neither holds a label.
    """
    geometry = common_grid(reference, mask)
    right = read_labels(reference, geometry, overlap=overlap)
    ours = read_labels(mask, geometry, overlap=overlap)
    known = {label.id: label for label in ours.labels}
    for label in right.labels:
        if label.name != unnamed(label.id) or label.id not in known:
            known[label.id] = label
    labels = labels_for([*known, *(names or {})], known.values(), names)
    if not labels:
        raise EvaluateError(f"{reference}: neither mask holds a label; nothing to compare")
    return evaluate(ours.mask, right.mask, geometry.spacing, labels, exclude_slices, absent)


def common_grid(*paths: Path) -> Geometry:
    """Return the grid of the first file that is a whole volume (DICOM-SEG, for one, is not)."""
    errors = []
    for path in paths:
        try:
            return read_volume(path).geometry
        except VolumeError as error:
            errors.append(error)
    raise errors[0]


@dataclass(frozen=True)
class CohortEvaluation:
    """Figures of many cases.

    Attributes
    ----------
    cases
        Evaluation by name of the case.
    resamples, seed
        Of the bootstrap.
    """

    cases: Mapping[str, Evaluation]
    resamples: int
    seed: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of all labels, by id."""
        ids = {s.label.name: s.label.id for e in self.cases.values() for s in e.scores}
        return tuple(sorted(ids, key=lambda name: ids[name]))

    def interval(self, label: str, figure: str) -> Interval:
        """Mean of a figure (a field of :class:`Scores`) over the cases that have it."""
        values = [getattr(one, figure) for one in self._of(label)]
        return bootstrap(values, self.resamples, self.seed)

    def _of(self, label: str) -> Iterator[Scores]:
        for one in self.cases.values():
            if label == MEAN:
                yield one.mean
            else:
                yield from (scores for scores in one.scores if scores.label.name == label)

    def to_json(self) -> dict[str, Any]:
        """Return plain types for ``json.dumps``; undefined figures become ``None``."""
        return {
            "cases": {name: one.to_json() for name, one in self.cases.items()},
            "labels": {
                label: {
                    column: _interval(self.interval(label, figure))
                    for figure, column in _COLUMNS.items()
                }
                for label in (*self.labels, MEAN)
            },
            "confidence": LEVEL,
            "resamples": self.resamples,
            "seed": self.seed,
        }

    def write_csv(self, path: Path) -> None:
        """Write a row for each case and label, then means and ends of the intervals.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            head = ["case", "label", *_COLUMNS.values(), "mask_voxels", "reference_voxels"]
            writer.writerow(head)
            for name, one in self.cases.items():
                for scores in one.scores:
                    sizes = [scores.mask_voxels, scores.reference_voxels]
                    writer.writerow([name, scores.label.name, *_cells(scores), *sizes])
                writer.writerow([name, MEAN, *_cells(one.mean), "", ""])
            for label in (*self.labels, MEAN):
                intervals = [self.interval(label, figure) for figure in _COLUMNS]
                for row, key in (("mean", "mean"), ("95 % low", "low"), ("95 % high", "high")):
                    ends = [_blank(getattr(one, key)) for one in intervals]
                    writer.writerow([f"({row})", label, *ends, "", ""])


def _cells(scores: Scores) -> list[float | str]:
    return [_blank(getattr(scores, field.name)) for field in fields(Scores)]


def _blank(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 6)


def _interval(found: Interval) -> dict[str, float | int | None]:
    ends = {"mean": found.mean, "low": found.low, "high": found.high}
    plain = {key: None if math.isnan(value) else value for key, value in ends.items()}
    return {**plain, "cases": found.cases}
