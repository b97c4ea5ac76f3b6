"""The kinds of faults are in ``benchmarks``; the tests run a small portion of each."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
