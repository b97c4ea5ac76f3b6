"""Convpaint as its authors ship it: VGG16's first maps at three scales, and CatBoost."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffseg_training.benchmark.grids import (
    segmented,
    square_grid,
    task_intensity,
    training_pairs,
)
from diffseg_training.benchmark.networks import NetworkError, encoder_weights
from diffseg_training.benchmark.tasks import BenchmarkTask, Outcome
from napari_diffseg.network.losses import UNKNOWN

_ENCODER = "vgg16"


def convpaint(task: BenchmarkTask, side: int = 128) -> Outcome:
    """Segment with the package napari-convpaint.

    Its default model: first layer of VGG16, scales 1, 2 and 4, CatBoost with 100 trees. Slices
    are normalised one by one, because they are predicted a few at a time. Without ImageNet
    weights in a file VGG16 is random, and the row says so.

    Parameters
    ----------
    task
        What to learn from and what to segment.
    side
        Pixels along the square model grid.

    Raises
    ------
    NetworkError
        If napari-convpaint is not installed.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # the package imports its window
    try:
        package = importlib.import_module("napari_convpaint")
        layers = importlib.import_module("napari_convpaint.feature_extractors.nnlayers")
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise NetworkError(
            "napari-convpaint is not installed: run make benchmark-env, or "
            "pip install 'napari-diffseg[benchmarks]'"
        ) from error
    torch.manual_seed(task.seed)
    vgg = models.vgg16().eval()
    weights, note = encoder_weights(_ENCODER)
    if weights is not None:
        vgg.load_state_dict(weights)
    # The package would download the weights; it gets ours.
    layers.Hookmodel.create_model = staticmethod(lambda model_name: vgg)
    began = time.perf_counter()
    intensity = task_intensity(task)
    images, classes = training_pairs(task, side, intensity)
    model: Any = package.ConvpaintModel()
    model.set_params(normalize=3, tile_annotations=False, ignore_warnings=True)
    annotations = np.where(classes == UNKNOWN, 0, classes + 1).astype(np.uint8)
    with contextlib.redirect_stdout(io.StringIO()):  # a line for each tree
        model.train(images[:, 0].numpy(), annotations, fe_use_device="cpu", clf_use_device="cpu")
    columns = torch.as_tensor(np.asarray(model.classifier.classes_, np.int64).ravel()) - 1
    fitted = time.perf_counter() - began

    def probabilities(batch: Tensor) -> Tensor:
        found = model.predict_probas(batch[:, 0].numpy(), fe_use_device="cpu")
        scores = torch.zeros(len(batch), len(task.labels) + 1, side, side)
        scores[:, columns] = torch.from_numpy(np.asarray(found, np.float32)).movedim(0, 1)
        return scores

    masks = tuple(
        segmented(volume, square_grid(volume, side, intensity), task, probabilities)
        for volume in task.test
    )
    return Outcome(masks, fitted, note=note)
