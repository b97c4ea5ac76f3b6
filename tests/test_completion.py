"""Scribbled slices are completed from the strokes outwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_tools import DISC, SHAPE, SPOT, dice, disc_volume, tiny_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.segmentation import random_walker

from napari_diffseg.completion import frequency, walked
from napari_diffseg.finetune import BACKGROUND, PaintedSlice, TrainSettings, finetune
from napari_diffseg.losses import UNKNOWN
from napari_diffseg.predict import predict


def _nothing_known(rows: int = 20, columns: int = 24) -> torch.Tensor:
    return torch.full((rows, columns), UNKNOWN)


def test_strokes_fill_what_an_edge_surrounds() -> None:
    image = torch.full((20, 24), -0.5)
    image[5:15, 6:18] = 0.5
    known = _nothing_known()
    known[0, 3:9], known[9, 10:13] = 0, 1
    p = walked(torch.full((2, 20, 24), 0.5), known, image)
    assert torch.equal(p.argmax(dim=0), (image > 0).long())
    assert (p[1][image > 0] > 0.5).all()


def test_opinion_decides_where_no_stroke_reaches() -> None:
    image = torch.full((20, 24), -0.5)
    image[5:15, 6:18] = 0.5
    known = _nothing_known()
    known[0, 3:9] = 0
    opinion = torch.full((2, 20, 24), 0.4)
    opinion[1] = 0.6
    p = walked(opinion, known, image)
    assert (p.argmax(dim=0)[6:14, 7:17] == 1).all()
    # Beside the stroke the same opinion is outweighed.
    assert (p.argmax(dim=0)[0] == 0).all()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999), classes=st.integers(2, 5), strokes=st.sampled_from([0.0, 0.1, 1.0])
)
def test_probabilities_whatever_the_strokes(seed: int, classes: int, strokes: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    opinion = torch.rand(classes, 14, 11, generator=generator).softmax(dim=0)
    image = 2 * torch.rand(14, 11, generator=generator) - 1
    truth = torch.randint(classes, (14, 11), generator=generator)
    painted = torch.rand(14, 11, generator=generator) < strokes
    p = walked(opinion, truth.masked_fill(~painted, UNKNOWN), image)
    assert p.min() >= 0
    torch.testing.assert_close(p.sum(dim=0), torch.ones(14, 11))
    assert torch.equal(p.argmax(dim=0)[painted], truth[painted])
    assert (p.amax(dim=0)[painted] == 1).all()


def test_agrees_with_scikit_image_where_the_opinion_hardly_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_diffseg.completion._PULL", 1e-7)
    monkeypatch.setattr("napari_diffseg.completion._CLOSE", 1e-6)
    image = np.random.default_rng(0).normal(0, 0.03, (20, 24)).astype(np.float32)
    image[5:15, 6:18] += 0.3
    known = np.zeros((20, 24), int)
    known[0, 3:9], known[9, 10:13], known[18, :] = 1, 2, 3
    # Its weights are exp(-beta d^2 / (10 std)), ours exp(-(d / 0.09)^2).
    theirs = random_walker(
        image,
        known,
        beta=10 * image.std() / 0.09**2,
        mode="cg_j",
        tol=1e-8,
        return_full_prob=True,
    )
    ours = walked(
        torch.full((3, 20, 24), 1 / 3),
        torch.from_numpy(np.where(known > 0, known - 1, UNKNOWN)),
        torch.from_numpy(image),
    )
    assert np.abs(ours.numpy() - theirs).max() < 0.005


def test_slices_in_full_alone_say_how_common_a_class_is() -> None:
    targets = torch.full((2, 4, 5), UNKNOWN)
    targets[0, 0], targets[1, :2], targets[1, 2:] = 2, 0, 1
    shares = frequency(targets, torch.tensor([False, True]), 3)
    assert shares.tolist() == pytest.approx([0.5, 0.5, 0.0])
    shares = frequency(targets, torch.tensor([False, False]), 3)
    assert shares.tolist() == pytest.approx([0.4, 0.4, 0.2])


def test_labels_travel_from_scribbles() -> None:
    volume, truth = disc_volume(drift=1.0)
    scribbled = []
    for z in (1, 6):
        mask = np.zeros(SHAPE[1:], np.uint8)
        mask[17:20, 14 + z : 21 + z] = DISC.id
        mask[32:34, 17:19] = SPOT.id
        mask[5:9, 8:30] = BACKGROUND
        mask[26:28, 8:30] = BACKGROUND
        scribbled.append(PaintedSlice(z, mask, full=False))
    steps = TrainSettings("linear", iterations=40, device="cpu", grid=40)
    *_, last = finetune(volume, scribbled, [DISC, SPOT], tiny_backbone(), steps)
    assert last.segmenter is not None

    def found(painted: list[PaintedSlice]) -> np.ndarray:
        slices = sorted(
            predict(last.segmenter, volume, painted, device="cpu"), key=lambda one: one.z
        )
        return np.stack([one.mask for one in slices])

    told, untold = found(scribbled), found([])
    between = slice(2, 6)
    assert dice(told[between], truth[between], DISC.id) > 0.85
    assert dice(told[between], truth[between], DISC.id) > dice(
        untold[between], truth[between], DISC.id
    )
    for slice_ in scribbled:  # what was painted stays
        strokes = (slice_.mask > 0) & (slice_.mask < BACKGROUND)
        assert np.array_equal(told[slice_.z][strokes], slice_.mask[strokes])
