"""The random walker agrees with scikit-image's, and outlines follow edges."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import random_walker as skimage_random_walker

from napari_diffseg.engine.random_walker import random_walker, refine_outlines
from napari_diffseg.network.losses import UNKNOWN


def _no_seeds(rows: int = 20, columns: int = 24) -> torch.Tensor:
    return torch.full((rows, columns), UNKNOWN)


def test_strokes_fill_what_an_edge_surrounds() -> None:
    image = torch.full((20, 24), -0.5)
    image[5:15, 6:18] = 0.5
    seeds = _no_seeds()
    seeds[0, 3:9], seeds[9, 10:13] = 0, 1
    p = random_walker(torch.full((2, 20, 24), 0.5), seeds, image, 0.09**-2, 0.01)
    assert torch.equal(p.argmax(dim=0), (image > 0).long())
    assert (p[1][image > 0] > 0.5).all()


def test_prior_decides_where_no_stroke_reaches() -> None:
    image = torch.full((20, 24), -0.5)
    image[5:15, 6:18] = 0.5
    seeds = _no_seeds()
    seeds[0, 3:9] = 0
    prior = torch.full((2, 20, 24), 0.4)
    prior[1] = 0.6
    p = random_walker(prior, seeds, image, 0.09**-2, 0.01)
    assert (p.argmax(dim=0)[6:14, 7:17] == 1).all()
    # Beside the stroke the same prior is outweighed.
    assert (p.argmax(dim=0)[0] == 0).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999), classes=st.integers(2, 5), strokes=st.sampled_from([0.0, 0.1, 1.0])
)
def test_probabilities_whatever_the_strokes(seed: int, classes: int, strokes: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    prior = torch.rand(classes, 14, 11, generator=generator).softmax(dim=0)
    image = 2 * torch.rand(14, 11, generator=generator) - 1
    truth = torch.randint(classes, (14, 11), generator=generator)
    painted = torch.rand(14, 11, generator=generator) < strokes
    p = random_walker(prior, truth.masked_fill(~painted, UNKNOWN), image, 0.09**-2, 0.01)
    assert p.min() >= 0
    torch.testing.assert_close(p.sum(dim=0), torch.ones(14, 11))
    assert torch.equal(p.argmax(dim=0)[painted], truth[painted])
    assert (p.amax(dim=0)[painted] == 1).all()


def test_agrees_with_scikit_image_where_the_prior_hardly_counts() -> None:
    image = np.random.default_rng(0).normal(0, 0.03, (20, 24)).astype(np.float32)
    image[5:15, 6:18] += 0.3
    seeds = np.zeros((20, 24), int)
    seeds[0, 3:9], seeds[9, 10:13], seeds[18, :] = 1, 2, 3
    # Its weights are exp(-beta d^2 / (10 std)), ours exp(-(d / 0.09)^2).
    theirs = skimage_random_walker(
        image,
        seeds,
        beta=10 * image.std() / 0.09**2,
        mode="cg_j",
        tol=1e-8,
        return_full_prob=True,
    )
    ours = random_walker(
        torch.full((3, 20, 24), 1 / 3),
        torch.from_numpy(np.where(seeds > 0, seeds - 1, UNKNOWN)),
        torch.from_numpy(image),
        beta=0.09**-2,
        prior_weight=1e-7,
        tolerance=1e-6,
    )
    assert np.abs(ours.numpy() - theirs).max() < 0.005


def test_an_outline_moves_to_the_edge_beside_it() -> None:
    image = torch.full((30, 40), -0.1) + 0.01 * torch.randn(
        30, 40, generator=torch.Generator().manual_seed(0)
    )
    image[8:22, 10:30] += 0.2  # 44 HU
    believed = torch.full((30, 40), 0.1)
    believed[9:23, 9:30] = 0.8  # a pixel too low, and ragged on the left
    believed[::2, 9:13] = 0.2
    found = refine_outlines(torch.stack([1 - believed, believed]), image).argmax(dim=0) == 1
    truth = image > 0

    def dice(mask: torch.Tensor) -> float:
        return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))

    assert dice(believed > 0.5) < 0.9
    assert dice(found) > 0.98


def test_where_there_is_no_doubt_nothing_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    image = 2 * torch.rand(12, 17, generator=generator) - 1
    prior = torch.rand(3, 1, 1, generator=generator).softmax(dim=0).expand(3, 12, 17)
    torch.testing.assert_close(refine_outlines(prior, image), prior, atol=1e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(2, 6), sharp=st.floats(0.1, 20))
def test_refined_are_probabilities(seed: int, classes: int, sharp: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    prior = (sharp * torch.randn(classes, 13, 9, generator=generator)).softmax(dim=0)
    image = 2 * torch.rand(13, 9, generator=generator) - 1
    found = refine_outlines(prior, image)
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(dim=0), torch.ones(13, 9))
    never = prior.amax(dim=(1, 2)) < 0.02
    assert (found[never] == 0).all()
