"""Segmentation losses on class maps with unknown pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

UNKNOWN = 255
"""Class index of pixels that nobody has labelled; they carry no loss."""

_NEVER = -1e4  # logit of a class that cannot be; finite, for its probability is a factor


def merge_unknown(logits: Tensor, unknown: Tensor) -> Tensor:
    """Count classes that a case does not know as background.

    What is background to someone who did not look for a structure may be that structure: the
    probabilities of background and of all unknown classes are added up, and the unknown ones get
    none of their own.

    Parameters
    ----------
    logits
        ``(N, K, ...)``.
    unknown
        Which classes nobody looked for ``(N, K)``; never background.

    Returns
    -------
    Tensor
        Logits of the merged classes, as ``logits``.

    Notes
    -----
    The marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised
    multi-organ segmentation", Medical Image Analysis 70 (2021).

    Examples
    --------
    >>> logits = torch.zeros(1, 3)
    >>> merge_unknown(logits, torch.tensor([[False, False, True]])).softmax(dim=1)
    tensor([[0.6667, 0.3333, 0.0000]])
    """
    away = unknown.reshape(*unknown.shape, *[1] * (logits.dim() - 2))
    kept = away.clone()
    kept[:, 0] = True
    background = logits.masked_fill(~kept, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:].masked_fill(away[:, 1:], _NEVER)], dim=1)


def _one_hot(target: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    known = (target != UNKNOWN)[:, None]
    hot = F.one_hot(target.where(target != UNKNOWN, torch.zeros_like(target)), classes)
    return hot.movedim(-1, 1).float() * known, known.float()


def dice_paper(logits: Tensor, target: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Dice loss of the papers: sums over batch, pixels and all classes.

    Parameters
    ----------
    logits
        ``(B, K, H, W)``.
    target
        Class indices ``(B, H, W)``; :data:`UNKNOWN` is left out.
    epsilon
        Smoothing term.

    Notes
    -----
    arXiv 2402.15216v2, Eq. 8. With every pixel known both sums over all classes count pixels, so
    this equals one minus the mean probability of the true class; it does not balance classes.
    """
    hot, known = _one_hot(target, logits.shape[1])
    p = logits.softmax(dim=1) * known
    return 1 - (2 * (p * hot).sum() + epsilon) / (p.sum() + hot.sum() + epsilon)


def dice_macro(logits: Tensor, target: Tensor, epsilon: float = 1.0) -> Tensor:
    """Soft Dice loss averaged over the classes that occur in ``target``, background included."""
    hot, known = _one_hot(target, logits.shape[1])
    p = logits.softmax(dim=1) * known
    overlap, size = (p * hot).sum((0, 2, 3)), (p + hot).sum((0, 2, 3))
    present = hot.sum((0, 2, 3)) > 0
    dice = (2 * overlap + epsilon) / (size + epsilon)
    # Zero where nothing is known: there is no class to average over.
    return 1 - dice[present].mean() if present.any() else (0 * logits).sum()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the known pixels."""
    known = (target != UNKNOWN).sum().clamp(min=1)
    return F.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="sum") / known


def paper_loss(logits: Tensor, target: Tensor) -> Tensor:
    """0.5 cross-entropy + 0.5 Dice (arXiv 2402.15216v2, Eq. 6 to 8)."""
    return 0.5 * cross_entropy(logits, target) + 0.5 * dice_paper(logits, target)


def app_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy and class-averaged Dice, so that small structures count."""
    return 0.5 * cross_entropy(logits, target) + 0.5 * dice_macro(logits, target)
