"""The pixel head: how its probabilities follow sample and class prior."""

from __future__ import annotations

import pytest
import torch

from napari_diffseg.engine.pixel_head import PixelBank, fit_head
from napari_diffseg.network.segmenter import LevelHead


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("prior", [0.1, 0.5, 0.9])
def test_uninformative_pixels_get_the_root_of_the_class_prior(share: float, prior: float) -> None:
    """Whatever the share of each class in the sample, which is chosen and not observed."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    n, channels = 4000, 4
    classes = (torch.arange(n) < share * n).long()
    noise = torch.randn(n, channels, generator=generator).to(torch.bfloat16)
    bank = PixelBank([noise], [classes], [torch.ones(n)])
    head = LevelHead((channels,), 16, 2)
    steps = fit_head(head, bank, torch.tensor([1 - prior, prior]), 150, generator)
    assert sum(1 for _ in steps) == 150
    maps = torch.randn(1, channels, 40, 50, generator=generator)
    with torch.inference_mode():
        found = head((maps,)).softmax(dim=1)[0, 1].mean()
    expected = prior**0.5 / (prior**0.5 + (1 - prior) ** 0.5)
    assert float(found) == pytest.approx(expected, abs=0.06)
