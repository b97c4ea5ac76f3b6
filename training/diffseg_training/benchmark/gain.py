"""What pre-training brings at a few painted slices, against the slices seen in it.

The engine learns from the painted slices of one volume alone (no label is propagated to other
slices, so that the network has to do the work), and segments the other slices of that volume
(``within``) and those of every other volume (``across``). It starts from ``scratch`` (the whole
network is trained), from ``random`` frozen weights, and from each backbone. Budgets are optimiser
steps, so the load of the machine does not matter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from diffseg_training.benchmark.datasets import find_names, find_scans, labels_of
from diffseg_training.benchmark.figures import pyplot
from diffseg_training.benchmark.protocols import covering_slices, presence
from diffseg_training.benchmark.rows import weights_digest
from diffseg_training.benchmark.tables import Row, markdown
from diffseg_training.benchmark.tasks import Scan, only
from diffseg_training.memory import keep_freed_memory
from diffseg_training.start import slices_seen
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.metrics import dice, mean_of
from napari_diffseg.engine.predict import predict_slices
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, load_backbone
from napari_diffseg.network.segmenter import Segmenter, Strategy
from napari_diffseg.network.unet import UNet

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Trial:
    """How each start is tried.

    Attributes
    ----------
    slices
        Painted slices.
    iterations
        Optimiser steps of each training.
    seeds
        One training for each.
    every
        Every n-th slice is tested.
    """

    slices: int = 4
    iterations: int = 200
    seeds: tuple[int, ...] = (0, 1, 2)
    every: int = 2


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the two sub-commands."""
    commands = parser.add_subparsers(required=True, metavar="measure|report")
    one = commands.add_parser("measure", help="train and test, one JSON line a result")
    one.add_argument("labelled", type=Path, help="folder of labelled volumes")
    one.add_argument("backbones", nargs="+", help="released files; all of one shape")
    one.add_argument("-o", "--output", type=Path, required=True, help="rows; known ones are kept")
    every = get_args(Strategy)
    one.add_argument("--strategies", nargs="+", choices=every, default=every)
    add_trial(one, Trial())
    one.set_defaults(run=_measure)
    one = commands.add_parser("report", help="table, plot and figures for a card")
    one.add_argument("rows", type=Path)
    one.add_argument("--plot", type=Path)
    one.add_argument("--figures", type=Path, help="JSON lines for release --figures")
    one.set_defaults(run=_report)


def add_trial(parser: argparse.ArgumentParser, trial: Trial) -> None:
    """Add the options of a trial, with its values as defaults."""
    parser.add_argument("--slices", type=int, default=trial.slices)
    parser.add_argument(
        "--iterations", type=int, default=trial.iterations, help="optimiser steps of each training"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=trial.seeds)
    parser.add_argument("--every", type=int, default=trial.every, help="test every n-th slice")


def trial_of(arguments: argparse.Namespace) -> Trial:
    """Read the options of :func:`add_trial`."""
    return Trial(arguments.slices, arguments.iterations, tuple(arguments.seeds), arguments.every)


def measure(
    labelled: Path,
    backbones: Sequence[str],
    strategies: Sequence[str],
    trial: Trial,
    known: Collection[Key] = (),
) -> Iterator[Row]:
    """Yield the rows that are not known yet.

    Parameters
    ----------
    labelled
        Folder of labelled volumes; labels that are not in all of them are left out.
    backbones
        Files of one shape.
    strategies
        Of :data:`Strategy`.
    trial
        Slices, steps and seeds.
    known
        Keys of the rows that are there, see :func:`key`.
    """
    scans = {files.name: files.read() for files in find_scans([labelled])}
    labels = [
        label
        for label in labels_of(scans.values(), find_names([labelled]))
        if all((scan.reference == label.id).any() for scan in scans.values())
    ]
    ids = [label.id for label in labels]
    present = {name: presence(scan.reference, ids) for name, scan in scans.items()}
    shape = load_backbone(backbones[0])
    for seed in trial.seeds:
        for start, seen, file, strategy in _starts(backbones, strategies):
            for name, scan in scans.items():
                row: Row = {
                    "train": name, "start": start, "seen": seen, "strategy": strategy,
                    "seed": seed, "slices": trial.slices, "iterations": trial.iterations,
                    "every": trial.every,
                }  # fmt: skip
                if all(key({**row, "test": other}) in known for other in scans):
                    continue
                torch.manual_seed(seed)
                backbone = load_backbone(file) if file else shape
                if file is None:
                    backbone = replace(shape, unet=UNet(shape.unet.config))
                zs = covering_slices(present[name], trial.slices)
                settings = TrainSettings(strategy=strategy, iterations=trial.iterations, seed=seed)
                began = time.process_time()
                segmenter = _train(scan, zs, labels, backbone, settings)
                spent = round(time.process_time() - began, 1)
                for other, tested in scans.items():
                    held = np.flatnonzero(present[other].any(axis=1))
                    free = [int(z) for z in held if other != name or z not in zs]
                    score = _test(segmenter, tested, free[:: trial.every], labels)
                    yield {
                        **row, "test": other, "dice": round(score, 4), "labels": len(ids),
                        "cpu_s": spent,
                    }  # fmt: skip


def _starts(
    backbones: Sequence[str], strategies: Sequence[str]
) -> Iterator[tuple[str, int | None, str | None, Strategy]]:
    """Name, slices seen, file and strategy of each start; the cheap ones come first."""
    transfers: list[Strategy] = [s for s in ("linear", "decoder") if s in strategies]
    starts: list[tuple[str, int, str | None]] = [("random", 0, None)]
    for file in backbones:
        starts.append((weights_digest(file), slices_seen(load_backbone(file).card), file))
    for start in starts:
        for strategy in transfers:
            yield *start, strategy
    if "scratch" in strategies:
        yield "scratch", None, None, "scratch"


def _train(
    scan: Scan, zs: tuple[int, ...], labels: list[Label], start: Backbone, settings: TrainSettings
) -> Segmenter:
    """Train on slices `zs`, as a volume of their own."""
    _, dy, dx = scan.volume.geometry.spacing
    hu = np.stack([scan.volume.hu[z] for z in zs])
    affine = np.diag([-dx, -dy, 1000.0, 1.0])
    alone = Volume(hu, Geometry.from_affine(affine, (hu.shape[2], hu.shape[1], len(hu))), "painted")
    ids = [label.id for label in labels]
    painted = [PaintedSlice(i, only(scan.reference[z], ids)) for i, z in enumerate(zs)]
    *_, last = finetune(alone, painted, labels, start, settings)
    assert last.segmenter is not None
    return last.segmenter


def _test(segmenter: Segmenter, scan: Scan, zs: list[int], labels: list[Label]) -> float:
    """Mean Dice over the labels on slices `zs`."""
    columns, multiple = segmenter.config.columns, segmenter.grid_multiple
    grid = SliceGrid.of(scan.volume, columns, multiple, segmenter.intensity)
    mask = np.stack([one.mask for one in predict_slices(segmenter, grid, scan.volume, None, zs)])
    return mean_of(dice(mask, scan.reference[zs], [label.id for label in labels]).values())


def key(row: Row) -> Key:
    """What makes a row the same experiment."""
    same = ("train", "test", "start", "strategy", "seed", "slices", "iterations", "every")
    return tuple(row[name] for name in same)


def read(path: Path) -> list[Row]:
    """Rows of a file, none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summarised(rows: Sequence[Row]) -> list[Row]:
    """Mean over seeds of each start, and its points over the two starts without pre-training."""
    scores: dict[Key, list[float]] = defaultdict(list)
    for row in rows:
        across = row["train"] != row["test"]
        where = f"{row['train']} -> {row['test']}" if across else f"within {row['test']}"
        scores[where, row["strategy"], row["seen"]].append(row["dice"])

    def gain(found: list[float], other: Key) -> float | None:
        if other not in scores:
            return None
        return round(100 * (statistics.mean(found) - statistics.mean(scores[other])), 1)

    return [
        {
            "test": where,
            "strategy": strategy,
            "slices seen": "none" if seen is None else seen,
            "Dice": round(statistics.mean(found), 3),
            "deviation": round(statistics.stdev(found), 3) if len(found) > 1 else None,
            "points over scratch": gain(found, (where, "scratch", None)),
            "points over random": gain(found, (where, strategy, 0)),
            "runs": len(found),
        }
        for (where, strategy, seen), found in sorted(
            scores.items(), key=lambda item: (item[0][0], item[0][1], item[0][2] or 0)
        )
    ]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Dice against slices seen in pre-training: one panel a train and test volume."""
    plt = pyplot()
    cases = sorted({(row["train"], row["test"]) for row in rows}, key=lambda c: (c[0] != c[1], c))
    canvas, grid = plt.subplots(
        1, len(cases), figsize=(2.9 * len(cases), 3.2), sharey=True, layout="constrained"
    )
    for axes, (train_name, test_name) in zip(np.atleast_1d(grid), cases, strict=True):
        own = [row for row in rows if (row["train"], row["test"]) == (train_name, test_name)]
        for strategy, style in (("linear", "o--"), ("decoder", "o-")):
            found = defaultdict(list)
            for row in own:
                if row["strategy"] == strategy:
                    found[row["seen"]].append(row["dice"])
            if found:
                x = sorted(found)
                y = [statistics.mean(found[seen]) for seen in x]
                e = [statistics.pstdev(found[seen]) for seen in x]
                axes.errorbar(x, y, e, fmt=style, markersize=4, capsize=2, label=strategy)
        flat = [row["dice"] for row in own if row["strategy"] == "scratch"]
        if flat:
            axes.axhline(statistics.mean(flat), color="grey", label="scratch")
        what = "within" if train_name == test_name else "across"
        axes.set_title(f"{what}\n{train_name}\n→ {test_name}", fontsize="small")
        axes.set_xscale("symlog", linthresh=1e4)
        axes.set_xlabel("slices seen (0: random)", fontsize="small")
        axes.grid(alpha=0.3)
    first = np.atleast_1d(grid)[0]
    first.set_ylabel(f"Dice, {rows[0]['slices']} painted slices")
    first.legend(fontsize="x-small")
    canvas.savefig(path, dpi=90)
    plt.close(canvas)


def _measure(arguments: argparse.Namespace) -> int:
    keep_freed_memory()
    known = {key(row) for row in read(arguments.output)}
    rows = measure(
        arguments.labelled, arguments.backbones, arguments.strategies, trial_of(arguments), known
    )
    for row in rows:
        line = json.dumps(row)
        print(line, flush=True)
        with arguments.output.open("a") as stream:
            stream.write(line + "\n")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    rows = read(arguments.rows)
    if not rows:
        raise ValueError(f"{arguments.rows}: holds no rows; run gain measure first")
    summary = summarised(rows)
    body = [["" if value is None else str(value) for value in line.values()] for line in summary]
    print(markdown(list(summary[0]), body), end="")
    if arguments.plot:
        plot(rows, arguments.plot)
    if arguments.figures:
        arguments.figures.write_text("".join(json.dumps(line) + "\n" for line in summary))
    return 0
