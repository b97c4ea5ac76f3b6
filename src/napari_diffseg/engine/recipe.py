"""The app's recipe: let labels travel, train a pixel head, spread; fine-tune the decoder if asked.

``docs/decisions/0002-app-recipe.md`` tells what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator

import torch
from torch import Tensor

from napari_diffseg.engine.augment import augment
from napari_diffseg.engine.pixel_head import PixelBank, fit
from napari_diffseg.engine.predict import posterior, prior_of
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.registration import Motion, register, soft_tissue
from napari_diffseg.engine.scribbles import frequency
from napari_diffseg.engine.training import Run, train_dense
from napari_diffseg.network.device import autocast, native_bf16, upload
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import LevelHead
from napari_diffseg.network.unet import UNet

TIMESTEP = 100
"""Diffusion timestep at which the recipe shows slices to the network, unless told otherwise."""

_VARIANTS = 4  # changed copies of every painted slice
_PAINTED = (250, 600)  # pixels of each structure and of background, from one painted slice
_SPREAD = (100, 300)  # the same, from one slice that is not painted
_REACHES = (3, 6, 12, 24)  # slices from a painted one to which each round of spreading goes
_STEPS = (400, 200, 200, 200, 200)  # optimiser steps of the first round of learning and of each
_MOST = 40  # slices that one round looks at
_LEAST = 1.0  # seconds of every round of learning
_WORTH = 60.0  # seconds: less of fine-tuning takes away more than it gives
_SURE = 0.7  # pixels whose class is less likely than this teach nothing


def columns(backbone: UNet, device: torch.device) -> int:
    """Model grid points across the body: half as many again as the backbone was trained on.

    Where the device has no fast half precision, that would take too long: as many as it was.
    """
    size = backbone.config.image_size
    return size * 3 // 2 if native_bf16(device) else size


def app_recipe(run: Run, motion: Motion | None) -> Iterator[Progress]:
    """Train ``run.segmenter``; see :func:`~napari_diffseg.engine.finetune.finetune`."""
    segmenter = run.segmenter
    full = [slice_ for slice_ in run.painted if slice_.full]
    if len(run.volume.hu) > 1:
        if motion is None or not motion.fits(run.volume, run.grid):
            motion = yield from _registered(run)
        segmenter.motion = motion
        run.prior = prior_of(segmenter, run.grid, run.volume, full)
    if segmenter.config.strategy == "scratch":
        yield from train_dense(run, "training", run.settings.iterations)
        return
    decoder = segmenter.config.strategy == "decoder"
    rounds = 1 if segmenter.motion is None else len(_STEPS)
    steps, last = _shares(run, rounds, decoder)
    painted = yield from _painted_bank(run)
    yield from _fit(run, "learning", painted, steps[0], steps[0] / sum(steps))
    for index, reach in enumerate(_REACHES[: rounds - 1], start=1):
        if steps[index] == 0 or run.left <= 0:
            break
        yield from _completed(run)
        spread = yield from _spread_bank(run, reach)
        if run.left <= 0:
            break
        bank, share = painted.extended(spread), steps[index] / sum(steps[index:])
        yield from _fit(run, f"learning {reach} slices around", bank, steps[index], share)
    if not decoder:
        return
    if run.left < _WORTH:
        if not run.finishing:
            wanted = math.ceil(run.elapsed + _WORTH)
            run.note = f"The head is trained; given {wanted} s, the decoder is tuned too."
            yield run.progress("fine-tuning", 0, None)
        return
    yield from train_dense(run, "fine-tuning", last)


def _shares(run: Run, rounds: int, decoder: bool) -> tuple[list[int], int | None]:
    """Optimiser steps of each round of the head, and of the decoder (until the time is up)."""
    total = run.settings.iterations
    if total is None:
        return list(_STEPS[:rounds]), None
    parts = rounds + decoder
    shares = [total // parts + (index < total % parts) for index in range(parts)]
    return shares[:rounds], sum(shares[rounds:])


def _registered(run: Run) -> Generator[Progress, None, Motion]:
    pairs = register(run.volume, run.grid)
    while True:
        try:
            done = next(pairs)
        except StopIteration as stop:
            motion: Motion = stop.value
            return motion
        yield run.progress("comparing slices", done, len(run.volume.hu) - 1)


def _completed(run: Run) -> Iterator[Progress]:
    """Complete scribbled slices anew, as the head has become better at it."""
    scribbled = [slice_.z for slice_ in run.painted if not slice_.full]
    if not scribbled:
        return
    run.prior = prior_of(run.segmenter, run.grid, run.volume, run.painted)
    assert run.prior is not None
    for done, z in enumerate(scribbled, start=1):
        run.prior.at(z)
        yield run.progress("completing scribbles", done, len(scribbled), preview=True)
        if run.left <= 0:
            return


def _maps(run: Run, images: Tensor) -> tuple[Tensor, ...]:
    try:
        with torch.inference_mode(), autocast(images.device):
            return run.segmenter.unet.decode_levels(run.segmenter.encode(images))
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
        run.shrink()
        halves = [_maps(run, half) for half in images.chunk(2)]
        return tuple(torch.cat(pair) for pair in zip(*halves, strict=True))


def _painted_bank(run: Run) -> Generator[Progress, None, PixelBank]:
    bank = PixelBank()
    run.segmenter.eval()
    for variant in range(_VARIANTS + 1):
        n, step = len(run.painted), run.batch
        for first in range(0, n, step):
            images = run.images[first : min(first + step, n)]
            targets = run.targets[first : min(first + step, n)]
            if variant:
                images, targets = augment(images, targets, run.generator)
            bank.add(_maps(run, images), targets, run.generator, *_PAINTED)
            yield run.progress("looking", variant, _VARIANTS + 1, preview=True)
    return bank


def _spread_bank(run: Run, reach: int) -> Generator[Progress, None, PixelBank]:
    """Sample slices near the painted ones, labelled by head and prior together."""
    assert run.prior is not None
    bank, images_near, guesses = PixelBank(), [], []
    near = [z for z in range(len(run.volume.hu)) if run.prior.distance(z) <= reach]
    known = {slice_.z for slice_ in run.painted if slice_.full}
    near = [z for z in near if z not in known]
    near = near[:: math.ceil(len(near) / _MOST) or 1]
    step = run.batch
    for first in range(0, len(near), step):
        batch = near[first : first + step]
        images = upload(run.grid.image(run.volume.hu[batch]), run.images.device)
        soft = upload(soft_tissue(run.grid, run.volume.hu[batch]), run.images.device)
        maps = _maps(run, images)
        with torch.inference_mode(), autocast(images.device):
            logits = run.segmenter.head(maps)
        found = []
        for index, z in enumerate(batch):
            sure, guess = posterior(logits[index], run.prior, z, soft[index]).max(dim=0)
            found.append(guess.masked_fill(sure < _SURE, UNKNOWN))  # and no inference tensor
        labelled = torch.stack(found)
        guesses.append(labelled)
        # Shown plainly, these slices would teach nothing that holds for another patient.
        changed, targets = augment(images, labelled, run.generator)
        maps = _maps(run, changed)
        for index, z in enumerate(batch):
            bank.add(
                tuple(level[index : index + 1] for level in maps),
                targets[index : index + 1],
                run.generator,
                *_SPREAD,
                weight=math.exp(-run.prior.distance(z) / reach),
            )
        images_near.append(images)
        yield run.progress("spreading", first + len(batch), len(near), preview=True)
        if run.left <= 0:
            break
    n = len(run.painted)
    run.images = torch.cat([run.images[:n], *images_near])
    run.targets = torch.cat([run.targets[:n], *guesses])
    return bank


def _fit(run: Run, stage: str, bank: PixelBank, steps: int, share: float) -> Iterator[Progress]:
    """Train the head for ``steps``, or for that share of the time that is left."""
    head = run.segmenter.head
    assert isinstance(head, LevelHead)
    truth = run.targets[: len(run.painted)].cpu()
    full = torch.tensor([slice_.full for slice_ in run.painted])
    common = frequency(truth, full, len(run.segmenter.labels) + 1)
    head.requires_grad_(True)
    seconds = max(share * run.left, _LEAST)
    for step, loss in enumerate(
        fit(head, bank, common, steps, run.generator, seconds=seconds), start=1
    ):
        yield run.progress(stage, step, steps, loss)
        if run.finishing:
            return
    run.learnt = True
    yield run.progress(stage, steps, steps, preview=True)
