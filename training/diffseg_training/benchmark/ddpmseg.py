"""DDPM-Seg (Baranchuk et al., ICLR 2022) on our backbones, in bounded memory.

Noised slices go through the frozen U-Net. The maps of some decoder blocks at some timesteps are
the features of a pixel; ten small networks are trained on pixels, and vote. The authors hold the
features of all training pixels in memory (more than 210 GB in arXiv 2402.15216v2). Here they are
read off the maps at sampled pixels only, and prediction takes a few thousand pixels at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffseg_training.benchmark.grids import segmented, square_grid, training_pairs
from diffseg_training.benchmark.supervised import share_left
from diffseg_training.benchmark.tasks import BenchmarkTask, LearningBudget, Outcome
from diffseg_training.diffusion import add_noise, signal_levels
from napari_diffseg.network.backbone import Backbone, load_backbone
from napari_diffseg.network.device import autocast, pick_device
from napari_diffseg.network.losses import UNKNOWN

BLOCKS = (5, 6, 7, 8, 12)
"""Decoder blocks of guided-diffusion's 18, finest last; other depths take the same fractions."""
TIMESTEPS = (50, 150, 250)
_STAGES = 18
_CHUNK = 16_384
_BATCH = 256


def ddpm_seg(
    task: BenchmarkTask,
    backbone: str | Path | None = None,
    side: int | None = None,
    voters: int = 10,
    pixels: int = 40_000,
    learning_rate_factor: float = 1.0,
) -> Outcome:
    """Segment with an ensemble of pixel networks on diffusion features.

    Parameters
    ----------
    task
        What to learn from and what to segment. Seconds are shared by feature extraction and all
        voters; iterations count for each voter.
    backbone
        Name or file; the shipped one by default.
    side
        Pixels along the square model grid; the backbone's by default.
    voters
        Pixel networks.
    pixels
        Most training pixels, evenly from all classes as far as they go.
    learning_rate_factor
        Learning rate of the voters, as a multiple of the authors' 1e-3.
    """
    loaded = load_backbone(backbone)
    side = side or loaded.unet.config.image_size
    torch.manual_seed(task.seed)
    features_at = PixelFeatures(loaded, pick_device(task.device), task.seed)
    began = time.perf_counter()
    images, classes = training_pairs(task, side, loaded.intensity)
    where = _sampled(classes, pixels, torch.Generator().manual_seed(task.seed))
    features = torch.cat(
        [
            torch.cat(list(features_at(images[n : n + 1], where[where[:, 0] == n, 1:])))
            for n in range(len(images))
        ]
    )
    # `where` is sorted by slice, as the features are.
    targets = classes[where[:, 0], where[:, 1], where[:, 2]]
    ensemble = nn.ModuleList()
    steps = 0
    for voter in range(voters):
        seconds = task.budget.seconds
        if seconds is not None:
            spent = time.perf_counter() - began
            seconds = max((seconds - spent) / (voters - voter), 0.01)
        network, taken = _train_voter(
            features,
            targets,
            len(task.labels) + 1,
            LearningBudget(seconds, task.budget.iterations),
            voter,
            1e-3 * learning_rate_factor,
        )
        ensemble.append(network)
        steps += taken
    fitted = time.perf_counter() - began
    everywhere = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    classes_count = len(task.labels) + 1

    def voted(part: Tensor) -> Tensor:
        with autocast(part.device):
            winners = [network(part).argmax(1) for network in ensemble]
        return torch.stack([F.one_hot(one, classes_count).float() for one in winners]).mean(0)

    def probabilities(batch: Tensor) -> Tensor:
        shares = []
        for image in batch:
            votes = [voted(part) for part in features_at(image[None], everywhere)]
            shares.append(torch.cat(votes).reshape(side, side, -1).movedim(-1, 0).cpu())
        return torch.stack(shares)

    masks = tuple(
        segmented(volume, square_grid(volume, side, loaded.intensity), task, probabilities)
        for volume in task.test
    )
    return Outcome(masks, fitted, steps, f"backbone {loaded.name}, {features.shape[1]} features")


class PixelFeatures:
    """Features of pixels: decoder maps of the noised slice, read off at the pixels.

    The noise is drawn once and is the same for every slice, as the authors do it.
    """

    def __init__(self, backbone: Backbone, device: torch.device, seed: int) -> None:
        self.unet = backbone.unet.eval().to(device)
        self.device = device
        self.levels = signal_levels(backbone.schedule).to(device)
        self.generator_seed = seed
        stages = len(self.unet.decoder)
        self.blocks = sorted({round(b * (stages - 1) / (_STAGES - 1)) for b in BLOCKS})

    def __call__(self, image: Tensor, pixels: Tensor) -> Iterator[Tensor]:
        """Describe pixels ``(n, 2)`` (row, column) of an image ``(1, 1, N, N)``, in chunks.

        Yields
        ------
        Tensor
            ``(chunk, features)``, float32, on the network's device.
        """
        x = image.to(self.device)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(self.generator_seed))
        maps: list[Tensor] = []
        with torch.inference_mode(), autocast(self.device):
            for t in TIMESTEPS:
                step = torch.tensor([t], device=self.device)
                noised = add_noise(x, noise.to(self.device), step, self.levels)
                levels = self.unet.decode_levels(self.unet.encode(noised, step))
                maps += [levels[block].float() for block in self.blocks]
        for part in torch.split(pixels, _CHUNK):
            # Pixel centres in grid_sample's coordinates, where the borders are -1 and 1.
            at = (2 * part.flip(-1).to(self.device) + 1) / x.shape[-1] - 1
            read = [
                F.grid_sample(m, at[None, None], padding_mode="border", align_corners=False)
                for m in maps
            ]
            yield torch.cat([r[0, :, 0] for r in read]).T


def _sampled(classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Pixels ``(n, 3)`` (slice, row, column), sorted by slice, evenly from all classes."""
    values = [v for v in np.unique(classes.numpy()).tolist() if v != UNKNOWN]
    picked: list[Tensor] = []
    for place, value in enumerate(sorted(values, key=lambda v: int((classes == v).sum()))):
        found = (classes == value).nonzero()
        share = (count - sum(len(one) for one in picked)) // (len(values) - place)
        picked.append(found[torch.randperm(len(found), generator=generator)[:share]])
    where = torch.cat(picked)
    return where[where[:, 0].argsort(stable=True)]


def _train_voter(
    features: Tensor,
    targets: Tensor,
    classes: int,
    budget: LearningBudget,
    seed: int,
    learning_rate: float,
) -> tuple[nn.Module, int]:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(features.shape[1], 128),
        nn.ReLU(),
        nn.BatchNorm1d(128),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.BatchNorm1d(32),
        nn.Linear(32, classes),
    ).to(features.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    targets = targets.to(features.device)
    began, steps = time.perf_counter(), 0
    while share_left(budget, steps, time.perf_counter() - began) > 0:
        chosen = torch.randint(len(features), (_BATCH,), generator=generator)
        loss = F.cross_entropy(network(features[chosen]), targets[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    return network.eval(), steps
