"""Sweeps: many rows, one JSON line each, resumable, on this machine or on a Dask cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from diffseg_training.benchmark.rows import RowSpec, run_row

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read JSON lines, the last one of a key winning; a line cut off by a crash is left out."""
    rows: dict[str, Row] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows.pop(row["key"], None)
            rows[row["key"]] = row
    return list(rows.values())


def sweep(
    specs: Sequence[RowSpec],
    path: Path,
    masks: Path | None = None,
    limit: float | None = None,
    retry: bool = False,
    dask: str | None = None,
) -> Iterator[Row]:
    """Run the rows that are not in the file yet, and append each as it is done.

    Parameters
    ----------
    specs
        Rows to run.
    path
        JSON lines file.
    masks
        Folder for predicted masks.
    limit
        Seconds a row may take.
    retry
        Run rows again that failed the last time.
    dask
        Address of a Dask scheduler whose workers see the same files; by default rows run here,
        one after the other, so that they do not disturb each other's time.

    Yields
    ------
    dict
        Each new row.
    """
    known = {row["key"]: row for row in read_rows(path)}
    due = {
        spec.key: spec
        for spec in specs
        if spec.key not in known or (retry and "error" in known[spec.key])
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in _results(list(due.values()), masks, limit, dask):
        with path.open("a", encoding="utf-8") as stream:
            if stream.tell() and not path.read_bytes().endswith(b"\n"):
                stream.write("\n")  # a line that was cut off stays alone on its line
            stream.write(json.dumps(row) + "\n")
        yield row


def _results(
    specs: Sequence[RowSpec], masks: Path | None, limit: float | None, dask: str | None
) -> Iterable[Row]:
    if dask is None:
        for spec in specs:
            yield run_row(spec, masks, limit)
        return
    from distributed import Client, as_completed

    with Client(dask) as client:
        futures = [client.submit(run_row, spec, masks, limit, pure=False) for spec in specs]
        for _, row in as_completed(futures, with_results=True):
            yield row
