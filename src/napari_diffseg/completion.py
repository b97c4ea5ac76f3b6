"""Complete scribbled slices: from the strokes outwards, as image and network suggest."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.device import autocast, upload
from napari_diffseg.losses import UNKNOWN
from napari_diffseg.motion import SOFT_TISSUE
from napari_diffseg.segmenter import Segmenter
from napari_diffseg.slices import SliceGrid
from napari_diffseg.volume import Volume

COUNTED = 0.5
"""How much of the classes' frequency the head counts; of the weights tried (0, 0.5, 1) the best."""

_EDGE = 0.09  # 20 HU of soft tissue in network values: a difference that stops a walker
_PULL = 0.01  # weight of the network's opinion of a pixel against one neighbour's
_ROUNDS = 200  # of conjugate gradients
_CLOSE = 1e-3  # residual, relative, at which they end


def frequency(targets: Tensor, full: Tensor, classes: int) -> Tensor:
    """Share of each class ``(classes,)`` among the known pixels of painted slices.

    Parameters
    ----------
    targets
        Class indices ``(n, rows, columns)``, :data:`~napari_diffseg.losses.UNKNOWN` where not
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
        :data:`~napari_diffseg.losses.UNKNOWN` where not painted.
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
    soft = replace(grid, intensity=SOFT_TISSUE).image(volume.hu[z][None])[0, 0]
    return walked(logits.softmax(dim=0), known.cpu(), soft)


def walked(opinion: Tensor, known: Tensor, image: Tensor) -> Tensor:
    """Random walks from the known pixels, drawn to an opinion on the way.

    Parameters
    ----------
    opinion
        Class probabilities ``(classes, rows, columns)``.
    known
        Class indices ``(rows, columns)``, :data:`~napari_diffseg.losses.UNKNOWN` where not known.
    image
        The slice on the soft-tissue window ``(rows, columns)``.

    Returns
    -------
    Tensor
        Probability of each class at which a walker from each pixel arrives
        ``(classes, rows, columns)``; 1 at known pixels.

    Notes
    -----
    Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005, eq. 12,
    solved by conjugate gradients with the diagonal as preconditioner.
    """
    image = image.clamp(-0.9, 0.9)
    across = torch.exp(-(((image[:, 1:] - image[:, :-1]) / _EDGE) ** 2)) + 1e-6
    down = torch.exp(-(((image[1:] - image[:-1]) / _EDGE) ** 2)) + 1e-6
    diagonal = _PULL + F.pad(across, (1, 0)) + F.pad(across, (0, 1))
    diagonal += F.pad(down, (0, 0, 1, 0)) + F.pad(down, (0, 0, 0, 1))
    free = known == UNKNOWN
    fixed = F.one_hot(known.masked_fill(free, 0), len(opinion)).movedim(-1, 0).float() * ~free

    def neighbours(x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        total[..., 1:] += across * x[..., :-1]
        total[..., :-1] += across * x[..., 1:]
        total[:, 1:] += down * x[:, :-1]
        total[:, :-1] += down * x[:, 1:]
        return total

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dim=(1, 2), keepdim=True)

    right = (neighbours(fixed) + _PULL * opinion) * free
    x = opinion * free
    residual = right - (diagonal * x - neighbours(x)) * free
    direction = residual / diagonal
    height = product(residual, direction)
    for _ in range(_ROUNDS):
        if residual.norm() <= _CLOSE * right.norm():
            break
        image_of = (diagonal * direction - neighbours(direction)) * free
        step = height / product(direction, image_of).clamp(min=1e-20)
        x += step * direction
        residual -= step * image_of
        scaled = residual / diagonal
        before, height = height, product(residual, scaled)
        direction = scaled + height / before.clamp(min=1e-20) * direction
    arrived = (x + fixed).clamp(min=0)
    return arrived / arrived.sum(dim=0).clamp(min=1e-6)
