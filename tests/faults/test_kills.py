"""Processes that are killed at their work."""

from __future__ import annotations

from pathlib import Path

import faults_kills
import pytest
from fault_tools import Figures, Kind


@pytest.mark.parametrize("kind", faults_kills.KINDS, ids=lambda kind: kind.name)
def test_a_kill_loses_nothing(kind: Kind, tmp_path: Path) -> None:
    # The first at a random instant, the second before a call that changes the disk.
    tries = 2 if kind.name in ("kill-paint", "kill-export") else 1
    assert kind.run(tries, 1, tmp_path) == Figures(tries, tries, 0)
