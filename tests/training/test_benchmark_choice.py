"""Suggested slices against even and random ones: rows, resuming, the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffseg_training.benchmark.choice import table
from diffseg_training.benchmark.cli import main
from diffseg_training.benchmark.datasets import find_names, find_scans, labels_of
from napari_diffseg.engine import TrainSettings
from napari_diffseg.session import Session, SliceState


@pytest.mark.usefixtures("tiny_shipped")
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
    assert "| p0 | backbone | suggested |" in shown
    assert main(words) == 0
    assert len(out.read_text().splitlines()) == 8


@pytest.mark.usefixtures("tiny_shipped")
def test_a_model_of_other_patients_is_measured_before_any_paint_and_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = (one for one in find_scans([data]) if one.name == "p0")
    scan, names = first.read(), find_names([data])
    labels = labels_of([scan], names)[:1]
    truth = np.where(scan.reference == labels[0].id, scan.reference, 0).astype(np.uint8)
    with Session(scan.volume, labels, folder=False) as session:
        for z in (5, 10, 15):
            session.paint.set_slice(z, truth[z], SliceState.PAINTED)
        for _ in session.trainer.train(TrainSettings(iterations=50, grid=32)):
            pass
        session.trainer.save_model(tmp_path / "earlier.safetensors")
    for path in data.glob("*/p1*"):
        path.unlink()
    out = tmp_path / "choice.jsonl"
    words = ["choice", "--volumes", str(data), "-o", str(out), "--rounds", "0,1", "--seeds", "0"]
    words += ["--iterations", "5", "--grid", "32", "--ways", "suggested"]
    words += ["--model", str(tmp_path / "earlier.safetensors"), "--structures", labels[0].name]
    assert main(words) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["slices"], row["model"], row["structures"]) for row in rows] == [
        (0, "earlier", 1),
        (1, "earlier", 1),
    ]
    assert rows[0]["painted"] == []
    assert rows[0]["dice"] > 0.5  # the very patient whom it was trained on
    assert rows[1]["painted"] == [rows[0]["next"]]
    assert "| p0 | earlier | suggested |" in capsys.readouterr().out
    assert main(words[:-2]) == 1
    assert "does not know" in capsys.readouterr().err


def test_the_table_averages_seeds() -> None:
    rows = [
        {"scan": "a", "model": "m", "way": "random", "slices": 2, "dice": dice, "seed": seed}
        for seed, dice in enumerate((0.2, 0.4))
    ]
    assert "| a | m | random | 0.300 |  |" in table(rows, (2, 4))
