"""Where the seconds and the memory of predicting a volume go.

A labelled CT is brought to the wanted size (nearest neighbour in plane, slices repeated up and
down), four slices are painted, and the app's recipe trains for a short while; then the whole volume
is predicted. Prints one JSON line: seconds, the network's speed beside the machine's best matrix
product, and the peak of the process. Run every size in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from diffseg_training.benchmark.machine import peak_memory, product_rate
from diffseg_training.benchmark.tasks import only
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume, read_labels, read_volume
from napari_diffseg.network.backbone import load_backbone


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("volume", type=Path, help="labelled CT")
    parser.add_argument("labels", type=Path, help="its labels")
    parser.add_argument("--side", type=int, default=512, help="pixels of a slice's side")
    parser.add_argument("--slices", type=int, default=133)
    parser.add_argument("--structures", type=int, default=12, help="labels to keep")
    parser.add_argument("--seconds", type=float, default=20.0, help="of training")
    parser.set_defaults(run=_run)


def sized(array: NDArray[Any], side: int, slices: int) -> NDArray[Any]:
    """Bring ``(z, y, x)`` to ``slices`` of ``side`` squared: mirrored along z, nearest in plane."""
    count, rows, columns = array.shape
    order = np.abs((np.arange(slices) + count - 1) % max(2 * count - 2, 1) - (count - 1))
    y, x = (np.arange(side) * n // side for n in (rows, columns))
    return np.ascontiguousarray(array[order][:, y][:, :, x])


def enlarged(
    volume: Volume, mask: NDArray[np.uint8], side: int, slices: int
) -> tuple[Volume, NDArray[np.uint8]]:
    """Bring a CT and its labels to ``slices`` of ``side`` squared, over the same width."""
    dz, dy, dx = volume.geometry.spacing
    _, rows, columns = volume.hu.shape
    affine = np.diag([dx * columns / side, dy * rows / side, dz, 1.0])
    geometry = Geometry.from_affine(affine, (side, side, slices))
    hu = sized(volume.hu, side, slices)
    return replace(volume, hu=hu, geometry=geometry), sized(mask, side, slices)


def _run(arguments: argparse.Namespace) -> int:
    volume = read_volume(arguments.volume)
    found = read_labels(arguments.labels, volume.geometry)
    labels = found.labels[: arguments.structures]
    mask = only(found.mask, [label.id for label in labels])
    volume, mask = enlarged(volume, mask, arguments.side, arguments.slices)
    labelled = np.flatnonzero(mask.any(axis=(1, 2)))
    zs = labelled[np.linspace(0, len(labelled) - 1, 6).astype(int)[1:-1]]
    painted = [PaintedSlice(int(z), mask[z]) for z in zs]

    product = product_rate(torch.device("cpu"))
    began = time.perf_counter()
    stages: dict[str, float] = {}
    last: Progress | None = None
    for last in finetune(
        volume, painted, labels, load_backbone(), TrainSettings(seconds=arguments.seconds)
    ):
        now = time.perf_counter() - began
        stages[last.stage] = stages.get(last.stage, 0.0) + now - sum(stages.values())
    assert last is not None
    segmenter = last.segmenter
    assert segmenter is not None
    trained = peak_memory()

    began = time.perf_counter()
    first = 0.0
    middle = arguments.slices // 2
    for _ in predict(segmenter, volume, painted, middle, registration=last.registration):
        first = first or time.perf_counter() - began
    seconds = time.perf_counter() - began
    columns, multiple = segmenter.config.columns, segmenter.grid_multiple
    grid = SliceGrid.of(volume, columns, multiple, segmenter.intensity)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        segmenter(grid.image(volume.hu[:1]))
    flops = counter.get_total_flops() * arguments.slices
    line = {
        "shape": volume.hu.shape,
        "structures": len(labels),
        "grid": grid.size,
        "stages_s": {stage: round(spent, 1) for stage, spent in stages.items()},
        "first_slice_s": round(first, 2),
        "predict_s": round(seconds, 1),
        "predict_gflops": round(flops / seconds / 1e9),
        "product_gflops": round(product),
        "trained_peak_gib": round(trained / 2**30, 2),
        "peak_gib": round(peak_memory() / 2**30, 2),
        "volume_gib": round(volume.hu.nbytes / 2**30, 2),
    }
    print(json.dumps(line))
    return 0
