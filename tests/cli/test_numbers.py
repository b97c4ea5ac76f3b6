"""``napari-diffseg measure`` and ``compare``."""

import csv
from pathlib import Path

import numpy as np
import pytest
from cli_tools import AFFINE, check_error, save

from napari_diffseg.cli import main


def rows(path):
    with Path(path).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_measure_writes_a_table_or_a_page(case, capsys):
    Path("names.json").write_text('{"liver": 1, "lung": 2}')
    words = ("measure", case.ct, case.labels, "--names", "names.json")
    assert main((*words, "-o", "table.csv")) == 0
    found = rows("table.csv")
    assert [row["label"] for row in found] == ["liver", "lung"]
    for row, label in zip(found, (1, 2), strict=True):
        assert int(row["voxels"]) == (case.labels_ijk == label).sum()
        assert float(row["volume ml"]) == pytest.approx((case.labels_ijk == label).sum() * 0.012)
    assert float(found[0]["mean HU"]) == pytest.approx(150, abs=2)
    assert main((*words, "-o", "report.html")) == 0
    assert Path("report.html").read_text().count("data:image/png") == 2
    assert main(words) == 0
    assert "liver" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main((*words, "-o", "table.xls"))
    code = main(("measure", case.ct, case.labels, "-o", case.labels.replace(".nii.gz", ".csv")))
    assert code == 0  # beside the inputs, but none of them


def test_measure_refuses_an_empty_mask(case, tmp_path, capsys):
    empty = save(tmp_path / "empty.nii.gz", case.labels_ijk * 0)
    check_error(capsys, main(("measure", case.ct, empty)), "holds no label")


def test_compare_names_the_slices_that_differ_most(case, tmp_path, capsys):
    other = case.labels_ijk.copy()
    other[:, :, 3][other[:, :, 3] == 1] = 2
    other[14, 18, 5] = 0
    b = save(tmp_path / "b.nii.gz", other)
    assert main(("compare", case.labels, b, "-o", "labels.csv", "--slices", "slices.csv")) == 0
    out = capsys.readouterr().out
    assert "2 slices differ; those that differ most:" in out
    assert [row["slice"] for row in rows("slices.csv")] == ["3", "5"]
    found = rows("labels.csv")
    assert [row["label"] for row in found] == ["label 1", "label 2"]
    a = case.labels_ijk == 1
    dice = 2 * (a & (other == 1)).sum() / (a.sum() + (other == 1).sum())
    assert float(found[0]["Dice"]) == pytest.approx(dice, abs=1e-4)
    assert float(found[0]["kappa"]) < 1
    assert main(("compare", case.labels, case.labels)) == 0
    assert "The masks are equal." in capsys.readouterr().out


def test_compare_refuses_what_is_no_pair(case, tmp_path, capsys):
    moved = save(tmp_path / "moved.nii.gz", case.labels_ijk, AFFINE + 0.3 * (AFFINE == 40))
    check_error(capsys, main(("compare", case.labels, moved)), "another grid")
    empty = save(tmp_path / "empty.nii.gz", np.zeros_like(case.labels_ijk))
    check_error(capsys, main(("compare", empty, empty)), "neither mask holds a label")
    code = main(("compare", case.labels, case.labels, "-o", "x.csv", "--slices", "x.csv"))
    check_error(capsys, code, "written twice")
