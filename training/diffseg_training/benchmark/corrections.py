"""Correct and continue: what a corrected slice is worth, and how long it takes.

A painter is simulated on a labelled CT. Some slices are painted and trained on; then, again and
again, the slice with the largest wrong area is corrected (its reference is put into the prediction
and accepted), and *Continue* or *Train again* pressed. Each line says how many slices were
corrected, the seconds of learning, and Dice

- of the whole result (paint over prediction),
- on the slices that nobody has painted, before and after, on the same slices,
- on the eight slices around the corrected one, likewise,

and which share of the mistake's pixels is still wrong in the same way on the two slices on each
side of it, beside what the session says about that.

    napari-diffseg-benchmark corrections --volumes DATA --corrections 5 -o rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffseg_training.benchmark.datasets import find_names, find_scans, labels_of
from diffseg_training.benchmark.machine import hardware
from diffseg_training.benchmark.protocols import covering_slices, presence
from diffseg_training.benchmark.tasks import Scan, only
from napari_diffseg.engine.metrics import dice
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.session import corrections
from napari_diffseg.session.session import Session

_AROUND = 4  # slices on each side of the corrected one
_BESIDE = 2  # slices on each side on which the same mistake is looked for
_HOWS = ("continue", "again")

Mask = NDArray[np.uint8]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--volumes", nargs="+", required=True, type=Path, metavar="PATH")
    parser.add_argument("--painted", type=int, default=4, help="slices painted at first")
    parser.add_argument("--corrections", type=int, default=5, help="slices corrected, one by one")
    parser.add_argument("--seconds", type=float, default=30.0, help="budget of each training")
    parser.add_argument("--how", choices=_HOWS, default="continue")
    parser.add_argument("--weight", type=float, help="of corrected slices, instead of the app's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: budgets and figures in the process's own processor seconds, for a busy machine",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="add the lines here, too")
    parser.set_defaults(run=_run)


def correcting(
    scan: Scan, names: dict[int, str], painted: int, settings: TrainSettings, how: str, count: int
) -> Iterator[dict[str, Any]]:
    """Paint, train, and correct one slice after the other.

    Parameters
    ----------
    scan
        A CT with its reference.
    names
        Of the labels.
    painted
        Slices painted at first, see :func:`.protocols.covering_slices`.
    settings
        Of every training.
    how
        ``continue`` or ``again``.
    count
        Slices to correct.

    Yields
    ------
    dict
        The figures of each round; the first is that of the painted slices.
    """
    labels = labels_of([scan], names)
    ids = [label.id for label in labels]
    truth = only(scan.reference, ids)
    labelled = np.flatnonzero(truth.any(axis=(1, 2)))
    inside = np.zeros(len(truth), bool)
    inside[labelled[0] : labelled[-1] + 1] = True
    session = Session(scan.volume, labels, folder=False)
    for z in covering_slices(presence(truth, ids), painted):
        session.paint.set_slice(z, truth[z])
    yield {"corrected": 0, **_train(session, settings, False), **_result(session, truth, inside)}
    for done in range(1, count + 1):
        before = session.prediction.mask.copy()
        open_ = inside & (session.paint.states == 0)
        z = int(np.where(open_, (before != truth).sum(axis=(1, 2)), -1).argmax())
        session.trainer.current = z
        session.prediction.edit(z, truth[z])
        session.accept(z)
        others = open_.copy()
        others[z] = False
        around = others & (np.abs(np.arange(len(truth)) - z) <= _AROUND)
        times = _train(session, settings, how == "continue")
        after = session.prediction.mask
        yield {
            "corrected": done,
            "slice": z,
            **times,
            **_result(session, truth, inside),
            "others_before": _dice(before, truth, ids, others),
            "others_after": _dice(after, truth, ids, others),
            "around_before": _dice(before, truth, ids, around),
            "around_after": _dice(after, truth, ids, around),
            **_mistakes(before, after, truth, z, others),
            "said": sorted(one.z for one in session.trainer.repeated),
        }


def _train(session: Session, settings: TrainSettings, go_on: bool) -> dict[str, Any]:
    """Train and predict; the seconds until it was learnt, the slices around shown, and all."""
    began = time.perf_counter()
    for _ in session.trainer.train(settings, from_model=go_on):
        pass
    learnt = time.perf_counter() - began
    near = 0.0
    for number, _ in enumerate(session.trainer.predict(), start=1):
        if number == 2 * _AROUND + 1:
            near = time.perf_counter() - began
    return {
        "learning_s": round(learnt, 1),
        "around_shown_s": round(near, 1),
        "all_shown_s": round(time.perf_counter() - began, 1),
        "steps": session.rounds.all[-1].iterations,
    }


def _result(session: Session, truth: Mask, inside: NDArray[np.bool_]) -> dict[str, Any]:
    ids = [label.id for label in session.paint.labels]
    return {"dice": _dice(session.merged(), truth, ids, inside)}


def _dice(mask: Mask, truth: Mask, ids: Sequence[int], where: NDArray[np.bool_]) -> float:
    found = np.array(list(dice(mask[where], truth[where], ids).values()))
    return round(float(np.nanmean(found)), 4)


def _mistakes(
    before: Mask, after: Mask, truth: Mask, z: int, others: NDArray[np.bool_]
) -> dict[str, Any]:
    """Which part of the corrected mistake is still there on the slices beside."""
    there = still = 0
    on: dict[int, float] = {}
    for n in range(max(z - _BESIDE, 0), min(z + _BESIDE + 1, len(truth))):
        if others[n]:
            # As wrong on n as it was on the corrected slice, in the same way.
            same = (before[n] == before[z]) & (before[z] != truth[z]) & (before[n] != truth[n])
            kept = same & (after[n] == before[n])
            there, still = there + int(same.sum()), still + int(kept.sum())
            if same.any():
                on[n] = round(float(kept.sum() / same.sum()), 3)
    return {"mistake_px": there, "mistake_kept": round(still / max(there, 1), 4), "kept_on": on}


def _run(arguments: argparse.Namespace) -> int:
    if arguments.weight is not None:
        corrections.CORRECTED_WEIGHT = arguments.weight
    settings = TrainSettings(seconds=arguments.seconds, seed=arguments.seed)
    if arguments.clock == "cpu":
        time.perf_counter = time.process_time
    names = find_names(arguments.volumes)
    for files in find_scans(arguments.volumes):
        scan = files.read()
        rounds = correcting(
            scan, names, arguments.painted, settings, arguments.how, arguments.corrections
        )
        for row in rounds:
            line = {
                "volume": files.name,
                "how": arguments.how,
                "painted": arguments.painted,
                "weight": corrections.CORRECTED_WEIGHT,
                "budget_s": arguments.seconds,
                "seed": arguments.seed,
                "clock": arguments.clock,
                **row,
                "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
                "threads": torch.get_num_threads(),
                "machine": hardware("cpu"),
            }
            text = json.dumps(line)
            print(text, flush=True)
            if arguments.output:
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(text + "\n")
    return 0
