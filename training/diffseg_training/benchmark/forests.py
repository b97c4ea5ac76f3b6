"""Pixel classifiers: a random forest on hand-made features, or on a pre-trained network's.

The first is ilastik's way, the second convpaint's with our own backbone in the place of its VGG.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from diffseg_training.benchmark.grids import (
    segmented,
    square_grid,
    task_intensity,
    training_pairs,
)
from diffseg_training.benchmark.tasks import BenchmarkTask, Outcome
from napari_diffseg.network.backbone import Intensity, load_backbone
from napari_diffseg.network.device import pick_device
from napari_diffseg.network.losses import UNKNOWN

_Features = Callable[[Tensor], NDArray[np.float32]]
_PIXELS_OF_A_CLASS = 4000


def handmade_forest(task: BenchmarkTask, side: int = 128) -> Outcome:
    """Segment with a random forest on Gaussians, edges and Hessian eigenvalues at six scales.

    Parameters
    ----------
    task
        What to learn from and what to segment.
    side
        Pixels along the square model grid.
    """

    def features(images: Tensor) -> NDArray[np.float32]:
        return np.stack(
            [
                multiscale_basic_features(image, sigma_min=0.7, sigma_max=16)
                for image in images[:, 0].numpy()
            ]
        ).astype(np.float32)

    return _forest(task, side, task_intensity(task), features)


def backbone_forest(
    task: BenchmarkTask, backbone: str | Path | None = None, side: int = 128, timestep: int = 0
) -> Outcome:
    """Segment with a random forest on the frozen maps of every second decoder stage.

    Parameters
    ----------
    task
        What to learn from and what to segment.
    backbone
        Name or file; the shipped one by default.
    side
        Pixels along the square model grid.
    timestep
        Diffusion timestep at which the network sees the clean slice.
    """
    loaded = load_backbone(backbone)
    device = pick_device(task.device)
    unet = loaded.unet.eval().to(device)

    def features(images: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            maps = unet.decode_levels(unet.encode(images.to(device), timestep))
            size = images.shape[-2:]
            big = [F.interpolate(m.float(), size, mode="bilinear") for m in maps[::-2]]
        return torch.cat(big, dim=1).movedim(1, -1).cpu().numpy()

    return _forest(task, side, loaded.intensity, features)


def _forest(task: BenchmarkTask, side: int, intensity: Intensity, features: _Features) -> Outcome:
    began = time.perf_counter()
    images, classes = training_pairs(task, side, intensity)
    known = classes.numpy().reshape(-1)
    described = features(images).reshape(len(known), -1)
    # Background is nine tenths of the pixels: no class needs more than a few thousand.
    rng = np.random.default_rng(task.seed)
    picked = np.concatenate(
        [
            rng.permutation(np.flatnonzero(known == value))[:_PIXELS_OF_A_CLASS]
            for value in np.unique(known[known != UNKNOWN])
        ]
    )
    forest = RandomForestClassifier(
        n_estimators=100, min_samples_leaf=2, n_jobs=torch.get_num_threads(), random_state=task.seed
    )
    forest.fit(described[picked], known[picked])
    columns = torch.from_numpy(forest.classes_.astype(np.int64))

    def probabilities(batch: Tensor) -> Tensor:
        found = torch.from_numpy(
            forest.predict_proba(features(batch).reshape(-1, described.shape[1]))
        )
        scores = torch.zeros(len(found), len(task.labels) + 1)
        scores[:, columns] = found.float()
        return scores.reshape(len(batch), side, side, -1).movedim(-1, 1)

    fitted = time.perf_counter() - began
    masks = tuple(
        segmented(volume, square_grid(volume, side, intensity), task, probabilities)
        for volume in task.test
    )
    return Outcome(masks, fitted)
