"""Random walker with a prior on one slice: labels extend to the edges of the image.

scikit-image's ``random_walker`` takes seeds and no prior, and copies every channel to the CPU in
float64; here the prior is most of what is known, and a slice must take milliseconds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.network.losses import UNKNOWN

_MAX_ITERATIONS = 200  # of conjugate gradients
_MIN_PROBABILITY = 0.02  # classes that are nowhere likelier are left out
_MAX_CONFIDENCE = 0.98  # where the prior is surer than this, nothing is solved
_MARGIN = 4  # pixels around the others
_OUTLINE_BETA = 0.04**-2  # a step of 9 HU of soft tissue has the weight 1/e
_OUTLINE_PRIOR_WEIGHT = 0.1


def refine_outlines(prior: Tensor, image: Tensor, seeds: Tensor | None = None) -> Tensor:
    """Class probabilities whose outlines follow the edges of the image.

    Parameters
    ----------
    prior
        Class probabilities ``(classes, rows, columns)``.
    image
        The slice on the soft-tissue window ``(rows, columns)``.
    seeds
        Class indices ``(rows, columns)`` of painted pixels, ``UNKNOWN`` elsewhere.

    Returns
    -------
    Tensor
        As ``prior``: averaged over neighbours, but hardly across an edge; 1 at the seeds. Solved
        only in the box around unsure pixels.
    """
    if seeds is None:
        seeds = torch.full_like(image, UNKNOWN, dtype=torch.int64)
    known = seeds != UNKNOWN
    unsure = prior.amax(dim=0) < _MAX_CONFIDENCE
    if known.any():
        unsure |= known & (prior.argmax(dim=0) != seeds)
        prior = with_seeds(prior, seeds)
    rows, columns = unsure.nonzero(as_tuple=True)
    if not len(rows):
        return prior
    box = tuple(
        slice(max(int(at.min()) - _MARGIN, 0), int(at.max()) + _MARGIN + 1)
        for at in (rows, columns)
    )
    part = prior[:, *box]
    likely = part.amax(dim=(1, 2)) > _MIN_PROBABILITY  # every class with a seed in the box is
    position = torch.full((UNKNOWN + 1,), UNKNOWN, dtype=torch.int64, device=seeds.device)
    position[: len(prior)][likely] = torch.arange(int(likely.sum()), device=seeds.device)
    solved = torch.zeros_like(part)
    solved[likely] = random_walker(
        part[likely],
        position[seeds[box]],
        image[box],
        _OUTLINE_BETA,
        _OUTLINE_PRIOR_WEIGHT,
        tolerance=1e-2,
    )
    refined = prior.clone()
    refined[:, *box] = solved
    return refined


def with_seeds(p: Tensor, seeds: Tensor) -> Tensor:
    """Class probabilities ``(classes, rows, columns)`` with certainty at the seeds."""
    known = seeds != UNKNOWN
    certain = F.one_hot(seeds.masked_fill(~known, 0), len(p)).movedim(-1, 0).to(p.dtype)
    return torch.where(known, certain, p)


def random_walker(
    prior: Tensor,
    seeds: Tensor,
    image: Tensor,
    beta: float,
    prior_weight: float,
    tolerance: float = 1e-3,
) -> Tensor:
    """Probability that a random walker from each pixel first arrives at each class.

    Parameters
    ----------
    prior
        Class probabilities ``(classes, rows, columns)``.
    seeds
        Class indices ``(rows, columns)``, ``UNKNOWN`` where there is no seed.
    image
        The slice on the soft-tissue window ``(rows, columns)``.
    beta
        Neighbours that differ by d are joined by the weight exp(-beta d²).
    prior_weight
        Weight of a pixel's prior against one equal neighbour.
    tolerance
        Relative residual at which the conjugate gradients end.

    Returns
    -------
    Tensor
        Class probabilities ``(classes, rows, columns)``; 1 at the seeds.

    Notes
    -----
    Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005, Eq. 12,
    solved by conjugate gradients with the diagonal as preconditioner.
    """
    image = image.clamp(-0.9, 0.9)
    across = torch.exp(-beta * (image[:, 1:] - image[:, :-1]) ** 2) + 1e-6
    down = torch.exp(-beta * (image[1:] - image[:-1]) ** 2) + 1e-6
    diagonal = prior_weight + F.pad(across, (1, 0)) + F.pad(across, (0, 1))
    diagonal += F.pad(down, (0, 0, 1, 0)) + F.pad(down, (0, 0, 0, 1))
    free = seeds == UNKNOWN
    fixed = F.one_hot(seeds.masked_fill(free, 0), len(prior)).movedim(-1, 0).float() * ~free

    def laplacian(x: Tensor) -> Tensor:
        total = diagonal * x
        total[..., 1:].addcmul_(across, x[..., :-1], value=-1)
        total[..., :-1].addcmul_(across, x[..., 1:], value=-1)
        total[:, 1:].addcmul_(down, x[:, :-1], value=-1)
        total[:, :-1].addcmul_(down, x[:, 1:], value=-1)
        return total.mul_(free)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))[:, None, None]
        return product

    right = (prior_weight * prior).mul_(free) - laplacian(fixed)
    x = prior * free
    residual = right - laplacian(x)
    direction = residual / diagonal
    height = dot(residual, direction)
    enough = tolerance * right.norm()
    for _ in range(_MAX_ITERATIONS):
        if residual.norm() <= enough:
            break
        image_of = laplacian(direction)
        step = height / dot(direction, image_of).clamp(min=1e-20)
        x.addcmul_(step, direction)
        residual.addcmul_(step, image_of, value=-1)
        scaled = residual / diagonal
        before, height = height, dot(residual, scaled)
        direction = torch.addcmul(scaled, height / before.clamp(min=1e-20), direction)
    arrived = (x + fixed).clamp(min=0)
    return arrived / arrived.sum(dim=0).clamp(min=1e-6)
