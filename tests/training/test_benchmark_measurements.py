"""The measurements that are commands of ``napari-diffseg-benchmark``, at a small size."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pretrain_tools import TINY_TOML

from diffseg_training.benchmark import growth
from diffseg_training.benchmark.cli import main
from diffseg_training.benchmark.latency import percentiles
from diffseg_training.release import load_trained
from diffseg_training.settings import Recipe
from diffseg_training.train import train
from napari_diffseg.network.backbone import save_backbone

TRAIN_TOML = """
[train]
hu = [-1000, 1000]
batch = 4
validation_slices = 4
"""


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; gives what it printed."""

    def printed(*words: str | Path) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return printed


@pytest.mark.usefixtures("tiny_shipped")
def test_speed_says_where_the_seconds_of_a_volume_go(data: Path, run: Run) -> None:
    line = json.loads(
        run(
            "speed", data / "imagesTr/p0_0000.nii.gz", data / "labelsTr/p0.nii.gz",
            "--side", "48", "--slices", "30", "--structures", "2", "--seconds", "2",
        )
    )  # fmt: skip
    assert line["shape"] == [30, 48, 48]
    assert line["structures"] == 2
    assert 0 < line["first_slice_s"] <= line["predict_s"]
    assert 0 < line["trained_peak_gib"] <= line["peak_gib"]
    assert {"registering slices", "learning"} <= set(line["stages_s"])


def test_gain_is_measured_once_and_reported(
    data: Path, store: Path, recipe: Recipe, tmp_path: Path, run: Run
) -> None:
    *_, last = train(recipe, store, tmp_path / "run")
    backbone, header = load_trained(tmp_path / "run" / "checkpoint.safetensors")
    assert header.step == last.step
    released = replace(backbone, card={"slices_seen": 1234})
    save_backbone(tmp_path / "backbone.safetensors", released)
    rows = tmp_path / "gain.jsonl"
    asked = ("gain", "measure", data, tmp_path / "backbone.safetensors", "-o", rows,
             "--slices", "2", "--iterations", "2", "--seeds", "0", "--every", "6")  # fmt: skip
    found = [json.loads(line) for line in run(*asked).splitlines()]
    # Five starts and strategies, from two patients to two patients.
    assert len(found) == 5 * 4
    assert {row["seen"] for row in found} == {0, 1234, None}
    assert all(0 <= row["dice"] <= 1 for row in found)
    assert run(*asked) == ""  # all of them are there
    plot, figures = tmp_path / "gain.png", tmp_path / "figures.jsonl"
    table = run("gain", "report", rows, "--plot", plot, "--figures", figures)
    assert table.count("within") == table.count("->") == 2 * 5
    assert plot.stat().st_size > 1000
    assert len(figures.read_text().splitlines()) == 4 * 5


def test_variants_train_and_say_what_they_gain(
    data: Path, store: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_TOML + TRAIN_TOML)
    out = run(
        "variants", store, data, "-o", tmp_path / "out", "--config", tmp_path / "tiny.toml",
        "--only", "starter", "even-noise", "--seconds", "1", "--slices", "2", "--iterations", "2",
        "--every", "6",
    )  # fmt: skip
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["variant"] for line in lines] == ["starter", "even-noise"]
    for line in lines:
        assert line["slices"] == 4 * line["steps"] > 0
        assert {"within, random", "within, pre-trained", "across, random"} <= set(line)


def test_growth_counts_slices(run: Run, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    assert growth.alone(os.getpid) != os.getpid()
    # Here in this process, which has torch already, and with a tiny network.
    monkeypatch.setattr(growth, "alone", lambda work, *arguments: work(*arguments))
    monkeypatch.setattr(growth, "load_recipe", lambda name: recipe)
    head, _, line = run("growth", "--slices", "25", "--steps", "4").splitlines()
    assert line.startswith("| 25 |")
    assert "step, processor s" in head
    assert line.count("|") == head.count("|")


def test_the_report_of_no_rows_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gain", "report", str(tmp_path / "none.jsonl")]) == 1
    assert "holds no rows" in capsys.readouterr().err


def test_turns_of_the_event_loop_are_summarised() -> None:
    figures = percentiles([0.001] * 96 + [0.02] * 2 + [0.08, 0.2])
    assert figures["turns"] == 100
    assert (figures["p50_ms"], figures["max_ms"]) == (1.0, 200.0)
    assert figures["under_50_ms_percent"] == 98.0
