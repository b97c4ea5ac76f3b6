"""Where the seconds and the memory of predicting a volume go.

A labelled CT is brought to the wanted size (nearest neighbour in plane, slices repeated up and
down), four slices are painted, and the app's recipe trains for a short while; then the whole volume
is predicted. Prints one JSON line: seconds, the network's rate beside the machine's best matrix
product, and the peak of the process. Run every size in a process of its own.

    python benchmarks/speed.py CT.nii.gz CT.labels.nii.gz --side 512 --slices 133 --structures 12
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffseg_training.benchmark.machine import peak_memory, product_rate
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import read_labels, read_volume
from napari_diffseg.network.backbone import load_backbone


def sized(array: np.ndarray, side: int, slices: int) -> np.ndarray:
    """Bring ``(z, y, x)`` to ``slices`` of ``side`` squared: mirrored along z, nearest in plane."""
    count, rows, columns = array.shape
    order = np.abs((np.arange(slices) + count - 1) % max(2 * count - 2, 1) - (count - 1))
    y, x = (np.arange(side) * n // side for n in (rows, columns))
    return np.ascontiguousarray(array[order][:, y][:, :, x])


def main() -> None:
    """Train, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume")
    parser.add_argument("labels")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--slices", type=int, default=133)
    parser.add_argument("--structures", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=20.0, help="of training")
    options = parser.parse_args()

    volume = read_volume(options.volume)
    found = read_labels(options.labels, volume.geometry)
    labels = found.labels[: options.structures]
    mask = np.where(np.isin(found.mask, [label.id for label in labels]), found.mask, 0)
    dz, dy, dx = volume.geometry.spacing
    shape = (options.side, options.side, options.slices)
    scale = (volume.hu.shape[2] / options.side, volume.hu.shape[1] / options.side)
    affine = np.diag([dx * scale[0], dy * scale[1], dz, 1.0])
    hu = sized(volume.hu, options.side, options.slices)
    mask = sized(mask.astype(np.uint8), options.side, options.slices)
    volume = replace(volume, hu=hu, geometry=Geometry.from_affine(affine, shape))
    labelled = np.flatnonzero(mask.any(axis=(1, 2)))
    zs = labelled[np.linspace(0, len(labelled) - 1, 6).astype(int)[1:-1]]
    painted = [PaintedSlice(int(z), mask[z]) for z in zs]

    rate = product_rate(torch.device("cpu"))
    began = time.perf_counter()
    stages: dict[str, float] = {}
    for progress in finetune(
        volume, painted, labels, load_backbone(), TrainSettings(seconds=options.seconds)
    ):
        now = time.perf_counter() - began
        stages[progress.stage] = stages.get(progress.stage, 0.0) + now - sum(stages.values())
    segmenter = progress.segmenter
    trained = peak_memory()

    began = time.perf_counter()
    first = 0.0
    for _ in predict(segmenter, volume, painted, start=options.slices // 2):
        first = first or time.perf_counter() - began
    seconds = time.perf_counter() - began
    columns, multiple = segmenter.config.columns, segmenter.grid_multiple
    grid = SliceGrid.of(volume, columns, multiple, segmenter.intensity)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        segmenter(grid.image(volume.hu[:1]))
    flops = counter.get_total_flops() * options.slices
    print(
        json.dumps(
            {
                "shape": volume.hu.shape,
                "structures": len(labels),
                "grid": grid.size,
                "stages_s": {stage: round(spent, 1) for stage, spent in stages.items()},
                "first_slice_s": round(first, 2),
                "predict_s": round(seconds, 1),
                "predict_gflops": round(flops / seconds / 1e9),
                "product_gflops": round(rate),
                "trained_peak_gib": round(trained / 2**30, 2),
                "peak_gib": round(peak_memory() / 2**30, 2),
                "volume_gib": round(volume.hu.nbytes / 2**30, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
