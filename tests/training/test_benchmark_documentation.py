"""The pages and the README's table are those of the rows in the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from diffseg_training.benchmark.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The README, and all pages that have rows, with them."""
    shutil.copy(ROOT / "README.md", tmp_path)
    for rows in (ROOT / "docs" / "benchmarks").glob("*.jsonl"):
        shutil.copy(rows, tmp_path)
        shutil.copy(rows.with_suffix(".md"), tmp_path)
    return tmp_path


def _renew(folder: Path) -> int:
    return main(["figures", "--docs", str(folder), "--readme", str(folder / "README.md")])


def test_what_is_committed_is_what_the_rows_give(copied: Path) -> None:
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    assert _renew(copied) == 0
    after = {path.name: path.read_bytes() for path in copied.iterdir()}
    assert {name: after[name] for name in before} == before
    assert "in-volume-slices.png" in after
    assert "ablation-in-volume-seconds.png" in after


def test_the_table_in_the_readme_follows_the_rows(copied: Path) -> None:
    readme, rows = copied / "README.md", copied / "in-volume.jsonl"
    text = readme.read_text()
    spoilt = text.replace("| 0.700 | 0.762 |", "| 0.999 | 0.999 |")
    assert spoilt != text
    readme.write_text(spoilt)
    assert _renew(copied) == 0
    assert readme.read_text() == text
    rows.write_text(
        "".join(x for x in rows.read_text().splitlines(True) if '"registration"' not in x)
    )
    assert _renew(copied) == 0
    assert "best of the others with 8 (random-walker) | 0.774 | 0.823 |" in readme.read_text()


def test_a_readme_without_the_table_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "README.md").write_text("# Nothing here\n")
    assert _renew(copied) == 1
    assert "no table between FIGURES" in capsys.readouterr().err
    assert main(["figures", "--docs", str(copied / "none")]) == 1
    assert "in-volume.jsonl: not found" in capsys.readouterr().err
