"""The losses: the papers' equations, unknown pixels, class balance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_diffseg.network.losses import (
    UNKNOWN,
    app_loss,
    cross_entropy,
    dice_macro,
    dice_paper,
    paper_loss,
)

_ALL = [app_loss, cross_entropy, dice_macro, dice_paper, paper_loss]


def _case(classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 12, 10, generator=generator)
    return logits, torch.randint(classes, (2, 12, 10), generator=generator)


def _sure_of(target: Tensor, classes: int, margin: float = 30.0) -> Tensor:
    hot = torch.nn.functional.one_hot(target.where(target != UNKNOWN, 0), classes)
    return hot.movedim(-1, 1).float() * margin


@pytest.mark.parametrize("seed", range(3))
def test_dice_of_the_papers_is_one_minus_the_mean_probability_of_the_truth(seed: int) -> None:
    logits, target = _case(seed=seed)
    true = logits.softmax(dim=1).gather(1, target[:, None])
    torch.testing.assert_close(dice_paper(logits, target), 1 - true.mean(), rtol=1e-4, atol=1e-5)


def test_papers_loss_is_half_cross_entropy_half_dice() -> None:
    logits, target = _case()
    expected = 0.5 * torch.nn.functional.cross_entropy(logits, target)
    expected = expected + 0.5 * (1 - logits.softmax(1).gather(1, target[:, None]).mean())
    torch.testing.assert_close(paper_loss(logits, target), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", _ALL)
def test_unknown_pixels_carry_no_gradient_and_no_value(loss) -> None:
    logits, target = _case()
    target[:, ::2, ::3] = UNKNOWN
    unknown = (target == UNKNOWN)[:, None].expand_as(logits)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert leaf.grad is not None
    assert leaf.grad[unknown].abs().max() == 0
    assert leaf.grad[~unknown].abs().max() > 0
    other = torch.where(unknown, torch.flip(logits, (1,)) * 9, logits)
    torch.testing.assert_close(loss(other, target), value.detach())


@pytest.mark.parametrize("loss", [cross_entropy, dice_paper, paper_loss])
def test_all_unknown_is_finite(loss) -> None:
    """A batch drawn from scribbles may miss every stroke."""
    logits, target = _case()
    assert torch.isfinite(loss(logits, torch.full_like(target, UNKNOWN)))


@pytest.mark.parametrize("loss", _ALL)
def test_perfect_prediction_costs_nothing_and_the_worst_costs_most(loss) -> None:
    _, target = _case()
    target[0, 0] = UNKNOWN
    perfect = loss(_sure_of(target, 4), target)
    wrong = torch.where(target == UNKNOWN, target, (target + 1) % 4)
    assert perfect < 1e-4
    assert loss(_sure_of(wrong, 4), target) > 0.9


def test_macro_dice_weighs_small_classes_as_much_as_large_ones() -> None:
    target = torch.zeros(1, 20, 20, dtype=torch.long)
    target[:, :10] = 1
    target[:, 0, :4] = 2  # 1 % of the pixels
    missed = torch.where(target == 2, 1, target)
    assert dice_paper(_sure_of(missed, 3), target) < 0.02
    assert dice_macro(_sure_of(missed, 3), target) > 0.25
    lost = torch.where(target == 1, 0, target)
    # Missing all of a class costs a third at least, whatever its size.
    assert dice_macro(_sure_of(lost, 3), target) > 0.25


def test_macro_dice_leaves_out_classes_that_do_not_occur() -> None:
    logits, target = _case(classes=3)
    spare = torch.cat([logits, torch.full((2, 5, 12, 10), -60.0)], dim=1)
    torch.testing.assert_close(dice_macro(spare, target), dice_macro(logits, target))


@pytest.mark.parametrize("loss", _ALL)
def test_gradient_descends(loss) -> None:
    logits, target = _case()
    leaf = logits.clone().requires_grad_()
    before = loss(leaf, target)
    before.backward()
    assert leaf.grad is not None
    assert loss(leaf.detach() - leaf.grad * 5, target) < before.detach()
