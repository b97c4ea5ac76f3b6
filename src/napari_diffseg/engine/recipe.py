"""The app's recipe: propagate the painted labels, train a pixel head, go on with pseudo-labels.

``docs/decisions/0002-app-recipe.md`` has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from napari_diffseg.engine.augment import augment, change_contrast_medium
from napari_diffseg.engine.crossing import crossing_of, register_planes
from napari_diffseg.engine.pixel_head import PixelBank, fit_head
from napari_diffseg.engine.predict import propagate_labels
from napari_diffseg.engine.progress import Progress, mapped
from napari_diffseg.engine.pseudo_labels import (
    MAX_SLICES,
    extract_features,
    pseudo_labelled_pixels,
    spread,
    unpainted_pixels,
)
from napari_diffseg.engine.registration import Registration, register
from napari_diffseg.engine.scribbles import class_prior
from napari_diffseg.engine.training import Training, train_dense
from napari_diffseg.network.segmenter import LevelHead, Segmenter

TIMESTEP = 100
"""Diffusion timestep at which the network sees slices, unless the settings name one."""

COPIES = 4
"""Augmented copies of every painted slice, at most."""

_EXTRACTION_SHARE = 0.25  # of the time, after which no further painted slice is looked at
_MAX_PIXELS = 400_000  # of painted slices and their copies: 0.9 GB of features
_PIXELS_PAINTED = (250, 600)  # of each structure and of background, from one slice, at most
_REACHES = (3, 6, 12, 24)  # slices from a painted one to which each round of self-training goes
_STEPS = (400, 200, 200, 200, 200)  # optimiser steps on painted slices, and of each round
_MIN_SECONDS = 1.0  # of training in every round


def app_recipe(training: Training, iterations: int | None) -> Iterator[Progress]:
    """Train ``training.segmenter``, and leave the volume's registration in ``training``.

    Parameters
    ----------
    training
        Its registration is used where it fits.
    iterations
        Optimiser steps, shared by the rounds; ``None`` lets the budget decide.
    """
    segmenter, volume = training.segmenter, training.volume
    if len(volume.hu) > 1:
        known = training.registration
        if known is None or not known.fits(volume, training.grid):
            training.registration = yield from register_slices(training)
        full = [slice_ for slice_ in training.painted if slice_.full]
        if training.planes:
            yield from _cross(training)
        training.propagated = propagate_labels(
            segmenter, training.grid, volume, full, training.registration, training.crossing
        )
    strategy = segmenter.config.strategy
    if strategy != "scratch":
        dense = 0
        if iterations is not None:  # the decoder gets as many as a round of the head
            dense = iterations // (len(_STEPS) + 1) if strategy == "decoder" else 0
            iterations -= dense
        yield from _head_recipe(training, iterations)
        iterations = None if iterations is None else dense
    if strategy != "linear":
        yield from train_dense(training, iterations, paper=False)


def _head_recipe(training: Training, iterations: int | None) -> Iterator[Progress]:
    """Train the head on painted slices, then round by round on pseudo-labels farther away."""
    rounds = 1 if training.registration is None else len(_STEPS)
    steps = list(_STEPS[:rounds])
    if iterations is not None:
        steps = [iterations // rounds + (n < iterations % rounds) for n in range(rounds)]
    full = torch.tensor([slice_.full for slice_ in training.painted])
    targets = training.targets[: len(full)] if len(full) else training.targets
    full = full if len(full) else torch.zeros(len(targets), dtype=torch.bool)
    prior = class_prior(targets.cpu(), full, len(training.segmenter.labels) + 1)
    until = training.budget.elapsed + _EXTRACTION_SHARE * training.budget.left
    counts = pixel_counts(len(training.images))
    if training.teacher is not None:
        training.unknown = torch.zeros(len(prior), dtype=torch.bool)
    painted = yield from painted_pixels(training, counts=counts, until=until)
    if training.teacher is not None:
        kept, prior = yield from _rehearsed_pixels(training, training.teacher, prior)
        painted = painted.extended(kept)
    yield from fit(training, "learning", painted, prior, steps[0], steps[0] / sum(steps))
    for n, reach in enumerate(_REACHES[: rounds - 1], start=1):
        if steps[n] == 0 or training.budget.left <= 0:
            return
        yield from complete_painted(training)
        pseudo = yield from pseudo_labelled_pixels(training, reach)
        if training.budget.left <= 0:
            return
        stage, share = f"self-training {reach} slices around", steps[n] / sum(steps[n:])
        yield from fit(training, stage, painted.extended(pseudo), prior, steps[n], share)


def _rehearsed_pixels(
    training: Training, teacher: Segmenter, prior: Tensor
) -> Generator[Progress, None, tuple[PixelBank, Tensor]]:
    """Sample what a model of other patients says where paint says nothing; also the new prior.

    That is all in slices that no round of self-training reaches, and elsewhere the structures
    without a painted pixel. What the model knows would be lost otherwise with the first slice that
    is painted: what is not on it would be learnt as background.
    """
    places = [slice_.z for slice_ in training.painted]
    count = len(training.volume.hu)
    distance = torch.tensor([min((abs(z - at) for at in places), default=1) for z in range(count)])
    far = distance > _REACHES[-1]
    if any(plane.full for plane in training.planes):
        far[:] = False  # one crosses all slices
    unseen = prior == 0
    unseen[len(teacher.labels) + 1 :] = False
    asked = (distance > 0 if unseen.any() else far).nonzero()[:, 0].tolist()
    if not asked:
        return PixelBank(), prior
    slices = spread(asked, MAX_SLICES)
    steps = unpainted_pixels(training, teacher, slices, far[slices][:, None] | unseen)
    kept, shares = yield from mapped(
        steps, lambda one: replace(one, stage="asking the earlier model")
    )
    if not kept.classes:
        return kept, prior
    mixed = torch.where(unseen, shares, torch.lerp(prior, shares, far.float().mean()))
    return kept, mixed / mixed.sum()


def register_slices(training: Training) -> Generator[Progress, None, Registration]:
    """Register neighbouring slices of the volume; returns the registration."""
    pairs = register(training.volume, training.grid, training.images.device)
    count = len(training.volume.hu) - 1
    return (
        yield from mapped(pairs, lambda done: training.report("registering slices", done, count))
    )


def _cross(training: Training) -> Iterator[Progress]:
    """Register the neighbours of painted planes, and propagate what is painted on them."""
    volume, grid, registration = training.volume, training.grid, training.registration
    assert registration is not None
    steps = register_planes(volume, grid, training.planes, registration)
    training.registration = registration = yield from mapped(
        steps, lambda at: training.report("registering planes", *at)
    )
    labels = training.segmenter.labels
    training.crossing = crossing_of(volume, grid, training.planes, labels, registration)


def complete_painted(training: Training) -> Iterator[Progress]:
    """Complete scribbled slices anew, for the head has become better at it."""
    scribbled = [slice_.z for slice_ in training.painted if not slice_.full]
    if not scribbled:
        return
    training.propagated = propagate_labels(
        training.segmenter,
        training.grid,
        training.volume,
        training.painted,
        training.registration,
        training.crossing,
    )
    assert training.propagated is not None
    for done, z in enumerate(scribbled, start=1):
        training.propagated.at(z)
        yield training.report("completing scribbles", done, len(scribbled), preview=True)
        if training.budget.left <= 0:
            return


def pixel_counts(slices: int) -> tuple[int, int]:
    """Pixels of each structure, and of background, to sample from one of so many painted slices."""
    one = max(_MAX_PIXELS // (slices * (COPIES + 1)), 40)
    return min(one // 8, _PIXELS_PAINTED[0]), min(one // 3, _PIXELS_PAINTED[1])


def painted_pixels(
    training: Training,
    copies: Sequence[int] = range(COPIES + 1),
    counts: tuple[int, int] = _PIXELS_PAINTED,
    contrast_medium: bool = False,
    until: float = math.inf,
) -> Generator[Progress, None, PixelBank]:
    """Sample the painted slices and augmented copies of them.

    Parameters
    ----------
    training
        Its painted slices are sampled.
    copies
        Which copies; the one numbered 0 is the slice as it is.
    counts
        Pixels of each structure, and of background, from one slice.
    contrast_medium
        Whether the copies vary the contrast medium, too.
    until
        Elapsed seconds of the training after which it samples no more; what it has sampled by
        then lies spread over the volume.
    """
    bank = PixelBank()
    training.segmenter.eval()
    n, step = len(training.images), training.batch
    # Steps of the golden ratio: the first few are spread over all, and so are the next.
    spread = torch.argsort(torch.arange(n) * ((5**0.5 - 1) / 2) % 1)
    weights = [slice_.weight for slice_ in training.painted]
    weights += [1.0] * (len(training.images) - len(weights))  # slices that planes cross
    for copy in copies:
        for chosen in spread.split(step):
            if bank.classes and training.budget.elapsed > until:
                return bank
            images, targets = training.images[chosen], training.targets[chosen]
            if copy and contrast_medium:
                images = change_contrast_medium(images, targets, training.generator)
            if copy:
                images, targets = augment(images, targets, training.generator)
            maps = extract_features(training, images)
            bank.add(
                maps,
                targets,
                training.generator,
                *counts,
                weight=[weights[n] for n in chosen.tolist()],
                unknown=training.unknown,
            )
            yield training.report("extracting features", copy, COPIES + 1, preview=True)
    return bank


def fit(
    training: Training, stage: str, bank: PixelBank, prior: Tensor, steps: int, share: float
) -> Iterator[Progress]:
    """Train the head for ``steps``, or for that share of the time that is left."""
    head = training.segmenter.head
    assert isinstance(head, LevelHead)
    head.requires_grad_(True)
    seconds = max(share * training.budget.left, _MIN_SECONDS)
    losses = fit_head(head, bank, prior, steps, training.generator, seconds=seconds)
    for step, loss in enumerate(losses, start=1):
        yield training.report(stage, step, steps, loss)
        if training.budget.finishing:
            return
    training.learnt = True
    yield training.report(stage, steps, steps, preview=True)
