"""The command line on a small set: rows, resuming, failures, tables and figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffseg_training.benchmark import sweeps
from diffseg_training.benchmark.cli import main
from diffseg_training.benchmark.datasets import DatasetError, digest, find_names, find_scans
from diffseg_training.benchmark.rows import RowSpec, compute
from diffseg_training.benchmark.tables import area, by_amount


def _in_volume(data: Path, out: Path, *more: str) -> int:
    return main(["in-volume", "--volumes", str(data), "-o", str(out), "--budgets", "1", *more])


def test_in_volume_writes_rows_tables_and_resumes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in data.glob("*/p1*"):
        path.unlink()  # one patient is enough here, and each row starts a process
    out = tmp_path / "out"
    some = ("--slices", "2", "--methods", "nearest-copy", "--masks", "--threads", "1")
    assert _in_volume(data, out, *some) == 0
    rows = sweeps.read_rows(out / "rows.jsonl")
    assert [row["test"] for row in rows] == [["p0"]]
    for row in rows:
        assert 0.3 < row["dice"] < 1
        assert set(row["labels"]) == {"disc", "square"}
        assert row["predict_seconds"] == row["seconds"] > 0
        assert row["peak_memory_bytes"] > 2**20
        assert row["hardware"]["threads"] == 1
        assert len(row["split"]) == 12
        assert np.load(out / "masks" / f"{row['key']}.npz")[row["test"][0]].shape == (20, 32, 32)
    assert "Nearest-slice copy" in (out / "in-volume.md").read_text()
    assert (out / "rows.csv").read_text().count("\n") == 2
    capsys.readouterr()

    # Asked again, nothing is run; a new method is.
    assert _in_volume(data, out, *some) == 0
    assert "1 rows, 1 of them done already" in capsys.readouterr().out
    assert len((out / "rows.jsonl").read_text().splitlines()) == 1
    assert main(["panels", str(out), "--volumes", str(data), "--slices", "9"]) == 0
    assert len(list(out.glob("panels-*.png"))) == 1


def test_a_failing_row_is_recorded_and_the_sweep_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_DIFFSEG_IMAGENET", str(tmp_path))
    specs = [
        _spec(data, method="no-such-method"),
        _spec(data, method="shape-interpolation"),
        _spec(data, method="registration"),
    ]
    monkeypatch.setattr(sweeps, "run_row", lambda spec, masks, limit: compute(spec, masks))
    rows = list(sweeps.sweep(specs, tmp_path / "rows.jsonl"))
    assert "no method 'no-such-method'" in rows[0]["error"]
    assert rows[1]["dice"] > 0.3
    assert rows[2]["dice"] > 0.3
    assert not list(sweeps.sweep(specs, tmp_path / "rows.jsonl"))
    assert len(list(sweeps.sweep(specs, tmp_path / "rows.jsonl", retry=True))) == 1
    assert "failed" in by_amount(rows, str)


def test_a_line_cut_off_by_a_crash_costs_one_row(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    monkeypatch.setattr(sweeps, "run_row", lambda spec, masks, limit: compute(spec, masks))
    specs = [_spec(data, method="nearest-copy"), _spec(data, method="shape-interpolation")]
    list(sweeps.sweep(specs, path))
    path.write_text(path.read_text()[:-40])
    assert [row["method"] for row in sweeps.sweep(specs, path)] == ["shape-interpolation"]
    assert len(sweeps.read_rows(path)) == 2


def test_a_row_beyond_its_limit_is_ended_and_says_so(data: Path) -> None:
    from diffseg_training.benchmark.rows import run_row

    row = run_row(_spec(data, method="nearest-copy"), limit=0.01)
    assert "took more than 0.01 s" in row["error"]


def test_methods_without_learning_refuse_other_patients(data: Path) -> None:
    from diffseg_training.benchmark.profiles import Sweep

    specs = Sweep("mini", (data,), methods=("nearest-copy",), steps=1).specs()
    protocols = [spec.split.protocol for spec in specs]
    assert protocols.count("cross-patient") == 2 * 2  # each patient in turn, two amounts
    across = next(spec for spec in specs if spec.split.protocol == "cross-patient")
    assert {one.scan for one in across.split.train}.isdisjoint(
        one.scan for one in across.split.test
    )
    assert "cannot do the protocol cross-patient" in compute(across)["error"]


def test_keys_depend_on_what_matters(data: Path) -> None:
    base = _spec(data, method="nearest-copy")
    assert base.key == _spec(data, method="nearest-copy").key
    assert base.key != _spec(data, method="registration").key
    assert base.key != _spec(data, method="nearest-copy", seed=1).key
    assert base.key == RowSpec.from_json(json.loads(json.dumps(base.to_json()))).key


def test_the_area_is_the_mean_height_over_the_logarithm_of_the_budget() -> None:
    rows = [{"budget": float(b), "dice": d} for b, d in ((10, 0.2), (20, 0.4), (40, 0.8))]
    assert area(rows, [10.0, 20.0, 40.0]) == pytest.approx((0.3 + 0.6) / 2)
    assert area([{"budget": None, "dice": 0.5}], [10.0, 40.0]) == pytest.approx(0.5)


def test_the_papers_figures_stand_beside_rows_with_their_settings_only() -> None:
    from diffseg_training.benchmark.profiles import as_in_the_papers, report

    row = {
        "method": "decoder",
        "protocol": "cross-patient",
        "test": ["b"],
        "amount": "4 slices",
        "seed": 0,
        "side": 256,
        "small": False,
        "absent": "papers",
        "iterations": 1000,
        "dice": 0.5,
        "jaccard": 0.4,
        "labels": {"liver": {"dice": 0.5}},
        "steps": 1000,
        "fit_seconds": 60.0,
        "predict_seconds": 10.0,
        "rate": 1.0,
        "peak_memory_bytes": 2**30,
        "note": "",
    }
    rows = [row, {**row, "seed": 1, "dice": 0.6}, {**row, "method": "linear@200", "dice": 0.25}]
    assert all(map(as_in_the_papers, rows))
    assert not as_in_the_papers({**row, "iterations": 2})
    assert not as_in_the_papers({**row, "small": True})
    text = report([*rows, {**row, "method": "unetr", "error": "out of memory"}], published=True)
    assert "| Ours, decoder (paper) | 55.0 ± 7.1 (51.81) |" in text
    assert "| Ours, linear (paper), t = 200 | 25.0 |" in text
    assert "- unetr, cross-patient, 4 slices, seed 0: out of memory" in text
    assert "(51.81)" not in report(rows, published=False)


def test_scans_are_found_and_their_content_is_hashed(data: Path, tmp_path: Path) -> None:
    scans = find_scans([data])
    assert [(scan.name, scan.patient) for scan in scans] == [("p0", "p0"), ("p1", "p1")]
    assert find_names([data]) == {1: "disc", 2: "square"}
    assert digest(scans[:1]) != digest(scans[1:])
    (data / "patients.json").write_text('{"p0": "anna", "p1": "anna"}')
    assert {scan.patient for scan in find_scans([data])} == {"anna"}
    with pytest.raises(DatasetError, match="holds no labelled scans"):
        find_scans([tmp_path])


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("napari-diffseg-benchmark: error: ")
    assert error.count("\n") == 1
    wrong = ["--volumes", str(tmp_path), "-o", str(tmp_path), "--protocols", "in-volume,sideways"]
    assert main(["in-volume", *wrong]) == 1
    assert "no protocol sideways: use in-volume, scribbles" in capsys.readouterr().err
    assert main(["methods"]) == 0
    assert "Swin UNETR" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["in-volume", "--slices", "two"])
    assert stopped.value.code == 2


def test_a_sweep_becomes_a_page_with_its_rows(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweeps, "run_row", lambda spec, masks, limit: compute(spec, masks))
    specs = [
        _spec(data, method="nearest-copy"),
        _spec(data, method="nearest-copy", count=3),
        _spec(data, method="no-such-method"),
    ]
    list(sweeps.sweep(specs, tmp_path / "sweep" / "rows.jsonl"))
    page = ("publish", str(tmp_path / "sweep"), "-o", str(tmp_path / "docs"), "--name", "small")
    assert main(page) == 1  # the method of the failed row has no title
    assert "no method 'no-such-method'" in capsys.readouterr().err
    named = (tmp_path / "sweep" / "rows.jsonl").read_text().replace("no-such-method", "unetr")
    rows = [json.loads(line) for line in named.splitlines()]
    for where in ("body", "slice"):
        rows[0][f"calibration_error_{where}"] = 0.012
        rows[0][f"errors_in_least_confident_tenth_{where}"] = 0.625
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "sweep" / "rows.jsonl").write_text(lines)
    assert main(page) == 0
    text = (tmp_path / "docs" / "small.md").read_text()
    assert "2 rows of 3 finished" in text
    assert "## Inside volumes" in text
    assert "| method | 2 slices | 3 slices |" in text
    assert "Dice at 2 slices against real seconds." in text
    assert "## Failed rows" in text
    assert re.search(r"## Confidence\n\n.*\n.*\n\| Nearest-slice copy .* 1.2 \| 62.5 \|", text)
    for figure in ("slices", "seconds"):
        assert f"(small-in-volume-{figure}.png)" in text
        assert (tmp_path / "docs" / f"small-in-volume-{figure}.png").stat().st_size > 1000
    assert len(sweeps.read_rows(tmp_path / "docs" / "small.jsonl")) == 3
    assert str(tmp_path) not in text + (tmp_path / "docs" / "small.jsonl").read_text()


def test_a_page_has_a_table_for_each_budget_that_most_methods_had(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(spec: RowSpec, masks: Path | None, limit: float | None) -> dict[str, object]:
        row = compute(_spec(data, method="nearest-copy"), masks)
        return row | spec.heading() | {"dice": 0.01 * (spec.budget or 0)}

    monkeypatch.setattr(sweeps, "run_row", run)
    plan = {10.0: ("unetr", "linear", "ours"), 60.0: ("unetr", "linear"), 120.0: ("ours",)}
    specs = [
        replace(_spec(data, method), budget=budget, weights=f"{budget:g} s")
        for budget, methods in plan.items()
        for method in methods
    ]
    list(sweeps.sweep(specs, tmp_path / "sweep" / "rows.jsonl"))
    asked = ["publish", str(tmp_path / "sweep"), "-o", str(tmp_path / "docs"), "--name", "page"]
    assert main(asked) == 0
    text = (tmp_path / "docs" / "page.md").read_text()
    tables = re.findall(
        r"### Dice in percent, (\d+) nominal seconds\n\n.*\n.*\n((?:\|.*\n)+)", text
    )
    assert [(seconds, table.count("\n")) for seconds, table in tables] == [("60", 2), ("10", 3)]
    assert "60.0" in tables[0][1]
    assert "10.0" in tables[1][1]
    assert "| method | 10 s | 60 s | 120 s |" in text
    assert "- Backbone 60 s: 2 rows" in text


def test_rates_are_measured_and_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffseg_training.benchmark.learning_rates import LearningRates
    from diffseg_training.benchmark.profiles import Sweep

    def run(spec: RowSpec, masks: object, limit: object) -> dict[str, object]:
        # The lower rate does better on one patient, the higher on the other.
        low = spec.split.test[0].scan == "p0"
        return {**spec.heading(), "dice": 0.9 if (spec.rate < 1) == low else 0.5,
                "fit_seconds": 1.0, "predict_seconds": 1.0}  # fmt: skip

    monkeypatch.setattr(sweeps, "run_row", run)
    out = tmp_path / "rates"
    asked = ["rates", "--volumes", str(data), "--slices", "2", "--methods", "unetr,ours"]
    assert main([*asked, "-o", str(out)]) == 0
    rates = LearningRates.read(out / "rates.json")
    assert set(rates.found) == {"p0", "p1"}
    assert set(rates.found["p0"]) == {"unetr"}  # ours has no rate to tune
    specs = Sweep("mini", (data,), methods=("unetr", "linear"), rates=rates).specs()
    for spec in specs:
        tested = spec.split.test[0].scan
        expected = {"p0": 1.0, "p1": 0.333}[tested] if spec.method == "unetr" else 1.0
        assert spec.rate == expected
    assert {spec.budget for spec in Sweep("mini", (data,), budget=2.0).specs()} == {2.0}


def _spec(data: Path, method: str, seed: int = 0, count: int = 2) -> RowSpec:
    from diffseg_training.benchmark.protocols import in_volume, presence

    (files, _) = find_scans([data])
    split = in_volume(files.name, presence(files.read().reference, [1, 2]), count)
    return RowSpec("data", (files,), {1: "disc", 2: "square"}, split, method, seed)
