"""What the n-th draw is, and who draws it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffseg_training.augment import augmented
from diffseg_training.data import Draws, Shard, intensity_table, model_image
from diffseg_training.settings import PretrainSettings
from napari_diffseg.network.backbone import Intensity

SETTINGS = PretrainSettings(batch=8, accumulate=2, crop=(0.5, 1.2), seed=4)
INTENSITY = Intensity((-1000.0, 1000.0), (-1.0, 1.0))
SLICES = list(np.random.default_rng(0).integers(-1000, 1000, (7, 16, 16)).astype(np.int16))


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    one, other = (Draws(SLICES, INTENSITY, 8, SETTINGS) for _ in range(2))
    wanted = [3, 50, 4]
    for draw in wanted:
        one[draw]
    for draw in reversed(wanted):
        for ours, theirs in zip(one[draw], other[draw], strict=True):
            assert torch.equal(ours, theirs)
    assert not torch.equal(one[3].noise, one[4].noise)
    assert not torch.equal(
        one[3].noise, Draws(SLICES, INTENSITY, 8, replace(SETTINGS, seed=5))[3].noise
    )


def test_every_epoch_shows_every_slice_once_in_another_order() -> None:
    plain = replace(SETTINGS, crop=(1.0, 1.0), flip=False)
    draws = Draws(SLICES, INTENSITY, 16, plain)
    known = {model_image(s, draws.table, 16).numpy().tobytes(): n for n, s in enumerate(SLICES)}
    orders = [
        [known[draws[epoch * 7 + place].image.numpy().tobytes()] for place in range(7)]
        for epoch in range(3)
    ]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_flips_crops_and_timesteps_cover_their_ranges() -> None:
    ramp = [np.tile(np.arange(-800, 800, 100, dtype=np.int16), (16, 1))]
    draws = [Draws(ramp, INTENSITY, 8, SETTINGS)[n] for n in range(200)]
    flipped = sum(bool(d.image[0, 0, 0] > d.image[0, 0, -1]) for d in draws if d.image.min() > -0.8)
    assert 10 < flipped < 190
    spans = {round(float(d.image.max() - d.image.min()), 1) for d in draws}
    assert min(spans) < 0.9 < 1.3 < max(spans)
    times = torch.stack([d.t for d in draws])
    assert times.min() < 100
    assert times.max() > 900
    assert all(d.image.shape == d.noise.shape == (1, 8, 8) for d in draws)


@pytest.mark.parametrize(("power", "median"), [(1.0, 500), (2.0, 250), (0.5, 707)])
def test_power_of_the_timestep_moves_its_median(power: float, median: float) -> None:
    plane = [np.zeros((8, 8), np.int16)]
    draws = Draws(plane, INTENSITY, 8, replace(SETTINGS, timestep_power=power))
    times = torch.stack([draws[n].t for n in range(1500)]).float()
    assert 0 <= times.min() < times.max() <= 999
    assert abs(times.median() - median) < 45


def test_processes_and_parts_share_the_same_global_batch() -> None:
    one = list(Shard(SETTINGS, 3, 5))
    two = [list(Shard(SETTINGS, 3, 5, rank, 2)) for rank in range(2)]
    assert one == [[24, 25, 26, 27], [28, 29, 30, 31], [32, 33, 34, 35], [36, 37, 38, 39]]
    for step in range(2):
        parts = [draw for part in one[2 * step : 2 * step + 2] for draw in part]
        shares = [draw for rank in two for part in rank[2 * step : 2 * step + 2] for draw in part]
        assert shares == parts


def test_the_table_is_the_intensity_map() -> None:
    intensity = Intensity((-1024.0, -200.0, 250.0, 1500.0), (-1.0, -0.6, 0.6, 1.0))
    hu = np.array([[-2000, -1024], [31, 3000]], np.int16)
    image = model_image(hu, intensity_table(intensity), 2)
    np.testing.assert_array_equal(image[0].numpy(), intensity.to_model(hu))


AUGMENTED = replace(
    SETTINGS, crop=(1.0, 1.0), flip=False, rotate=20.0, stretch=1.3, gamma=1.5, seed=3
)


def _blocks() -> list[np.ndarray]:
    """A body with a bright organ to the right of its middle."""
    plane = np.full((32, 32), -1000, np.int16)
    plane[8:24, 6:26] = 0
    plane[12:18, 18:23] = 400
    return [plane]


def test_augmentation_turns_stretches_and_tones_within_its_limits() -> None:
    plain = Draws(_blocks(), INTENSITY, 32, replace(AUGMENTED, rotate=0.0, stretch=1.0, gamma=1.0))
    draws = Draws(_blocks(), INTENSITY, 32, AUGMENTED)
    body, tones = [], []
    for n in range(60):
        image = draws[n].image[0]
        assert -1 <= image.min() < -0.99
        assert image.max() <= 1
        inside = (image > -0.6).nonzero().float()
        spread = inside.std(dim=0)
        body.append(float(spread[1] / spread[0]))
        tones.append(float(image[13:17, 9:14].median()))
        # Timesteps and noise are those of the draw without augmentation.
        assert torch.equal(draws[n].noise, plain[n].noise)
        assert torch.equal(draws[n].t, plain[n].t)
    whole = (plain[0].image[0] > -0.6).nonzero().float().std(dim=0)
    ratio = float(whole[1] / whole[0])
    assert min(body) < 0.93 * ratio < 1.07 * ratio < max(body) < 1.4 * ratio
    assert min(tones) < -0.1 < 0.1 < max(tones)
    # 0.5 to the power 1.5 and to the power 2/3.
    assert 2 * 0.5**1.5 - 1 - 0.02 < min(tones) < max(tones) < 2 * 0.5 ** (2 / 3) - 1 + 0.02


def test_a_turn_is_a_turn() -> None:
    """The organ goes round the middle by the angle that was drawn, as SciPy turns it."""
    from scipy import ndimage

    settings = replace(AUGMENTED, stretch=1.0, gamma=1.0, rotate=30.0)
    image = Draws(_blocks(), INTENSITY, 32, replace(settings, rotate=0.0))[0].image
    for share in (0.0, 0.25, 0.75):
        got = augmented(image, torch.tensor([[share, 0.5, 0.5]]), settings)[0].numpy()
        wanted = ndimage.rotate(
            image[0].numpy(), 30 * (2 * share - 1), reshape=False, order=1, cval=-1.0
        )
        assert np.abs(got - wanted).mean() < 0.03
