"""What is written after a sweep: Markdown, CSV and figures, all from its JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from diffseg_training.benchmark import figures, tables
from diffseg_training.benchmark.arena import report, title_of
from diffseg_training.benchmark.sweeps import read_rows


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
    yield _write(folder / "rows.csv", tables.to_csv(rows))
    inside = [row for row in rows if row["protocol"] == "in-volume"]
    if inside:
        yield _write(folder / "arena.md", report(inside))
    for (test, count), own in _split(tables.finished(inside)).items():
        if any(row["budget"] is not None for row in own):
            path = folder / f"dice-seconds-{test}-{count}.png"
            figures.curve(own, "budget", path, title_of)
            yield path
    for (test,), own in tables.grouped(
        [{**row, "where": "+".join(row["test"])} for row in tables.finished(inside)], "where"
    ).items():
        if len({row["slices"] for row in own}) > 1:
            path = folder / f"dice-slices-{test}.png"
            figures.curve(own, "slices", path, title_of)
            yield path


def _split(rows: list[tables.Row]) -> dict[tuple[str, int], list[tables.Row]]:
    groups: dict[tuple[str, int], list[tables.Row]] = {}
    for row in rows:
        groups.setdefault(("+".join(row["test"]), row["slices"]), []).append(row)
    return groups


def _write(path: Path, text: str) -> Path:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path
