"""Random walks on a slice, from what is known and to what is believed, along its edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.losses import UNKNOWN

_ROUNDS = 200  # of conjugate gradients
_CLOSE = 1e-3  # residual, relative, at which they end
_LIKELY = 0.02  # classes that are less likely everywhere do not walk


def refined(opinion: Tensor, image: Tensor) -> Tensor:
    """Class probabilities whose outlines follow the edges of the image.

    Parameters
    ----------
    opinion
        Class probabilities ``(classes, rows, columns)``.
    image
        The slice on the soft-tissue window ``(rows, columns)``.

    Returns
    -------
    Tensor
        As ``opinion``: each pixel hears its neighbours, and those across an edge hardly.
    """
    likely = opinion.amax(dim=(1, 2)) > _LIKELY
    unknown = torch.full_like(image, UNKNOWN, dtype=torch.int64)
    # 9 HU of soft tissue; a pixel's own opinion counts a tenth of one neighbour's.
    found = torch.zeros_like(opinion)
    found[likely] = walked(opinion[likely], unknown, image, pull=0.1, edge=0.04)
    return found


def walked(opinion: Tensor, known: Tensor, image: Tensor, pull: float, edge: float) -> Tensor:
    """Random walks from the known pixels, drawn to an opinion on the way.

    Parameters
    ----------
    opinion
        Class probabilities ``(classes, rows, columns)``.
    known
        Class indices ``(rows, columns)``, :data:`~napari_diffseg.losses.UNKNOWN` where not known.
    image
        The slice on the soft-tissue window ``(rows, columns)``.
    pull
        Weight of the opinion of a pixel against one neighbour's.
    edge
        Difference between neighbours, in values of the image, that stops a walker.

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
    across = torch.exp(-(((image[:, 1:] - image[:, :-1]) / edge) ** 2)) + 1e-6
    down = torch.exp(-(((image[1:] - image[:-1]) / edge) ** 2)) + 1e-6
    diagonal = pull + F.pad(across, (1, 0)) + F.pad(across, (0, 1))
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

    right = (neighbours(fixed) + pull * opinion) * free
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
