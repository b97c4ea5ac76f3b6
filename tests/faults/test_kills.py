"""Processes that are killed at their work."""

from __future__ import annotations

from pathlib import Path

import faults_kills
import pytest
from fault_tools import Figures


@pytest.mark.parametrize("kind", faults_kills.KINDS, ids=lambda kind: kind.name)
def test_a_kill_loses_nothing(kind: faults_kills.Kind, tmp_path: Path) -> None:
    # One at a random instant, one before a call that changes the disk.
    assert kind.run(2, 1, tmp_path) == Figures(2, 2, 0)
