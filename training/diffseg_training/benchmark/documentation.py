"""Pages, pictures and the README's table, made again from the rows that are in the repository."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from diffseg_training.benchmark.publish import publish
from diffseg_training.benchmark.reports import ReportError, write_text
from diffseg_training.benchmark.sweeps import read_rows
from diffseg_training.benchmark.tables import Row, finished, spread

ROWS = "in-volume.jsonl"
"""Rows of which the README has figures."""

_VOLUMES = {
    "lidc-idri-0001": "LIDC-IDRI-0001 (the sample)",
    "totalseg-example": "TotalSegmentator example",
}
_BUDGET = 60.0  # nominal seconds
_METHODS = {
    "ours": "**napari-diffseg, 4 painted slices**",
    "app-scratch": "the same beside a network from scratch",
    "random-walker": "3D random walker",
    "registration": "registration from slice to slice",
    "shape-interpolation": "shape interpolation",
    "nearest-copy": "copy of the nearest painted slice",
}
_OTHERS = ("random-walker", "registration", "shape-interpolation", "nearest-copy")
_BLOCK = re.compile(
    r"(<!-- FIGURES: begin.*?\n)(?:\|[^\n]*\n)+(.*?<!-- FIGURES: end -->)", re.DOTALL
)


def renew(docs: Path, readme: Path) -> Iterator[Path]:
    """Write every page of `docs` that has rows, and the table in `readme`, and yield each path.

    Parameters
    ----------
    docs
        Folder with ``NAME.jsonl``; gets ``NAME.md`` and its figures.
    readme
        Markdown file with a table between ``<!-- FIGURES: begin`` and ``<!-- FIGURES: end -->``.

    Raises
    ------
    ReportError
        If there are no rows, or the README has no such table.
    """
    pages = sorted(docs.glob("*.jsonl"))
    if docs / ROWS not in pages:
        raise ReportError(f"{docs / ROWS}: not found; name the folder with --docs")
    for rows in pages:
        yield from publish(rows, docs, rows.stem)
    text = readme.read_text(encoding="utf-8")
    if not _BLOCK.search(text):
        raise ReportError(f"{readme}: has no table between FIGURES: begin and FIGURES: end")
    table = readme_table(read_rows(docs / ROWS))
    yield write_text(readme, _BLOCK.sub(lambda found: found[1] + table + found[2], text))


def readme_table(rows: Sequence[Row]) -> str:
    """Mean Dice of the methods on both volumes, with deviations over the seeds."""
    lines = [["", *_VOLUMES.values()]]
    lines += [[title, *_cells(rows, method, 4)] for method, title in _METHODS.items()]
    lines.append(["**napari-diffseg, 8 painted slices**", *_cells(rows, "ours", 8)])
    best = max(_OTHERS, key=lambda name: np.mean(_dice(rows, name, 8, *_VOLUMES)))
    lines.append([f"best of the others with 8 ({best})", *_cells(rows, best, 8)])
    text = ["| " + " | ".join(_bold(line)) + " |" for line in lines]
    text[0] = text[0].replace("|  |", "| |", 1)
    text.insert(1, "|" + "---|" * len(lines[0]))
    return "\n".join(text) + "\n"


def _cells(rows: Sequence[Row], method: str, slices: int) -> list[str]:
    return [spread(_dice(rows, method, slices, volume)) for volume in _VOLUMES]


def _dice(rows: Sequence[Row], method: str, slices: int, *volumes: str) -> list[float]:
    return [
        row["dice"]
        for row in finished(rows)
        if (row["protocol"], row["method"], row["slices"]) == ("in-volume", method, slices)
        and row["budget"] in (None, _BUDGET)
        and row["test"][0] in volumes
    ]


def _bold(line: Sequence[str]) -> list[str]:
    """All cells of a line in bold where its title is."""
    title, *cells = line
    return [title, *(f"**{cell}**" if title.startswith("**") else cell for cell in cells)]
