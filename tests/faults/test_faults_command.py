"""The command that runs everything: it can be stopped, resumed, and writes the page."""

from __future__ import annotations

from pathlib import Path

import faults
import pytest
from fault_tools import Figures, Kind


def test_what_is_done_is_not_done_again_and_the_page_has_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[int, int]] = []

    def run(count: int, seed: int, folder: Path) -> Figures:
        assert folder.is_dir()
        calls.append((count, seed))
        return Figures(count, count - 1, 1, "a stroke is gone")

    kinds = {"kill": Kind("kill", "all is there", run, 25, 10)}
    monkeypatch.setattr(faults, "kinds", lambda: kinds)
    monkeypatch.setattr(faults, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(faults, "ROWS", tmp_path / "rows.jsonl")
    assert faults.main(["--seconds", "-1"]) == 3
    assert calls == []
    assert faults.main(["--seed", "2", "--kills", "12"]) == 1  # something was lost
    assert calls == [(10, 2000), (2, 2001)]
    assert not list(tmp_path.iterdir())  # a trial
    calls.clear()
    assert faults.main([]) == 1
    assert calls == [(10, 0), (10, 1), (5, 2)]
    assert faults.main([]) == 1
    assert len(calls) == 3
    assert "kill: 25 tried, 22 survived, 3 lost" in capsys.readouterr().out
    page = (tmp_path / "page.md").read_text()
    assert "| `kill` | All is there. a stroke is gone | 25 | 22 | 3 |" in page
    assert str(tmp_path) not in page
    monkeypatch.setattr(faults, "VERSION", "next")
    kinds["cut"] = Kind("cut", "all is there", run, 4, 4)
    assert faults.main(["--only", "cut"]) == 1
    page = (tmp_path / "page.md").read_text()
    assert "| 25 | 22 | 3 |" in page
    assert page.count("(with version ") == 1  # what the next version has not tried yet
    assert faults.main(["--only", "kill"]) == 1
    assert "(with version " not in (tmp_path / "page.md").read_text()
    assert faults.main(["--only", "storm"]) == 2
