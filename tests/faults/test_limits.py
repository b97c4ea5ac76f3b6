"""Too little of everything, other users, other windows; a small portion of each kind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("mounts, limits and users as on Linux", allow_module_level=True)

import faults_limits
import faults_long
import faults_others

KINDS = {kind.name: kind for kind in (*faults_limits.KINDS, *faults_others.KINDS)}
TRIES = {
    "full-disk-session": 1,
    "full-disk-command": 1,
    "permissions": 2,
    "memory": 1,
    "gpu-memory": 4,
    "clock": 1,
    "windows": 1,
    "writers": 1,
}


@pytest.mark.parametrize("name", TRIES)
def test_nothing_is_lost_and_one_line_says_why(name: str, tmp_path: Path) -> None:
    figures = KINDS[name].run(TRIES[name], 1, tmp_path)
    if not figures.tried:
        pytest.skip(figures.note)
    assert (figures.tried, figures.lost) == (TRIES[name], 0), figures.note


def test_a_long_run_leaves_no_thread_and_no_file_open(tmp_path: Path) -> None:
    # A few rounds say nothing of memory: the allocator is still settling.
    note = faults_long.run(8, 1, tmp_path).note
    assert "0 threads and 0 file handles more at the end" in note
