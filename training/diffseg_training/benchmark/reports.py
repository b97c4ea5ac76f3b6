"""What is written after a sweep: Markdown, CSV and figures, all from its JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from diffseg_training.benchmark import figures, patients, profiles, tables
from diffseg_training.benchmark.datasets import find_names, find_scans, labels_of
from diffseg_training.benchmark.in_volume import report, title_of
from diffseg_training.benchmark.sweeps import read_rows
from napari_diffseg.io.files import atomic_write


class ReportError(ValueError):
    """There is nothing to report."""


def write_reports(folder: Path) -> Iterator[Path]:
    """Write the tables and curves of a sweep's folder, and yield each path.

    Raises
    ------
    ReportError
        If the folder holds no rows.
    """
    rows = read_rows(folder / "rows.jsonl")
    if not rows:
        raise ReportError(f"{folder}: holds no rows.jsonl with rows; run a sweep first")
    yield write_text(folder / "rows.csv", tables.to_csv(rows))
    within = [row for row in rows if row["protocol"] not in ("cross-patient", "patients")]
    if within:
        yield write_text(folder / "in-volume.md", report(within))
    inside = [row for row in rows if row["protocol"] == "in-volume"]
    across = [row for row in rows if row["protocol"] == "cross-patient"]
    if across:
        papers = all(map(profiles.as_in_the_papers, across))
        yield write_text(folder / "papers.md", profiles.report(across, published=papers))
    further = [row for row in rows if row["protocol"] == "patients"]
    if further:
        titles = {row["method"]: title_of(row["method"]) for row in further}
        yield write_text(folder / "patients.md", patients.report(further, titles))
        for slices, own in patients.by_patients(further).items():
            path = folder / f"dice-patients-{slices}.png"
            figures.curve(own, "patients", path, title_of)
            yield path
    for (test, count), own in tables.by_test(tables.finished(inside), "slices").items():
        if any(row["budget"] is not None for row in own):
            path = folder / f"dice-seconds-{test}-{count}.png"
            figures.curve(own, "budget", path, title_of)
            yield path
    for (test,), own in tables.by_test(tables.finished(inside)).items():
        if len({row["slices"] for row in own}) > 1:
            path = folder / f"dice-slices-{test}.png"
            figures.curve(own, "slices", path, title_of)
            yield path


def write_panels(
    folder: Path,
    volumes: Sequence[Path],
    methods: Sequence[str] | None = None,
    slices: Sequence[int] | None = None,
) -> Iterator[Path]:
    """Draw the kept masks of a sweep, one figure for each split, and yield each path.

    Parameters
    ----------
    folder
        Folder of a sweep that kept its masks.
    volumes
        The labelled scans.
    methods
        Columns; every method with a mask by default.
    slices
        Rows; by default three tested slices, at a quarter, half and three quarters of them.
    """
    scans = {files.name: files.read() for files in find_scans(volumes)}
    labels = labels_of(scans.values(), find_names(volumes))
    rows = tables.finished(read_rows(folder / "rows.jsonl"))
    for (split,), own in tables.grouped(rows, "split").items():
        masks: dict[str, dict[str, tables.Row]] = {}
        for row in own:
            if (folder / "masks" / f"{row['key']}.npz").exists() and (
                methods is None or row["method"] in methods
            ):
                for scan in set(row["test"]) & set(scans):
                    # Of several seeds and budgets the last in the file is drawn.
                    masks.setdefault(scan, {})[title_of(row["method"])] = row
        for scan, columns in masks.items():
            drawn = {
                title: np.load(folder / "masks" / f"{row['key']}.npz")[scan]
                for title, row in columns.items()
            }
            first = next(iter(columns.values()))
            painted = set(first["painted"].get(scan, []))
            labelled = np.flatnonzero(scans[scan].reference.any(axis=(1, 2)))
            free = [int(z) for z in labelled if int(z) not in painted]
            shown = slices or [free[len(free) * n // 4] for n in (1, 2, 3)]
            path = folder / f"panels-{scan}-{split}.png"
            figures.panels(scans[scan], labels, drawn, shown, path)
            yield path


def write_text(path: Path, text: str) -> Path:
    """Write a file so that it is never half there."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
