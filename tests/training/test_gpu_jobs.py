"""The list of jobs for a rented machine, run as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def _run(out: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    # No path to the packages: the program finds them beside itself.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, PROGRAM, "--out", out, "--work", out / "work", "--rehearse", *words],
        capture_output=True, text=True, timeout=280, env=environment,
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert lines == [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, lines


def test_a_job_that_lacks_something_says_so_and_the_next_one_runs(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, "--jobs", "pretrain,pieces")
    assert [(line["job"], line["status"]) for line in lines] == [
        ("pretrain", "began"), ("pretrain", "lacking"), ("pieces", "began"), ("pieces", "failed"),
    ]  # fmt: skip
    assert lines[1]["missing"] == ["--data"]
    assert (
        "no such checkpoint" in lines[3]["stderr"][-1] or "No such file" in lines[3]["stderr"][-1]
    )
    assert code == 1


def test_a_job_that_takes_too_long_is_cut_off(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, "--jobs", "unet-b", "--limit", "unet-b=1")
    assert [line["status"] for line in lines] == ["began", "cut off"]
    assert lines[-1]["at"] < 20
    assert code == 1


def test_steps_of_the_large_network_are_measured(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, "--jobs", "unet-b")
    measured = [line for line in lines if "micro" in line]
    assert [line["micro"] for line in measured] == [1, 2]
    assert all(line["slices_per_second"] > 0 < line["share_of_product"] for line in measured)
    assert lines[-1]["status"] == "done"
    assert code == 0


def test_a_network_of_other_widths_begins_at_random_weights(store: Path, tmp_path: Path) -> None:
    jobs = PROGRAM.with_name("gpu_jobs.py")
    words = ["probe", "--data", store, "--work", tmp_path, "--seconds", "1", "--rehearse"]
    words += ["--init-from", "starter", "--widths", "16,16,32,32,64"]
    done = subprocess.run(
        [sys.executable, jobs, *words], capture_output=True, text=True, timeout=280
    )
    (line,) = (json.loads(line) for line in done.stdout.splitlines())
    assert line["status"] == "done"
    assert 100_000 < line["weights"] < 2_000_000  # the starter has 8.4 million
    assert all(speed > 0 for speed in line["speeds"])
