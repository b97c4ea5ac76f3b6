"""How like real slices generated ones are: FID, sFID, precision, recall and F1 on features.

FID is Heusel et al.'s; sFID is FID on a spatial feature map (Nash et al.); precision and recall are
Kynkäänniemi et al.'s with three neighbours, as in guided-diffusion's evaluator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 3


class Moments:
    """Mean and covariance of features that come in batches, in constant memory.

    Parameters
    ----------
    dims
        Features of each sample.
    """

    def __init__(self, dims: int) -> None:
        self.count = 0
        self._sum = torch.zeros(dims, dtype=torch.float64)
        self._products = torch.zeros(dims, dims, dtype=torch.float64)
        self._origin: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Take in features ``(n, dims)``."""
        values = features.detach().double().cpu()
        if self._origin is None:
            self._origin = values.mean(dim=0)  # sums about it do not cancel
        values = values - self._origin
        self.count += len(values)
        self._sum += values.sum(dim=0)
        self._products += values.T @ values

    @property
    def mean(self) -> Tensor:
        """Mean ``(dims,)`` float64."""
        assert self._origin is not None
        return self._origin + self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """Covariance ``(dims, dims)`` float64, divided by n - 1."""
        mean = self._sum / self.count
        return (self._products - self.count * torch.outer(mean, mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians with the moments of ``a`` and ``b``.

    The trace of the root of the covariances' product is the sum of the roots of the product's
    eigenvalues, which are those of the symmetric ``A^(1/2) B A^(1/2)``: no matrix root of a
    product, and no complex numbers.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    products = torch.linalg.eigvalsh(root @ b.covariance @ root)
    shift = (a.mean - b.mean).square().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    return float(shift + traces - 2 * products.clamp(min=0).sqrt().sum())


def precision_recall(
    real: Tensor, generated: Tensor, neighbours: int = NEIGHBOURS, chunk: int = 1024
) -> tuple[float, float]:
    """Share of generated samples within the real manifold, and the reverse.

    Parameters
    ----------
    real, generated
        Features ``(n, dims)`` and ``(m, dims)``.
    neighbours
        Each sample's ball reaches to its neighbour of this rank.
    chunk
        Rows of distances in memory at a time.
    """
    real, generated = real.double(), generated.double()
    return (
        _covered(real, generated, neighbours, chunk),
        _covered(generated, real, neighbours, chunk),
    )


def _covered(manifold: Tensor, queries: Tensor, neighbours: int, chunk: int) -> float:
    radii = torch.cat(
        [
            # The nearest is the sample itself.
            torch.cdist(rows, manifold).kthvalue(min(neighbours + 1, len(manifold)), dim=1).values
            for rows in torch.split(manifold, chunk)
        ]
    )
    inside = [
        (torch.cdist(rows, manifold) <= radii).any(dim=1) for rows in torch.split(queries, chunk)
    ]
    return float(torch.cat(inside).double().mean())


@dataclass(frozen=True)
class Quality:
    """Generative metrics of one set against another.

    Attributes
    ----------
    fid, sfid
        Fréchet distances, 0 is best; ``sfid`` is ``None`` without spatial features.
    precision, recall, f1
        0 to 1, 1 is best.
    real, generated
        Samples.
    dims
        Dimensions of the features of FID, and of sFID.
    notes
        What limits the figures.
    """

    fid: float
    sfid: float | None
    precision: float
    recall: float
    f1: float
    real: int
    generated: int
    dims: tuple[int, ...]
    notes: tuple[str, ...]


def evaluate(
    real: Tensor,
    generated: Tensor,
    real_spatial: Tensor | None = None,
    generated_spatial: Tensor | None = None,
) -> Quality:
    """Compare features ``(n, dims)`` of real and generated slices (arXiv 2402.15216v2, Table 1).

    Raises
    ------
    ValueError
        If a set has fewer than two samples, or the dimensions differ.
    """
    if min(len(real), len(generated)) < 2 or real.shape[1] != generated.shape[1]:
        raise ValueError("two or more samples a set, with features of the same extractor, needed")
    dims, notes, distances = [], [], []
    pairs = [("FID", real, generated)]
    if real_spatial is not None and generated_spatial is not None:
        pairs.append(("sFID", real_spatial, generated_spatial))
    for name, first, second in pairs:
        moments = []
        for features in (first, second):
            moments.append(Moments(features.shape[1]))
            for part in torch.split(features, 1024):
                moments[-1].add(part)
        distances.append(frechet_distance(*moments))
        dims.append(first.shape[1])
        fewest = min(len(first), len(second))
        if fewest <= first.shape[1]:
            notes.append(
                f"{name} is biased upwards: {fewest} samples are fewer than needed for a "
                f"covariance of {first.shape[1]} dimensions; compare only equal numbers of samples"
            )
    precision, recall = precision_recall(real, generated)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    sfid = distances[1] if len(distances) > 1 else None
    sizes = (len(real), len(generated))
    return Quality(
        distances[0], sfid, precision, recall, f1, *sizes, dims=tuple(dims), notes=tuple(notes)
    )
