"""CT-like volumes, a tiny network, and training in a child process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import nibabel as nib
import numpy as np

from diffseg_training.settings import Recipe, Source
from napari_diffseg.network.unet import UNetConfig

TINY = UNetConfig(16, (8, 16), 1, (8,), 8, "conv")
TINY_TOML = """
[unet]
image_size = 16
widths = [8, 16]
blocks = 1
attention = [8]
head_channels = 8
"""
SOURCES = (Source(r"(?P<patient>patient\d+)", "Test", "CC0"),)


def write_ct(path: Path, seed: int, slices: int = 6, side: int = 20) -> np.ndarray:
    """A bright ellipse with a bone in it, in noise; the array as stored (x, y, z)."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    planes = []
    for _ in range(slices):
        a, b, cx = *rng.uniform(0.5, 0.9, 2), rng.uniform(-0.3, 0.3)
        plane = np.where((x / a) ** 2 + (y / b) ** 2 < 1, 40, -1000)
        plane = np.where((x - cx) ** 2 + y**2 < 0.04, 700, plane)
        planes.append(plane + rng.normal(0, 15, plane.shape))
    hu = np.stack(planes, -1).astype(np.int16)
    write_stored(path, hu)
    return hu


def write_stored(path: Path, hu: np.ndarray) -> None:
    """Write an array (x, y, z) whose axes run left, posterior, superior."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 5.0, 1.0])), path)


def losses(recipe: Recipe, data: Path, out: Path) -> dict[int, float]:
    from diffseg_training.train import train

    return {progress.step: progress.loss for progress in train(recipe, data, out)}


def _follow(
    recipe: Recipe, data: Path, out: Path, environment: dict[str, str], line: Connection
) -> None:
    from diffseg_training.train import train

    os.environ.update(environment)
    for progress in train(recipe, data, out):
        line.send((progress.step, progress.loss))


@contextmanager
def training_child(
    recipe: Recipe, data: Path, out: Path, **environment: str
) -> Iterator[tuple[ForkServerProcess, Connection]]:
    """Train in another process; yields it, and the line on which it sends step and loss."""
    # One server imports torch and MONAI once; every child is a copy of it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["diffseg_training.train"])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_follow, args=(recipe, data, out, environment, theirs))
    child.start()
    theirs.close()
    try:
        yield child, ours
    finally:
        child.kill()
        child.join()
