"""Kills: a process gets SIGKILL at a random instant, or before a call that changes the disk."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
from fault_jobs import JOBS
from fault_tools import Figures, Job, Kind, killed, tally

_DRAWS = 6  # until the kill meets work that is still going on


def run(name: str, count: int, seed: int, folder: Path) -> Figures:
    """Kill a job ``count`` times, each time on a copy of the same beginning."""
    job: Job = JOBS[name]
    start = folder / "start"
    start.mkdir()
    job.make(start, seed)

    def one(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        place = folder / f"{number}"
        for draw in range(_DRAWS):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(start, place)
            share = rng.random() / (1 + draw)  # earlier and earlier, for it was over
            if number % 2:
                kill = killed(job, place, seed, call=1 + int(share * job.calls))
            else:
                kill = killed(job, place, seed, after=share * job.seconds)
            if not kill.ended:
                break
        job.check(place, seed, len(kill.said), len(kill.said))
        shutil.rmtree(place)

    return tally(count, one)


_PROMISES = {
    "paint": "every stroke, label and correction that was reported is there",
    "train": "paint, correction, every finished round and a loadable model are there",
    "segment": "the outputs are the earlier or the new ones, whole, and the command works again",
    "predict": "paint, correction, model and prediction are there; masks are whole",
    "save": "the file is one of the two models, whole; the session opens",
    "export": "each format is one of the two masks, whole; of `.mhd`, or no header",
    "pretrain": "the checkpoint is whole and at most one step old; the run resumes",
    "prepare": "finished volumes are kept; a second run gives the same manifest",
}
KINDS = tuple(
    Kind(f"kill-{name}", promise, partial(run, name), 25, 5) for name, promise in _PROMISES.items()
)
