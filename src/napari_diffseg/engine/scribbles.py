"""Complete scribbled slices: from the strokes outwards, as image and network suggest."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.random_walker import walked
from napari_diffseg.engine.registration import soft_tissue
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.device import autocast, upload
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter

COUNTED = 0.5
"""How much of the classes' frequency the head counts; of the weights tried (0, 0.5, 1) the best."""

_EDGE = 0.09  # 20 HU of soft tissue in network values: a difference that stops a walker
_PULL = 0.01  # weight of the network's opinion of a pixel against one neighbour's


def frequency(targets: Tensor, full: Tensor, classes: int) -> Tensor:
    """Share of each class ``(classes,)`` among the known pixels of painted slices.

    Parameters
    ----------
    targets
        Class indices ``(n, rows, columns)``, ``UNKNOWN`` where not
        painted.
    full
        Which slices are painted in full ``(n,)``: where there are any, only they count, for
        scribbles tell less of how common a structure is.
    classes
        Number of classes, background included.
    """
    counted = targets[full] if full.any() else targets
    count = counted[counted != UNKNOWN].bincount(minlength=classes)
    return count / count.sum()


def completed(
    segmenter: Segmenter, grid: SliceGrid, volume: Volume, z: int, known: Tensor, common: Tensor
) -> Tensor:
    """Class probabilities ``(classes, rows, columns)`` of a scribbled slice, on the CPU.

    Parameters
    ----------
    segmenter
        Trained on these scribbles.
    grid, volume, z
        Where the slice is.
    known
        Its class indices ``(rows, columns)`` on the grid,
        ``UNKNOWN`` where not painted.
    common
        See :func:`frequency`.
    """
    device = next(segmenter.parameters()).device
    training = segmenter.training
    segmenter.eval()
    try:
        with torch.inference_mode(), autocast(device):
            logits = segmenter(upload(grid.image(volume.hu[z][None]), device))[0].float().cpu()
    finally:
        segmenter.train(training)
    # Elsewhere the travelled labels say how common a structure is, so the head counts it in part;
    # here nothing else does.
    logits = logits + (1 - COUNTED) * common.cpu().clamp(min=1e-6).log()[:, None, None]
    (soft,) = soft_tissue(grid, volume.hu[z][None])
    return walked(logits.softmax(dim=0), known.cpu(), soft, _PULL, _EDGE)
