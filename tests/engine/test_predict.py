"""Prediction: its order, its confidence, and what painted slices tell of their neighbours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_tools import DISC, SHAPE, SPOT, dice, disc_volume, lively, paint, tiny_backbone

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.predict import posterior, predict, stray_pieces
from napari_diffseg.engine.progress import Progress, SlicePrediction
from napari_diffseg.engine.propagation import PropagatedLabels
from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.network.segmenter import Segmenter, SegmenterConfig, SegmenterError

_VOLUME, _TRUTH = disc_volume()
_BySlice = dict[int, SlicePrediction]


@pytest.fixture(scope="module")
def last() -> Progress:
    settings = TrainSettings("linear", iterations=60, device="cpu", grid=40)
    painted = paint(_TRUTH, 1, 6)
    *_, last = finetune(_VOLUME, painted, (DISC, SPOT), tiny_backbone(), settings)
    return last


@pytest.fixture
def trained(last: Progress) -> Segmenter:
    assert last.segmenter is not None
    return last.segmenter


def _predicted(last: Progress, painted: tuple[PaintedSlice, ...], start: int = 0) -> _BySlice:
    assert last.segmenter is not None
    return _by_slice(
        list(predict(last.segmenter, _VOLUME, painted, start, "cpu", last.registration))
    )


@pytest.fixture
def untrained() -> Segmenter:
    torch.manual_seed(0)
    config = SegmenterConfig("linear", hidden=16, columns=32)
    made = Segmenter.new(tiny_backbone(), (DISC, SPOT), config).eval()
    lively(made.head)
    return made


def _by_slice(predictions: list[SlicePrediction]) -> _BySlice:
    return {one.z: one for one in predictions}


@pytest.mark.parametrize("start", range(SHAPE[0]))
def test_start_comes_first_and_the_others_outwards(untrained: Segmenter, start: int) -> None:
    order = [one.z for one in predict(untrained, _VOLUME, start=start, device="cpu")]
    assert order[0] == start
    assert sorted(order) == list(range(SHAPE[0]))
    distance = [abs(z - start) for z in order]
    assert distance == sorted(distance)


def test_masks_and_confidence_are_native_and_in_percent(last: Progress) -> None:
    found = list(_predicted(last, paint(_TRUTH, 1, 6)).values())
    for one in found:
        assert one.mask.shape == one.confidence.shape == SHAPE[1:]
        assert one.mask.dtype == one.confidence.dtype == np.uint8
        assert set(np.unique(one.mask)) <= {0, DISC.id, SPOT.id}
        assert one.confidence.max() <= 100
        assert one.confidence.min() >= 33  # the best of three classes
    confidence = np.stack([one.confidence for one in found])
    assert confidence.min() < 90 < confidence.max()


def test_painted_slices_shape_their_neighbours(last: Progress) -> None:
    """Another disc, painted elsewhere, is found where it was painted."""
    elsewhere = np.roll(_TRUTH, 9, axis=2)
    as_is = _predicted(last, paint(_TRUTH, 1, 6))
    told = _predicted(last, paint(elsewhere, 1, 6))
    for z in (1, 6):
        assert dice(as_is[z].mask, _TRUTH[z], DISC.id) > 0.85
        assert dice(told[z].mask, elsewhere[z], DISC.id) > dice(
            as_is[z].mask, elsewhere[z], DISC.id
        )
    assert any(not np.array_equal(told[z].mask, as_is[z].mask) for z in (2, 3, 4, 5))


@pytest.mark.parametrize(("sources", "expected"), [((3,), 1), ((3, 8), 0)])
def test_what_was_learnt_from_a_single_slice_counts_half(
    sources: tuple[int, ...], expected: int
) -> None:
    still = np.zeros((9, 2, 8, 8), np.float16)
    propagated = PropagatedLabels(
        Registration(still, still), {z: torch.ones(8, 8, dtype=torch.int64) for z in sources}, 2
    )
    denial = torch.stack([torch.full((8, 8), 5.0), torch.zeros(8, 8)])
    assert (posterior(denial, propagated, 4, None).argmax(dim=0) == expected).all()


def test_scribbles_shape_their_neighbours(last: Progress) -> None:
    """A disc scribbled elsewhere is not found where the model alone would see one."""
    mask = np.where(_TRUTH[3] > 0, BACKGROUND, 0).astype(np.uint8)
    told = _predicted(last, (PaintedSlice(3, mask, full=False),))
    untold = _predicted(last, ())
    assert not (told[3].mask[mask == BACKGROUND]).any()
    for z in (2, 4):
        assert (untold[z].mask > 0).sum() > 50
        assert (told[z].mask > 0).sum() < 0.8 * (untold[z].mask > 0).sum()


def test_model_alone_finds_the_disc_after_a_save(trained: Segmenter, tmp_path: Path) -> None:
    trained.save(tmp_path / "m.safetensors")
    loaded = Segmenter.load(tmp_path / "m.safetensors")
    found = _by_slice(list(predict(loaded, _VOLUME, device="cpu")))
    alone = _by_slice(list(predict(trained, _VOLUME, device="cpu")))
    for z in range(SHAPE[0]):
        assert np.array_equal(found[z].mask, alone[z].mask)
    mask = np.stack([found[z].mask for z in range(SHAPE[0])])
    assert dice(mask, _TRUTH, DISC.id) > 0.6


def test_saved_model_predicts_a_volume_of_another_shape(trained: Segmenter, tmp_path: Path) -> None:
    trained.save(tmp_path / "m.safetensors")
    other, _ = disc_volume((5, 56, 64))
    loaded = Segmenter.load(tmp_path / "m.safetensors")
    found = list(predict(loaded, other, start=4, device="cpu"))
    assert [one.z for one in found] == [4, 3, 2, 1, 0]
    assert found[0].mask.shape == (56, 64)


def test_prediction_is_the_same_twice_and_whatever_the_start(last: Progress) -> None:
    painted = paint(_TRUTH, 1, 6)
    first = _predicted(last, painted)
    second = _predicted(last, painted, start=5)
    for z in range(SHAPE[0]):
        assert (first[z].mask != second[z].mask).mean() < 0.002  # batches differ in rounding
        assert np.abs(first[z].confidence.astype(int) - second[z].confidence).max() <= 1


def test_prediction_may_be_left_at_any_slice(untrained: Segmenter) -> None:
    steps = predict(untrained, _VOLUME, start=3, device="cpu")
    assert next(steps).z == 3
    steps.close()
    assert len(list(predict(untrained, _VOLUME, device="cpu"))) == SHAPE[0]


def test_one_slice_volume(untrained: Segmenter) -> None:
    single = replace(_VOLUME, hu=_VOLUME.hu[:1])
    assert [one.z for one in predict(untrained, single, device="cpu")] == [0]


def test_weights_that_lead_to_no_numbers_are_refused_in_one_line(untrained: Segmenter) -> None:
    # A flipped bit in an exponent leaves a weight finite, and overflows later.
    with torch.no_grad():
        next(untrained.unet.decoder.parameters()).fill_(3e38)
    with pytest.raises(SegmenterError, match=r"computes no numbers.*train again") as caught:
        list(predict(untrained, _VOLUME, device="cpu"))
    assert "\n" not in str(caught.value)


def test_a_piece_that_nothing_supports_is_stray_and_a_supported_one_is_not() -> None:
    volume, truth = disc_volume((24, 48, 40), drift=0.1)
    painted, labels = paint(truth, 4, 12, 20), (DISC, SPOT)
    settings = TrainSettings("linear", iterations=60, device="cpu", grid=48)
    *_, last = finetune(volume, painted, labels, tiny_backbone(), settings)
    mask = truth.copy()
    assert last.segmenter is not None

    def stray(painted: tuple[PaintedSlice, ...] = painted) -> np.ndarray:
        return stray_pieces(last.segmenter, volume, mask, painted, last.registration)

    assert not stray().any()
    mask[8:10, 2:5, 30:34] = DISC.id  # far from the disc
    mask[16, 40:44, 30:34] = SPOT.id
    wrong = mask != truth
    np.testing.assert_array_equal(stray(), wrong)
    # Who painted one slice of a structure has not shown that it is one piece.
    assert not stray(painted[:1]).any()
    # Nor has who painted two pieces.
    two = paint(mask, 4, 9, 12, 20)
    found = stray(two)
    assert not found[mask == DISC.id].any()
    assert found[16, 40:44, 30:34].all()
    assert not stray_pieces(last.segmenter, volume, mask, painted, None).any()
