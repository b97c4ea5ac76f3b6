"""Random walks on a slice, from what is known and to what is believed, along its edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.network.losses import UNKNOWN

_ROUNDS = 200  # of conjugate gradients
_LIKELY = 0.02  # classes that are less likely everywhere do not walk
_SURE = 0.98  # nor does anyone walk where all are surer than this
_MARGIN = 4  # pixels around the others


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
    rows, columns = (opinion.amax(dim=0) < _SURE).nonzero(as_tuple=True)
    if not len(rows):
        return opinion
    box = tuple(
        slice(max(int(at.min()) - _MARGIN, 0), int(at.max()) + _MARGIN + 1)
        for at in (rows, columns)
    )
    part = opinion[:, *box]
    likely = part.amax(dim=(1, 2)) > _LIKELY
    unknown = torch.full_like(image[box], UNKNOWN, dtype=torch.int64)
    walks = torch.zeros_like(part)
    # 9 HU of soft tissue; a pixel's own opinion counts a tenth of one neighbour's.
    walks[likely] = walked(part[likely], unknown, image[box], pull=0.1, edge=0.04, close=1e-2)
    found = opinion.clone()
    found[:, *box] = walks
    return found


def walked(
    opinion: Tensor, known: Tensor, image: Tensor, pull: float, edge: float, close: float = 1e-3
) -> Tensor:
    """Random walks from the known pixels, drawn to an opinion on the way.

    Parameters
    ----------
    opinion
        Class probabilities ``(classes, rows, columns)``.
    known
        Class indices ``(rows, columns)``, ``UNKNOWN`` where not known.
    image
        The slice on the soft-tissue window ``(rows, columns)``.
    pull
        Weight of the opinion of a pixel against one neighbour's.
    edge
        Difference between neighbours, in values of the image, that stops a walker.
    close
        Relative residual at which the conjugate gradients end.

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

    def applied(x: Tensor) -> Tensor:
        total = diagonal * x
        total[..., 1:].addcmul_(across, x[..., :-1], value=-1)
        total[..., :-1].addcmul_(across, x[..., 1:], value=-1)
        total[:, 1:].addcmul_(down, x[:, :-1], value=-1)
        total[:, :-1].addcmul_(down, x[:, 1:], value=-1)
        return total.mul_(free)

    def product(a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))[:, None, None]
        return found

    right = (pull * opinion).mul_(free) - applied(fixed)
    x = opinion * free
    residual = right - applied(x)
    direction = residual / diagonal
    height = product(residual, direction)
    enough = close * right.norm()
    for _ in range(_ROUNDS):
        if residual.norm() <= enough:
            break
        image_of = applied(direction)
        step = height / product(direction, image_of).clamp(min=1e-20)
        x.addcmul_(step, direction)
        residual.addcmul_(step, image_of, value=-1)
        scaled = residual / diagonal
        before, height = height, product(residual, scaled)
        direction = torch.addcmul(scaled, height / before.clamp(min=1e-20), direction)
    arrived = (x + fixed).clamp(min=0)
    return arrived / arrived.sum(dim=0).clamp(min=1e-6)
