"""The table of a cohort's predictions: what was found, and which cases to look at first."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from napari_diffseg.io.files import atomic_write
from napari_diffseg.io.voxels import read_text
from napari_diffseg.network.card import package_version

TABLE = "predictions"
"""Name of the table in the folder of the masks, as ``.csv`` and ``.json``."""
_FORMAT = "napari-diffseg predictions 1"
_ENOUGH = 3  # cases with a label, from which on its volume can be unusual
_LEAST_SPREAD = 0.1  # of log volumes: organs differ by a tenth at least

Status = Literal["predicted", "present", "failed", "not reached"]


@dataclass(frozen=True)
class LabelFigures:
    """What was predicted of one label in one case.

    Attributes
    ----------
    name
        Of the label.
    ml
        Volume; 0 where the label was not found.
    confidence
        Mean over its voxels, in percent; ``None`` where the label was not found.
    """

    name: str
    ml: float
    confidence: float | None


@dataclass(frozen=True)
class CaseResult:
    """One row of the table.

    Attributes
    ----------
    case
        Name of the case.
    source, mask
        File names of volume and mask, without folders.
    status
        ``predicted``; ``present``, when an equal mask was there already; ``failed``; or ``not
        reached`` before the run was stopped.
    labels
        Figures of each label of the model; empty when nothing was predicted.
    slices
        Of the volume.
    seconds
        That reading, predicting and writing took.
    error
        Why it failed, in a sentence.
    notes
        What is doubtful about the volume.
    model_sha256, volume_sha256, mask_sha256
        Fingerprints of what the mask was made by and from, and of the mask as it was written.
    adapted
        Whether the model was adapted to the volume first.
    """

    case: str
    source: str
    mask: str
    status: Status
    labels: tuple[LabelFigures, ...] = ()
    slices: int = 0
    seconds: float = 0.0
    error: str = ""
    notes: tuple[str, ...] = ()
    model_sha256: str = ""
    volume_sha256: str = ""
    mask_sha256: str = ""
    adapted: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CaseResult:
        """Make a row from what :func:`dataclasses.asdict` and JSON made of it."""
        own = {name: values[name] for name in cls.__dataclass_fields__}
        labels = tuple(LabelFigures(**one) for one in values["labels"])
        return cls(**own | {"labels": labels, "notes": tuple(values["notes"])})


@dataclass(frozen=True)
class Attention:
    """How much a case needs a look, 0 to 1, and why."""

    score: float
    why: str


def attention(results: Sequence[CaseResult]) -> tuple[Attention, ...]:
    """Say how much each case needs a look.

    A case is judged by its most doubtful label. A label that was not found counts the share of the
    other cases that have it. One that was found counts the larger of two figures: what its mean
    confidence lacks to 100 %, and ``z / (z + 3)``, where ``z`` is how far the logarithm of its
    volume lies from the cohort's median, in robust standard deviations (1.4826 times the median
    absolute deviation). A case that failed counts 1.

    Parameters
    ----------
    results
        The rows of the table.

    Returns
    -------
    One for each row, in their order.

    Examples
    --------
    >>> def row(ml, sure):
    ...     return CaseResult("a", "", "", "predicted", (LabelFigures("liver", ml, sure),))
    >>> for found in attention([row(1500, 90), row(1450, 80), row(1600, 90), row(100, 90)]):
    ...     print(f"{found.score:.2f} {found.why}")
    0.10 liver: confidence 90 %
    0.20 liver: confidence 80 %
    0.21 liver: 1600 ml, median 1475 ml
    0.90 liver: 100 ml, median 1475 ml
    """
    known = _Cohort(results)
    return tuple(_attention(result, known) for result in results)


class _Cohort:
    """Volumes of each label over all cases that were predicted."""

    def __init__(self, results: Iterable[CaseResult]) -> None:
        self.ml: dict[str, list[float]] = {}
        self.cases: dict[str, int] = {}
        for result in results:
            for one in result.labels:
                self.cases[one.name] = self.cases.get(one.name, 0) + 1
                self.ml.setdefault(one.name, []).extend([one.ml] if one.ml else [])

    def others_with(self, name: str) -> float:
        """Share of the other cases that have a label which a case lacks."""
        return len(self.ml[name]) / max(self.cases[name] - 1, 1)

    def deviation(self, name: str, ml: float) -> float:
        """Robust standard deviations between a volume and the median, both as logarithms."""
        if len(self.ml[name]) < _ENOUGH:
            return 0.0
        logs = [math.log(value) for value in self.ml[name]]
        middle = median(logs)
        spread = 1.4826 * median(abs(value - middle) for value in logs)
        return abs(math.log(ml) - middle) / max(spread, _LEAST_SPREAD)


def _attention(result: CaseResult, known: _Cohort) -> Attention:
    if result.status == "failed":
        return Attention(1.0, result.error)
    if not result.labels:
        return Attention(0.0, "")
    if not any(one.ml for one in result.labels):
        return Attention(1.0, "no label was found")
    doubts = []
    for one in result.labels:
        if not one.ml or one.confidence is None:
            have, of = len(known.ml[one.name]), known.cases[one.name]
            why = f"{one.name}: not found, in {have} of {of} cases it was"
            doubts.append((known.others_with(one.name), why))
            continue
        z = known.deviation(one.name, one.ml)
        middle = median(known.ml[one.name])
        doubts.append((1 - one.confidence / 100, f"{one.name}: confidence {one.confidence:.0f} %"))
        doubts.append((z / (z + 3), f"{one.name}: {_ml(one.ml)}, median {_ml(middle)}"))
    score, why = max(doubts)
    return Attention(round(score, 4), why)


def ordered(results: Sequence[CaseResult]) -> list[tuple[CaseResult, Attention]]:
    """Rows with the cases that need a look most first: failed ones, then by attention."""
    order = {"failed": 0, "predicted": 1, "present": 1, "not reached": 2}
    rows = zip(results, attention(results), strict=True)
    return sorted(rows, key=lambda row: (order[row[0].status], -row[1].score, row[0].case))


def write_table(folder: Path, results: Sequence[CaseResult]) -> None:
    """Write the table as CSV and JSON, each whole or not at all.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    rows = ordered(results)
    names = list(dict.fromkeys(one.name for result in results for one in result.labels))
    known = _Cohort(results)
    content = {
        "format": _FORMAT,
        "version": package_version(),
        "median_ml": {name: median(known.ml[name]) if known.ml[name] else None for name in names},
        "cases": [
            {**asdict(result), "attention": found.score, "why": found.why} for result, found in rows
        ],
    }
    with atomic_write(folder / f"{TABLE}.json") as part:
        text = json.dumps(content, indent=1, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    with (
        atomic_write(folder / f"{TABLE}.csv") as part,
        part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream)
        figures = [f"{name} {what}" for name in names for what in ("ml", "confidence %")]
        head = ["case", "status", "attention", "why", "seconds", "slices", *figures]
        writer.writerow([*head, "error", "notes", "source", "mask"])
        for result, found in rows:
            by_name = {one.name: one for one in result.labels}
            cells: list[object] = []
            for name in names:
                one = by_name.get(name)
                cells += ["", ""] if one is None else [one.ml, _blank(one.confidence)]
            start = [result.case, result.status, found.score, found.why, result.seconds]
            rest = [result.error, "; ".join(result.notes), result.source, result.mask]
            writer.writerow([*start, result.slices or "", *cells, *rest])


def read_table(folder: Path) -> tuple[CaseResult, ...]:
    """Read the rows of a folder's table; none where there is no table.

    Raises
    ------
    ValueError
        If the file is not such a table.
    """
    path = folder / f"{TABLE}.json"
    if not path.exists():
        if (folder / f"{TABLE}.csv").exists():
            raise ValueError(f"{folder / TABLE}.csv: is of another program; choose another folder")
        return ()
    try:
        content = json.loads(read_text(path))
        if content["format"] != _FORMAT:
            raise ValueError(content["format"])
        return tuple(CaseResult.from_json(values) for values in content["cases"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: is of another program or damaged; move it away or choose another folder"
        ) from error


def _ml(volume: float) -> str:
    return f"{volume:.0f} ml" if volume >= 10 else f"{volume:.2g} ml"


def _blank(value: float | None) -> float | str:
    return "" if value is None else value
