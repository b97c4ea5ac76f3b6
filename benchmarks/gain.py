"""What pre-training brings at a few painted slices, against the steps of pre-training.

The engine learns from the painted slices of one volume alone (no label travels to other slices, so
that the network has to do the work), and segments the other slices of that volume (``within``) and
those of every other volume (``across``). It starts from ``scratch`` (the whole network is trained),
from ``random`` frozen weights, and from each backbone. Budgets are optimiser steps, so the load of
the machine does not matter. One JSON line a result; the same command goes on where it stopped.

    python benchmarks/gain.py measure LABELLED backbones/*.safetensors -o gain.jsonl
    python benchmarks/gain.py report gain.jsonl --plot gain.png --figures figures.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffseg_training.benchmark.datasets import find_names, find_scans, labels_of
from diffseg_training.benchmark.protocols import covering_slices, presence
from diffseg_training.benchmark.rows import weights_digest
from diffseg_training.benchmark.tasks import Scan
from diffseg_training.memory import keep_freed_memory
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.metrics import dice, mean_of
from napari_diffseg.engine.predict import predict_slice
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, load_backbone
from napari_diffseg.network.segmenter import Segmenter, Strategy
from napari_diffseg.network.unet import UNet

Row = dict[str, Any]
_STRATEGIES: tuple[Strategy, ...] = ("linear", "decoder", "scratch")


def train(
    scan: Scan, zs: tuple[int, ...], labels: list[Label], start: Backbone, settings: TrainSettings
) -> Segmenter:
    """Train on slices `zs`, as a volume of their own."""
    _, dy, dx = scan.volume.geometry.spacing
    hu = np.stack([scan.volume.hu[z] for z in zs])
    affine = np.diag([-dx, -dy, 1000.0, 1.0])
    alone = Volume(hu, Geometry.from_affine(affine, (hu.shape[2], hu.shape[1], len(hu))), "painted")
    ids = [label.id for label in labels]
    painted = [
        PaintedSlice(i, np.where(np.isin(scan.reference[z], ids), scan.reference[z], 0))
        for i, z in enumerate(zs)
    ]
    *_, last = finetune(alone, painted, labels, start, settings)
    assert last.segmenter is not None
    return last.segmenter


def test(segmenter: Segmenter, scan: Scan, zs: list[int], labels: list[Label]) -> float:
    """Mean Dice over the labels on slices `zs`."""
    columns, multiple = segmenter.config.columns, segmenter.grid_multiple
    grid = SliceGrid.of(scan.volume, columns, multiple, segmenter.intensity)
    mask = np.stack([predict_slice(segmenter, grid, scan.volume, None, z).mask for z in zs])
    return mean_of(dice(mask, scan.reference[zs], [label.id for label in labels]).values())


def starts(options: argparse.Namespace) -> Iterator[tuple[str, int | None, str | None]]:
    """Each start with its steps of pre-training and its file; the cheap ones come first."""
    yield "random", 0, None
    for file in options.backbones:
        card = load_backbone(file).card
        # A file that a run left (step-….safetensors) has no released card yet.
        steps = card["steps"] if "steps" in card else card["training"]["step"]
        yield weights_digest(file), int(steps), file
    if "scratch" in options.strategies:
        yield "scratch", None, None


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows that the file does not have yet."""
    known = {key(row) for row in read(options.output)}
    scans = {files.name: files.read() for files in find_scans([options.labelled])}
    labels = [
        label
        for label in labels_of(scans.values(), find_names([options.labelled]))
        if all((scan.reference == label.id).any() for scan in scans.values())
    ]
    ids = [label.id for label in labels]
    present = {name: presence(scan.reference, ids) for name, scan in scans.items()}
    shape = load_backbone(options.backbones[0])
    for seed in options.seeds:
        for start, steps, file in starts(options):
            for strategy in options.strategies:
                if (strategy == "scratch") != (start == "scratch"):
                    continue
                for name, scan in scans.items():
                    row: Row = {
                        "train": name, "start": start, "steps": steps, "strategy": strategy,
                        "seed": seed, "slices": options.slices, "iterations": options.iterations,
                        "every": options.every,
                    }  # fmt: skip
                    if all(key({**row, "test": other}) in known for other in scans):
                        continue
                    torch.manual_seed(seed)
                    backbone = load_backbone(file) if file else shape
                    if file is None:
                        backbone = replace(shape, unet=UNet(shape.unet.config))
                    zs = covering_slices(present[name], options.slices)
                    settings = TrainSettings(
                        strategy=strategy, iterations=options.iterations, seed=seed
                    )
                    began = time.process_time()
                    segmenter = train(scan, zs, labels, backbone, settings)
                    spent = round(time.process_time() - began, 1)
                    for other, tested in scans.items():
                        held = np.flatnonzero(present[other].any(axis=1))
                        free = [int(z) for z in held if other != name or z not in zs]
                        score = test(segmenter, tested, free[:: options.every], labels)
                        yield {
                            **row, "test": other, "dice": round(score, 4), "labels": len(ids),
                            "cpu_s": spent,
                        }  # fmt: skip


def key(row: Row) -> tuple[Any, ...]:
    """What makes a row the same experiment."""
    same = ("train", "test", "start", "strategy", "seed", "slices", "iterations", "every")
    return tuple(row[name] for name in same)


def read(path: Path) -> list[Row]:
    """Rows of a file, none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summarised(rows: list[Row]) -> list[Row]:
    """Mean over seeds of each start, and its points over the two starts without pre-training."""
    scores: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in rows:
        across = row["train"] != row["test"]
        where = f"{row['train']} -> {row['test']}" if across else f"within {row['test']}"
        scores[where, row["strategy"], row["steps"]].append(row["dice"])

    def gain(found: list[float], other: tuple[Any, ...]) -> float | None:
        return (
            round(100 * (statistics.mean(found) - statistics.mean(scores[other])), 1)
            if (other in scores)
            else None
        )

    return [
        {
            "test": where,
            "strategy": strategy,
            "pre-training steps": "none" if steps is None else steps,
            "Dice": round(statistics.mean(found), 3),
            "deviation": round(statistics.stdev(found), 3) if len(found) > 1 else None,
            "points over scratch": gain(found, (where, "scratch", None)),
            "points over random": gain(found, (where, strategy, 0)),
            "runs": len(found),
        }
        for (where, strategy, steps), found in sorted(
            scores.items(), key=lambda item: (item[0][0], item[0][1], item[0][2] or 0)
        )
    ]


def plot(rows: list[Row], path: Path) -> None:
    """Dice against steps of pre-training: one panel a train and test volume."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

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
                    found[row["steps"]].append(row["dice"])
            if found:
                x = sorted(found)
                y = [statistics.mean(found[step]) for step in x]
                e = [statistics.pstdev(found[step]) for step in x]
                axes.errorbar(x, y, e, fmt=style, markersize=4, capsize=2, label=strategy)
        flat = [row["dice"] for row in own if row["strategy"] == "scratch"]
        if flat:
            axes.axhline(statistics.mean(flat), color="grey", label="scratch")
        what = "within" if train_name == test_name else "across"
        axes.set_title(f"{what}\n{train_name}\n→ {test_name}", fontsize="small")
        axes.set_xlabel("pre-training steps (0: random)", fontsize="small")
        axes.grid(alpha=0.3)
    first = np.atleast_1d(grid)[0]
    first.set_ylabel(f"Dice, {rows[0]['slices']} painted slices")
    first.legend(fontsize="x-small")
    canvas.savefig(path, dpi=90)
    plt.close(canvas)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    one = commands.add_parser("measure", help="train and test, one JSON line a result")
    one.add_argument("labelled", type=Path, help="folder of labelled volumes")
    one.add_argument("backbones", nargs="+", help="released files; all of one shape")
    one.add_argument("-o", "--output", type=Path, required=True)
    one.add_argument("--slices", type=int, default=4)
    one.add_argument("--iterations", type=int, default=200, help="optimiser steps of each run")
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    one.add_argument("--strategies", nargs="+", choices=_STRATEGIES, default=_STRATEGIES)
    one.add_argument("--every", type=int, default=2, help="test every n-th slice")
    one = commands.add_parser("report", help="table, plot and figures for a card")
    one.add_argument("rows", type=Path)
    one.add_argument("--plot", type=Path)
    one.add_argument("--figures", type=Path, help="JSON lines for release --figures")
    options = parser.parse_args()
    if options.command == "measure":
        keep_freed_memory()
        for row in measure(options):
            print(json.dumps(row), flush=True)
            with options.output.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        return
    rows = read(options.rows)
    summary = summarised(rows)
    print("| " + " | ".join(summary[0]) + " |\n" + "|---" * len(summary[0]) + "|")
    for line in summary:
        print("| " + " | ".join("" if v is None else str(v) for v in line.values()) + " |")
    if options.plot:
        plot(rows, options.plot)
    if options.figures:
        options.figures.write_text("".join(json.dumps(line) + "\n" for line in summary))


if __name__ == "__main__":
    main()
