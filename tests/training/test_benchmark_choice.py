"""Suggested slices against even and random ones: rows, resuming, the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffseg_training.benchmark.choice import table
from diffseg_training.benchmark.cli import main


def test_each_way_paints_what_it_says_and_a_second_run_adds_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.glob("*/p1*"):
        path.unlink()
    out = tmp_path / "choice.jsonl"
    words = ["choice", "--volumes", str(data), "-o", str(out), "--rounds", "1,2", "--seeds", "0"]
    words += ["--iterations", "5", "--grid", "32"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    painted = {(row["way"], row["slices"]): row["painted"] for row in rows}
    assert len(painted) == len(rows) == 8
    assert painted["even", 2] == [5, 15]
    assert painted["random", 2][:1] == painted["random", 1]
    for way in ("suggested", "planes"):
        first, second = (row for row in rows if row["way"] == way)
        assert second["painted"] == [*first["painted"], first["next"]]
    assert all(0 <= row["dice"] <= 1 for row in rows)
    assert max(row["dice"] for row in rows) > 0.2
    assert "| p0 | suggested |" in shown
    assert main(words) == 0
    assert len(out.read_text().splitlines()) == 8


def test_the_table_averages_seeds() -> None:
    rows = [
        {"scan": "a", "way": "random", "slices": 2, "dice": dice, "seed": seed}
        for seed, dice in enumerate((0.2, 0.4))
    ]
    assert "| a | random | 0.300 |  |" in table(rows, (2, 4))
