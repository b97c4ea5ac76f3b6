"""Complete scribbled slices from their strokes, with the image and the network."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.random_walker import random_walker
from napari_diffseg.engine.registration import soft_tissue
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.device import autocast, upload
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter

PRIOR_EXPONENT = 0.5
"""Exponent of the class prior in the head's logits; of 0, 0.5 and 1 the best.

Elsewhere the propagated labels say how common a structure is, so the head counts it in part only.
"""

_BETA = 0.09**-2  # a step of 20 HU of soft tissue has the weight 1/e
_PRIOR_WEIGHT = 0.01


def class_prior(targets: Tensor, full: Tensor, classes: int) -> Tensor:
    """Share of each class ``(classes,)`` among the known pixels of painted slices.

    Parameters
    ----------
    targets
        Class indices ``(n, rows, columns)``, ``UNKNOWN`` where not painted.
    full
        Which slices are painted in full ``(n,)``: where there are any, only they count, for
        scribbles say less about how common a structure is.
    classes
        Number of classes, background included.

    Examples
    --------
    >>> class_prior(torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([True]), 3).tolist()
    [0.75, 0.25, 0.0]
    """
    counted = targets[full] if full.any() else targets
    count = counted[counted != UNKNOWN].bincount(minlength=classes)
    return count / count.sum()


def complete_scribbles(
    segmenter: Segmenter, grid: SliceGrid, volume: Volume, z: int, seeds: Tensor, prior: Tensor
) -> Tensor:
    """Class probabilities ``(classes, rows, columns)`` of a scribbled slice, on the CPU.

    Parameters
    ----------
    segmenter
        Trained on these scribbles.
    grid, volume, z
        Where the slice is.
    seeds
        Its class indices ``(rows, columns)`` on the grid, ``UNKNOWN`` where not painted.
    prior
        See :func:`class_prior`.
    """
    device = next(segmenter.parameters()).device
    training = segmenter.training
    segmenter.eval()
    try:
        with torch.inference_mode(), autocast(device):
            logits = segmenter(upload(grid.image(volume.hu[z][None]), device))[0].float().cpu()
    finally:
        segmenter.train(training)
    # No propagated labels say here how common a structure is, so the class prior counts in full.
    logits = logits + (1 - PRIOR_EXPONENT) * prior.cpu().clamp(min=1e-6).log()[:, None, None]
    (image,) = soft_tissue(grid, volume.hu[z][None])
    return random_walker(logits.softmax(dim=0), seeds.cpu(), image, _BETA, _PRIOR_WEIGHT)
