"""Train one segmenter on several patients, and judge it on patients that it never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from napari_diffseg.engine.annotations import TrainError, class_maps
from napari_diffseg.engine.augment import augment, change_contrast_medium
from napari_diffseg.engine.cohort import Case, Cohort
from napari_diffseg.engine.metrics import dice
from napari_diffseg.engine.pixel_head import PixelBank
from napari_diffseg.engine.predict import predict_slices, propagate_labels
from napari_diffseg.engine.progress import Budget, Progress
from napari_diffseg.engine.pseudo_labels import (
    UNPAINTED_WEIGHT,
    extract_features,
    pseudo_labelled_pixels,
    spread,
    unpainted_pixels,
)
from napari_diffseg.engine.recipe import (
    COPIES,
    complete_painted,
    fit,
    painted_pixels,
    pixel_counts,
    register_slices,
)
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.engine.training import Training, train_dense
from napari_diffseg.io.labels import Label
from napari_diffseg.network.device import pick_device, upload
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter

MAX_FOLDS = 10
"""More patients than this are left out in groups."""

_EXTRACTION_SHARE = 0.5  # of the time, after which no further slice is looked at
_STEPS = (1200, 400, 400)  # optimiser steps of the head on painted slices, and in each round
_MAX_UNPAINTED, _MIN_UNPAINTED = 400, 8  # slices of all patients without paint, and of one
_PIXELS_PREDICTED = (100, 300)  # from one slice that the patient's own model labelled
_REACHES = (6, 24)  # slices from a painted one to which each round of self-training goes


def train_cohort(
    cohort: Cohort, settings: TrainSettings, finished: Callable[[], bool] | None = None
) -> Generator[Progress, None, Segmenter]:
    """Train one segmenter on all patients.

    Parameters
    ----------
    cohort
        From :func:`prepare_cohort`.
    settings
        Strategy, budget, seed and device.
    finished
        Asked at every step; once true, training ends with what it has learnt so far.

    Yields
    ------
    Progress
        At least every half second of work.

    Returns
    -------
    Segmenter
        In evaluation mode.

    Raises
    ------
    TrainError
        If training was finished before its first step.

    Notes
    -----
    The head learns from pixels of all patients' painted slices and of augmented copies, in which
    the contrast medium varies, too; then from pseudo-labels on slices that are not painted, as
    within a volume (:func:`~.recipe.app_recipe`). Classes that nobody looked for in a patient are
    merged with background there (:func:`~napari_diffseg.network.losses.merge_unknown`).
    """
    budget = Budget(settings.seconds if settings.iterations is None else None, finished)
    segmenter, trainings = _trainings(cohort, settings, budget)
    learnt = 0
    for progress in _stages(cohort, trainings, settings, budget):
        learnt += progress.loss is not None
        if budget.finishing and not learnt:
            raise TrainError("nothing was learnt yet, so there is nothing to keep")
        yield progress
    yield replace(trainings[0].report("trained", 1, 1), remaining=0.0)
    return segmenter.eval()


def _trainings(
    cohort: Cohort, settings: TrainSettings, budget: Budget
) -> tuple[Segmenter, list[Training]]:
    """One training for each patient with paint; all train the same segmenter."""
    device = pick_device(settings.device)
    torch.manual_seed(settings.seed)
    segmenter = Segmenter.new(cohort.start, cohort.labels, cohort.config).placed(device)
    single = tuple(label.name for label in cohort.labels if label.id in cohort.single)
    segmenter.card = replace(segmenter.card, single_pieces=single)
    generator = torch.Generator().manual_seed(settings.seed)
    trainings = []
    for case, unknown, grid in zip(cohort.cases, cohort.unknown, cohort.grids, strict=True):
        painted = tuple(case.painted)
        classes = np.zeros((0, *grid.shape), np.uint8)
        if painted:
            classes = class_maps(painted, cohort.labels)
        trainings.append(
            Training(
                volume=case.volume,
                painted=painted,
                grid=grid,
                segmenter=segmenter,
                images=upload(grid.image(case.volume.hu[[p.z for p in painted]]), device),
                targets=upload(grid.target(classes), device),
                generator=generator,
                budget=budget,
                unknown=unknown,
            )
        )
    return segmenter, trainings


def _stages(
    cohort: Cohort, trainings: Sequence[Training], settings: TrainSettings, budget: Budget
) -> Iterator[Progress]:
    iterations, dense = settings.iterations, 0
    if iterations is not None and settings.strategy == "decoder":
        dense = iterations // (len(_STEPS) + 1)
        iterations -= dense
    painted = [training for training in trainings if training.painted]
    both = zip(cohort.cases, trainings, strict=True)
    whole = [training for case, training in both if not case.cropped]
    partial = [training for training in whole if training.painted and _has_gaps(training)]
    alone = [training for training in trainings if not training.painted]
    rounds = len(_STEPS) if partial or alone else 1
    steps = list(_STEPS[:rounds])
    if iterations is not None:
        steps = [iterations // rounds + (n < iterations % rounds) for n in range(rounds)]
    prior = _class_shares(painted)
    bank = yield from _sample(painted, settings, budget, len(painted))
    for case, training in zip(cohort.cases, trainings, strict=True):
        if case.predicted and budget.left > 0:
            bank = bank.extended((yield from _pixels_predicted(training, case, cohort.labels)))
    yield from fit(painted[0], "learning", bank, prior, steps[0], steps[0] / sum(steps))
    for n, reach in enumerate(_REACHES[: rounds - 1], start=1):
        if steps[n] == 0 or budget.left <= 0:
            break
        pseudo = PixelBank()
        for training in partial:
            if training.registration is None:
                training.registration = yield from register_slices(training)
                full = [slice_ for slice_ in training.painted if slice_.full]
                training.propagated = propagate_labels(
                    training.segmenter, training.grid, training.volume, full, training.registration
                )
            yield from complete_painted(training)
        for training in partial:
            if budget.left > 0:
                pseudo = pseudo.extended((yield from pseudo_labelled_pixels(training, reach)))
        for training in alone:
            if budget.left > 0:
                count = max(_MIN_UNPAINTED, _MAX_UNPAINTED // len(alone))
                slices = spread(range(len(training.volume.hu)), count)
                found, _ = yield from unpainted_pixels(training, training.segmenter, slices)
                pseudo = pseudo.extended(found)
        if budget.left <= 0 or not pseudo.classes:
            break
        share = steps[n] / sum(steps[n:])
        stage = f"self-training, round {n} of {rounds - 1}"
        yield from fit(painted[0], stage, bank.extended(pseudo), prior, steps[n], share)
    if settings.strategy == "decoder":
        own = None if iterations is None else dense
        yield from train_dense(painted[0], own, paper=False, others=painted[1:])


def _pixels_predicted(
    training: Training, case: Case, labels: Sequence[Label]
) -> Generator[Progress, None, PixelBank]:
    """Sample the slices that a model of this patient has labelled, augmented once."""
    bank, device, step = PixelBank(), training.images.device, training.batch
    for first in range(0, len(case.predicted), step):
        batch = case.predicted[first : first + step]
        hu = training.volume.hu[[slice_.z for slice_ in batch]]
        images = upload(training.grid.image(hu), device)
        targets = upload(training.grid.target(class_maps(batch, labels)), device)
        images = change_contrast_medium(images, targets, training.generator)
        images, targets = augment(images, targets, training.generator)
        maps = extract_features(training, images)
        bank.add(
            maps,
            targets,
            training.generator,
            *_PIXELS_PREDICTED,
            weight=UNPAINTED_WEIGHT,
            unknown=training.unknown,
        )
        yield training.report("extracting features", first + len(batch), len(case.predicted))
    return bank


def _has_gaps(training: Training) -> bool:
    known = {slice_.z for slice_ in training.painted if slice_.full}
    return len(known) < len(training.volume.hu)


def _class_shares(trainings: Sequence[Training]) -> Tensor:
    """Share of each class ``(K,)`` among the known pixels of those who looked for it."""
    found, looked = torch.zeros(()), torch.zeros(())
    for training in trainings:
        assert training.unknown is not None
        full = torch.tensor([slice_.full for slice_ in training.painted])
        targets = training.targets.cpu()
        counted = targets[full] if full.any() else targets
        count = counted[counted != UNKNOWN].bincount(minlength=len(training.unknown))
        found = found + count
        looked = looked + count.sum() * ~training.unknown
    shares = found / looked
    shares[0] = 1 - shares[1:].sum()
    return shares


def _sample(
    trainings: Sequence[Training], settings: TrainSettings, budget: Budget, patients: int
) -> Generator[Progress, None, PixelBank]:
    """Sample the painted slices of some of the patients, and copies of them, as time allows."""
    until = math.inf
    if settings.seconds is not None and settings.iterations is None:
        until = _EXTRACTION_SHARE * settings.seconds * len(trainings) / patients
    bank = PixelBank()
    slices = sum(len(training.painted) for training in trainings) * patients / len(trainings)
    counts = pixel_counts(round(slices))
    for copy in range(COPIES + 1):
        if copy and budget.elapsed > until:
            break
        for n, training in enumerate(trainings):
            own = budget.elapsed + max(until - budget.elapsed, 0.0) / (len(trainings) - n)
            more = yield from painted_pixels(training, [copy], counts, True, own)
            bank = bank.extended(more)
    return bank


def leave_one_patient_out(
    cohort: Cohort, settings: TrainSettings
) -> Generator[Progress, None, dict[str, float]]:
    """Judge the head on the painted slices of each patient, having learnt from the others.

    Parameters
    ----------
    cohort
        Of two patients with paint or more.
    settings
        As for :func:`train_cohort`. Each fold may take half of the seconds, or all iterations; the
        head learns from painted slices only, so the figures are cautious.

    Yields
    ------
    Progress
        Of the whole validation.

    Returns
    -------
    Dice by name of the structure: the mean over the patients who show it, on the model's grid.

    Raises
    ------
    TrainError
        If there are fewer than two patients with paint.
    """
    budget = Budget(None)
    segmenter, trainings = _trainings(cohort, settings, budget)
    trainings = [training for training in trainings if training.painted]
    if len(trainings) < 2:
        raise TrainError("leaving out one patient at a time needs two patients with paint")
    banks: list[PixelBank] = []
    for training in trainings:
        bank = yield from _sample([training], settings, Budget(None), len(trainings))
        banks.append(bank)
    folds = np.array_split(np.arange(len(trainings)), min(MAX_FOLDS, len(trainings)))
    found: dict[str, list[float]] = {}
    for done, fold in enumerate(folds):
        others = [n for n in range(len(trainings)) if n not in fold]
        rest = [trainings[n] for n in others]
        bank = PixelBank()
        for n in others:
            bank = bank.extended(banks[n])
        segmenter.head.apply(_forget)
        steps = settings.iterations or _STEPS[0]
        limit = None if settings.iterations else settings.seconds
        own = replace(rest[0], budget=Budget(None if limit is None else limit / 2))
        for progress in fit(own, "validating", bank, _class_shares(rest), steps, 1.0):
            note = f"without patient {done + 1} of {len(folds)}"
            yield Progress(
                "validating", done, len(folds), budget.elapsed, None, progress.loss, note
            )
        for training in (trainings[n] for n in fold):
            for name, figure in _quality(segmenter, training).items():
                found.setdefault(name, []).append(figure)
    yield Progress("validated", len(folds), len(folds), budget.elapsed, 0.0)
    return {name: float(np.mean(figures)) for name, figures in found.items()}


def _forget(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()


def _quality(segmenter: Segmenter, training: Training) -> dict[str, float]:
    """Dice of a patient's structures on the slices that are painted in full."""
    full = [slice_ for slice_ in training.painted if slice_.full]
    order = [slice_.z for slice_ in full]
    found = predict_slices(segmenter, training.grid, training.volume, None, order)
    masks = np.stack([one.mask for one in found])
    reference = np.stack([slice_.mask for slice_ in full])
    there = [label for label in segmenter.labels if (reference == label.id).any()]
    quality = dice(masks, reference, [label.id for label in there])
    return {label.name: quality[label.id] for label in there}
