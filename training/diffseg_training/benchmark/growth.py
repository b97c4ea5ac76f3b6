"""How preparation and training grow with the number of slices.

Makes synthetic volumes of 20 slices (an ellipse with a bone, in noise; 512x512, NIfTI without
compression), prepares 10^2, 10^3, 10^4 slices of them, and takes a few steps of the starter on
each. Every measurement runs in a process of its own, with one thread; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from diffseg_training.benchmark.tables import markdown
from diffseg_training.config import load_recipe
from diffseg_training.cost import peak_memory
from diffseg_training.prepare import prepare
from diffseg_training.settings import PrepareSettings
from diffseg_training.train import train

_VOLUME, _SIDE = 20, 512  # slices of a volume, and pixels of their side


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--steps", type=int, default=8, help="training steps; 0 for none")
    parser.set_defaults(run=_run)


def make_volumes(folder: Path, slices: int) -> None:
    """Write `slices` slices as volumes, no two alike."""
    rng = np.random.default_rng(slices)
    y, x = np.meshgrid(*[np.linspace(-1, 1, _SIDE, dtype=np.float32)] * 2, indexing="ij")
    noise = rng.normal(0, 15, (8, _SIDE, _SIDE)).astype(np.int16)
    folder.mkdir()
    for first in range(0, slices, _VOLUME):
        hu = np.empty((_SIDE, _SIDE, min(_VOLUME, slices - first)), np.int16, order="F")
        for z in range(hu.shape[2]):
            a, b, cx, cy = rng.uniform(0.4, 0.95, 4) * [1, 1, 0.6, 0.6]
            plane = np.where((x / a) ** 2 + (y / b) ** 2 < 1, rng.integers(-100, 200), -1000)
            plane = np.where((x - cx) ** 2 + (y - cy) ** 2 < 0.05, 700, plane)
            hu[..., z] = plane + noise[rng.integers(8)]
        nib.save(nib.Nifti1Image(hu, np.diag([-0.8, -0.8, 3, 1])), folder / f"v{first:06}.nii")


def measured_prepare(source: Path, store: Path) -> dict[str, float]:
    """Prepare a folder at 256x256."""
    torch.set_num_threads(1)
    before = time.process_time()
    for _ in prepare([source], store, PrepareSettings(grid=256, validation=0.1)):
        pass
    return {"seconds": time.process_time() - before, "memory": peak_memory(torch.device("cpu"))}


def measured_train(store: Path, out: Path, steps: int) -> dict[str, float]:
    """Take a few steps of the starter: processor seconds, share of wall time outside, memory."""
    recipe = load_recipe("starter")
    settings = replace(
        recipe.train, iterations=steps, log_every=1, validation_slices=1, threads=1, keep_every=0
    )
    seconds, outside, last = [], [], time.process_time()
    for progress in train(replace(recipe, train=settings), store, out):
        now = time.process_time()
        seconds.append(now - last)
        outside.append(progress.outside)
        last = now
    counted = slice(2, -1)  # the first two warm up, the last one validates
    return {
        "seconds": statistics.median(seconds[counted]),
        "outside": statistics.median(outside[counted]),
        "memory": peak_memory(torch.device("cpu")),
    }


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a fresh process, whose peak memory is then its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _run(arguments: argparse.Namespace) -> int:
    head = ["slices", "prepare, processor s", "ms a slice", "peak MB"]
    head += ["step, processor s", "outside the network", "peak MB"] if arguments.steps else []
    lines = []
    for slices in arguments.slices:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            alone(make_volumes, place / "scans", slices)
            done = alone(measured_prepare, place / "scans", place / "store")
            line = [
                f"{slices:,}",
                f"{done['seconds']:.1f}",
                f"{1000 * done['seconds'] / slices:.1f}",
            ]
            line.append(f"{done['memory'] / 1e6:.0f}")
            if arguments.steps:
                took = alone(measured_train, place / "store", place / "run", arguments.steps)
                line += [f"{took['seconds']:.2f}", f"{100 * took['outside']:.1f} %"]
                line.append(f"{took['memory'] / 1e6:.0f}")
            print(f"{slices:,} slices done", file=sys.stderr, flush=True)
            lines.append(line)
    print(markdown(head, lines), end="")
    return 0
