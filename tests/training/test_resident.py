"""Batches that are cut on the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_tools import losses, training_child

from diffseg_training import checkpoint
from diffseg_training.data import intensity_table, model_image
from diffseg_training.resident import ResidentDraws, cropped
from diffseg_training.settings import PretrainSettings, Recipe
from napari_diffseg.network.backbone import Intensity

SETTINGS = PretrainSettings(batch=8, accumulate=2, crop=(0.5, 1.2), seed=4)
INTENSITY = Intensity((-1000.0, 1000.0), (-1.0, 1.0))
SLICES = list(np.random.default_rng(0).integers(-1000, 1000, (7, 16, 16)).astype(np.int16))
CPU = torch.device("cpu")


def _draws(settings: PretrainSettings, slices: list[np.ndarray] = SLICES) -> ResidentDraws:
    return ResidentDraws(slices, INTENSITY, 8, settings, CPU)


@pytest.mark.parametrize("size", [8, 16, 24])
@pytest.mark.parametrize(("side", "top", "left"), [(16, 0, 0), (9, 3, 7), (12, 4, 0), (20, -2, -2)])
def test_a_crop_is_torchs_own(size: int, side: int, top: int, left: int) -> None:
    planes = np.stack(SLICES)
    images = torch.from_numpy(INTENSITY.to_model(planes))
    where = [torch.full((7,), float(value)) for value in (top, left, side)]
    got = cropped(images, *where, size, 5)
    for plane, one in zip(planes, got, strict=True):
        room = max(0, -top)
        padded = np.pad(plane, room, constant_values=int(plane.min()))
        crop = padded[top + room : top + room + side, left + room : left + room + side]
        wanted = model_image(crop, intensity_table(INTENSITY), size)[0]
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-5)


def test_a_step_depends_on_seed_and_number_alone() -> None:
    draws = _draws(SETTINGS)
    first = [torch.cat([getattr(p, k).flatten().float() for p in draws.parts(5)]) for k in
             ("image", "t", "noise")]  # fmt: skip
    list(draws.parts(9))
    again = [torch.cat([getattr(p, k).flatten().float() for p in _draws(SETTINGS).parts(5)])
             for k in ("image", "t", "noise")]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    (other, *_) = _draws(SETTINGS).parts(6)
    (seeded, *_) = _draws(replace(SETTINGS, seed=5)).parts(5)
    one = next(iter(draws.parts(5)))
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.noise, seeded.noise)


def test_processes_and_parts_share_the_same_batch() -> None:
    draws = _draws(SETTINGS)
    whole = next(iter(_draws(replace(SETTINGS, accumulate=1)).parts(3)))
    shares = [part for rank in range(2) for part in draws.parts(3, rank, 2)]
    assert len(shares) == 4
    for name in ("image", "t", "noise"):
        assert torch.equal(torch.cat([getattr(p, name) for p in shares]), getattr(whole, name))


def test_every_epoch_shows_every_slice_once() -> None:
    plain = replace(SETTINGS, crop=(1.0, 1.0), flip=False, batch=7, accumulate=1)
    flat = [np.full((16, 16), 100 * n, np.int16) for n in range(7)]
    epochs = [next(iter(_draws(plain, flat).parts(step))).image for step in range(3)]
    orders = [[round(float(image.mean()) * 10) for image in epoch] for epoch in epochs]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_flips_crops_and_timesteps_cover_their_ranges() -> None:
    ramp = [np.tile(np.arange(-800, 800, 100, dtype=np.int16), (16, 1))]
    many = replace(SETTINGS, batch=400, accumulate=1, timestep_power=2.0)
    (draw,) = _draws(many, ramp).parts(0)
    image = draw.image[:, 0]
    rising = [bool(one[0, 0] < one[0, -1]) for one in image if one.min() > -0.8]
    assert 0.3 < np.mean(rising) < 0.7
    spans = image.amax(dim=(1, 2)) - image.amin(dim=(1, 2))
    assert spans.min() < 0.9 < 1.3 < spans.max()
    assert 0 <= draw.t.min() < 20
    assert 900 < draw.t.max() <= 999
    assert abs(draw.t.float().median() - 250) < 70
    assert abs(float(draw.noise.std()) - 1) < 0.02


def test_augmentation_changes_the_images_alone() -> None:
    plain = replace(SETTINGS, crop=(1.0, 1.0))
    settings = replace(plain, rotate=20.0, stretch=1.3, gamma=1.5)
    slices = [np.pad(s[4:12, 4:12], 4, constant_values=-1000) for s in SLICES]
    for part, other in zip(_draws(settings, slices).parts(2), _draws(plain, slices).parts(2),
                           strict=True):  # fmt: skip
        assert torch.equal(part.t, other.t)
        assert torch.equal(part.noise, other.noise)
        assert (part.image - other.image).abs().mean() > 0.05
        assert part.image.min() >= -1
        assert part.image.max() <= 1


def _resident(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, train=replace(recipe.train, resident=True, **changes))


def test_killed_and_resumed_equals_unbroken(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    recipe = _resident(recipe, save_minutes=0.0)
    whole = losses(recipe, store, tmp_path / "whole")
    with training_child(recipe, store, tmp_path / "broken") as (child, line):
        while line.recv()[0] < 3:
            pass
        child.kill()
        child.join()
    resumed = losses(recipe, store, tmp_path / "broken")
    assert 3 <= next(iter(resumed)) <= 6
    assert all(whole[step] == loss for step, loss in resumed.items())
    first, second = (
        checkpoint.read(tmp_path / name / checkpoint.NAME)[1] for name in ("whole", "broken")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    curve = losses(_resident(recipe, iterations=60, log_every=10), store, tmp_path)
    assert curve[60] < 0.8 * curve[10]
