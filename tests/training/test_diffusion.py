"""Schedules and samplers against MONAI and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor

from diffseg_training.diffusion import STEPS, add_noise, sample, signal_levels


def test_schedules_are_the_papers_three() -> None:
    t = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
    f = lambda s: torch.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    expected = f(t) / f(torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(
        signal_levels("cosine")[:-1].double(), expected[:-1], rtol=1e-3, atol=1e-6
    )
    linear = torch.cumprod(1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64), 0)
    torch.testing.assert_close(signal_levels("linear").double(), linear, rtol=1e-4, atol=1e-8)
    levels = signal_levels("cosine-beta").double()
    betas = 1 - levels[1:] / levels[:-1]
    assert float(1 - levels[0]) == pytest.approx(1e-4, rel=1e-2)
    assert float(betas[-1]) == pytest.approx(0.02, rel=1e-2)
    assert float(betas[STEPS // 2]) == pytest.approx((1e-4 + 0.02) / 2, rel=1e-2)


def test_noising_keeps_the_signal_level() -> None:
    levels = signal_levels("cosine")
    x, noise = torch.full((3, 1, 2, 2), 0.5), torch.ones(3, 1, 2, 2)
    t = torch.tensor([0, 500, 999])
    level = levels[t]
    expected = level.sqrt() * 0.5 + (1 - level).sqrt()
    torch.testing.assert_close(add_noise(x, noise, t, levels)[:, 0, 0, 0], expected)


def test_full_random_sampler_takes_monais_ancestral_steps() -> None:
    scheduler = DDPMScheduler(STEPS, schedule="linear_beta")
    predict = lambda x, t: 0.3 * x + t.view(-1, 1, 1, 1) / 5000  # noqa: E731
    ours_noise, their_noise = (torch.Generator().manual_seed(1) for _ in range(2))
    shape = (2, 1, 4, 4)
    x = torch.randn(shape, generator=their_noise)
    states = sample(
        predict, lambda: torch.randn(shape, generator=ours_noise), signal_levels("linear")
    )
    for state, t in zip(states, range(STEPS - 1, -1, -1), strict=True):
        x, _ = scheduler.step(predict(x, torch.tensor([t, t])), t, x, generator=their_noise)
        if state.step in (1, 10, 500, 1000):
            torch.testing.assert_close(state.images, x, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "cosine-beta"])
@pytest.mark.parametrize(("steps", "eta"), [(7, 0.0), (50, 0.0), (50, 1.0)])
def test_a_perfect_network_leads_to_the_image(schedule: str, steps: int, eta: float) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 6, 6) * 1.6 - 0.8
    levels = signal_levels(schedule)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        level = levels[t].view(-1, 1, 1, 1)
        return (x - level.sqrt() * image) / (1 - level).sqrt()

    last = list(sample(predict, lambda: torch.randn(1, 1, 6, 6), levels, steps, eta))[-1]
    assert (last.step, last.steps) == (steps, steps)
    torch.testing.assert_close(last.images, image, rtol=1e-3, atol=1e-3)


def test_gaussian_data_come_out_with_their_variance() -> None:
    """For data N(0, s^2) the best noise prediction is known, and so is what must come out."""
    torch.manual_seed(0)
    levels, s2 = signal_levels("cosine"), 0.05

    def predict(x: Tensor, t: Tensor) -> Tensor:
        level = levels[t].view(-1, 1, 1, 1)
        return x * (1 - level).sqrt() / (level * s2 + 1 - level)

    for eta in (0.0, 1.0):
        last = list(sample(predict, lambda: torch.randn(64, 1, 8, 8), levels, 600, eta))[-1]
        assert float(last.images.var()) == pytest.approx(s2, rel=0.07)
