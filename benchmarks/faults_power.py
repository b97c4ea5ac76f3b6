"""Power cuts: a process is killed, and with it goes what was not synced to the disk."""

from __future__ import annotations

import random
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from fault_disk import Mode, power_cut, recorded
from fault_jobs import JOBS
from fault_tools import Figures, Job, Kind, killed, tally

_SAFE = 1.0  # s after which a step has to last


def run(name: str, count: int, seed: int, folder: Path) -> Figures:
    """Cut the power of a job ``count`` times; each leaves one folder for every mode."""
    if sys.platform != "linux":
        return Figures(0, 0, 0, "needs Linux")
    job: Job = JOBS[name]
    start = folder / "start"
    start.mkdir()
    job.make(start, seed)

    def one(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        mode: Mode = get_args(Mode)[number % 3]
        place, after = folder / f"{number}", folder / f"{number}-after"
        shutil.copytree(start, place)
        # Long enough for steps that are older than a second.
        kill = killed(job, place, seed, after=rng.uniform(0.1, 2.5), shim=recorded)
        power_cut(place, after, mode, rng)
        sure = int(np.searchsorted(kill.said, kill.at - _SAFE))
        job.check(after, seed, len(kill.said), sure)
        for left in (place, after):
            shutil.rmtree(left)

    return tally(count, one)


KINDS = tuple(
    Kind(
        f"power-{name}",
        f"as `kill-{name}`, for what is older than one second",
        partial(run, name),
        count,
        6,
    )
    for name, count in (
        ("paint", 36),
        ("train", 12),
        ("predict", 12),
        ("save", 12),
        ("export", 12),
        ("pretrain", 12),
        ("prepare", 12),
    )
)
