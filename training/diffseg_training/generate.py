"""Generate CT slices with a backbone, and show them in the windows of the papers' figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffseg_training.diffusion import STEPS, sample, signal_levels
from diffseg_training.settings import PretrainError, SampleSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume, write_volume
from napari_diffseg.network.backbone import Backbone
from napari_diffseg.network.device import autocast, pick_device

WINDOWS = {"lung": (1400.0, -500.0), "abdomen": (350.0, 40.0)}
"""Width and level in HU (arXiv 2402.15216v2, Fig. 4)."""


@dataclass(frozen=True)
class Generated:
    """Progress of generation.

    Attributes
    ----------
    done, count
        Finished and wanted slices.
    step, steps
        Denoising steps of the current batch.
    hu
        Finished slices of this batch ``(n, N, N)`` float32 HU at its last step, else ``None``.
    """

    done: int
    count: int
    step: int
    steps: int
    hu: NDArray[np.float32] | None = None


def generate(backbone: Backbone, settings: SampleSettings) -> Iterator[Generated]:
    """Generate slices batch by batch, yielding after every denoising step.

    Raises
    ------
    PretrainError
        If the network is not conditioned on time, or the settings are out of range.
    """
    if not backbone.unet.config.time:
        raise PretrainError(f"{backbone.name}: has no time conditioning, so it cannot generate")
    if not 1 <= settings.steps <= STEPS or not 0 <= settings.eta <= 1:
        raise PretrainError(f"steps must be 1 to {STEPS} and eta 0 to 1")
    device = pick_device(settings.device)
    net = backbone.unet.to(device).eval()
    levels = signal_levels(backbone.schedule)
    size = backbone.unet.config.image_size
    ancestral = settings.method == "ddpm"
    steps, eta = (STEPS, 1.0) if ancestral else (settings.steps, settings.eta)

    @torch.no_grad()
    def predict(x: Tensor, t: Tensor) -> Tensor:
        with autocast(device):
            noise: Tensor = net(x, t)
        return noise

    for start in range(0, settings.count, settings.batch):
        end = min(start + settings.batch, settings.count)
        streams = [
            torch.Generator().manual_seed(settings.seed * 1_000_003 + n) for n in range(start, end)
        ]

        def draw(streams: list[torch.Generator] = streams) -> Tensor:
            noise = [torch.randn(1, size, size, generator=stream) for stream in streams]
            return torch.stack(noise).to(device)

        for state in sample(predict, draw, levels, steps, eta):
            last = state.step == steps
            hu = backbone.intensity.to_hu(state.images[:, 0].cpu().numpy()) if last else None
            yield Generated(end if last else start, settings.count, state.step, steps, hu)


def windowed(hu: NDArray[np.float32], window: str) -> NDArray[np.uint8]:
    """Grey values of HU of any shape in one of :data:`WINDOWS`."""
    width, level = WINDOWS[window]
    grey: NDArray[np.uint8] = np.rint(255 * np.clip((hu - level) / width + 0.5, 0, 1)).astype(
        np.uint8
    )
    return grey


def grid(hu: NDArray[np.float32], window: str, columns: int | None = None) -> NDArray[np.uint8]:
    """Slices ``(n, N, N)`` side by side in a window, with a white line between them."""
    n, height, width = hu.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), 255, np.uint8)
    for index, plane in enumerate(windowed(hu, window)):
        y, x = index // columns * (height + 1), index % columns * (width + 1)
        sheet[y : y + height, x : x + width] = plane
    return sheet


def write_figures(folder: Path, hu: NDArray[np.float32], stem: str = "samples") -> list[Path]:
    """Write one PNG grid for each of :data:`WINDOWS`, and the HU slices as NIfTI.

    The NIfTI says 1 mm everywhere: the network knows no millimetres.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for window in WINDOWS:
        path = folder / f"{stem}-{window}.png"
        matplotlib.image.imsave(path, np.repeat(grid(hu, window)[..., None], 3, axis=2))
        paths.append(path)
    n, height, width = hu.shape
    geometry = Geometry.from_affine(np.diag([-1.0, -1.0, 1.0, 1.0]), (width, height, n))
    path = folder / f"{stem}.nii.gz"
    write_volume(path, Volume(np.rint(hu).astype(np.int16), geometry, stem))
    return [*paths, path]
