"""What each further labelled patient is worth: splits, rows, tables and curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffseg_training.benchmark import sweeps
from diffseg_training.benchmark.cli import main
from diffseg_training.benchmark.patients import by_patients, splits_of
from diffseg_training.benchmark.protocols import ProtocolError
from diffseg_training.benchmark.rows import compute
from diffseg_training.benchmark.tables import by_amount
from napari_diffseg.network.backbone import Backbone, Intensity, save_backbone
from napari_diffseg.network.unet import UNet, UNetConfig


def _present(depth: int = 12) -> np.ndarray:
    present = np.zeros((depth, 2), np.int64)
    present[2:8, 0] = present[5:11, 1] = 50
    return present


PATIENTS = {"a": "anna", "b1": "bert", "b2": "bert", "c": "carl"}


def test_each_patient_is_tested_and_never_learnt_from() -> None:
    present = {scan: _present() for scan in PATIENTS}
    for count, slices in ((1, 4), (2, 4), (2, 0)):
        splits = splits_of(present, PATIENTS, count, slices)
        assert [[one.scan for one in split.test] for split in splits] == [
            ["a"],
            ["b1", "b2"],
            ["c"],
        ]
        for split in splits:
            learnt = {PATIENTS[one.scan] for one in split.train}
            assert len(split.train) == len(learnt) == count
            assert not learnt & {PATIENTS[one.scan] for one in split.test}
            assert all(len(one.slices) == (slices or 9) for one in split.train)
            for one in split.train:
                assert _present()[list(one.slices)].any(axis=0).all()  # both labels appear
            assert split.amount == f"{count} × {slices or 'all'}"
    assert splits_of(present, PATIENTS, 3, 4) == []  # nobody is left to test
    with pytest.raises(ProtocolError, match="at least two patients"):
        splits_of(present, dict.fromkeys(PATIENTS, "anna"), 1, 4)


def test_a_second_patient_comes_after_the_first() -> None:
    """So that curves over patients add patients, and do not change them."""
    present = {scan: _present() for scan in PATIENTS}
    one, two = (splits_of(present, PATIENTS, count, 4) for count in (1, 2))
    for fewer, more in zip(one, two, strict=True):
        assert fewer.train == more.train[:1]


@pytest.mark.usefixtures("short_adaptation")
def test_the_sweep_writes_rows_table_and_curve(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here in this process; that each row has one of its own is tested with the sweeps.
    monkeypatch.setattr(sweeps, "run_row", lambda spec, masks, limit: compute(spec, masks))
    torch.manual_seed(0)
    config = UNetConfig(image_size=32, widths=(8, 16), blocks=1, attention=(), head_channels=8)
    backbone = tmp_path / "tiny.safetensors"
    save_backbone(backbone, Backbone("tiny", UNet(config), Intensity((-200.0, 400.0), (-1.0, 1.0))))
    out = tmp_path / "out"
    words = ["patients", "--volumes", str(data), "-o", str(out), "--patients", "1,2", "--slices"]
    words += ["3", "--methods", "cohort", "--iterations", "40", "--side", "32", "--threads", "1"]
    assert main([*words, "--backbone", str(backbone), "--device", "cpu"]) == 0
    rows = sweeps.read_rows(out / "rows.jsonl")
    assert [(row["train"], row["test"]) for row in rows] == [(["p1"], ["p0"]), (["p0"], ["p1"])]
    assert all(row["amount"] == "1 × 3" and 0 < row["dice"] <= 1 for row in rows)
    assert all(set(row["labels"]) == {"disc", "square"} for row in rows)
    assert "| Ours (train, predict) |" in (out / "patients.md").read_text()
    assert (out / "dice-patients-3.png").stat().st_size > 1000
    assert not (out / "in-volume.md").exists()
    more = [{**row, "key": row["key"] + "2", "amount": "2 × 3", "dice": 0.9} for row in rows]
    with (out / "rows.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in more)
    assert main(["publish", str(out), "-o", str(tmp_path / "docs"), "--name", "page"]) == 0
    page = (tmp_path / "docs/page.md").read_text()
    assert "## p0, p1\n\nStructures: disc, square." in page
    assert page.count("| method | 1 × 3 | 2 × 3 |") == 3  # all, and each who was tested
    assert page.count("| Ours (train, predict) |") == 4  # and its cost
    assert "![Dice against labelled patients](page-dice-3.png)" in page
    assert (tmp_path / "docs/page-dice-3.png").stat().st_size > 1000


def test_columns_come_in_the_order_of_slices_and_patients() -> None:
    rows = [
        {"method": "cohort", "amount": amount, "dice": 0.5, "test": ["p0"]}
        for amount in ("2 × all", "1 × 8", "10 × 4", "2 × 4")
    ]
    table = by_amount(rows, {"cohort": "Ours"}.__getitem__)
    assert "| method | 2 × 4 | 10 × 4 | 1 × 8 | 2 × all |" in table
    assert sorted(by_patients(rows)) == ["4", "8", "all"]
    assert [row["patients"] for row in by_patients(rows)["4"]] == [10, 2]


def test_a_mean_over_fewer_patients_says_so_and_is_not_drawn() -> None:
    figures = [("cohort", "p0", 0.6), ("cohort", "p1", 0.4), ("nnunet", "p1", 0.2)]
    rows = [
        {"method": method, "amount": "1 × 4", "dice": dice, "test": [scan]}
        for method, scan, dice in figures
    ]
    lines = by_amount(rows, str).splitlines()
    assert lines[2].startswith("| cohort | 0.500 ± ")
    assert lines[2].count("[") == 0
    assert lines[3] == "| nnunet | 0.200 [1 of 2] |"
    assert {row["method"] for row in by_patients(rows)["4"]} == {"cohort"}
