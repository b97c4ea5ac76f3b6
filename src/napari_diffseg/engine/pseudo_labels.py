"""Pixels of slices that nobody painted, with the labels that a head gives them."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import numpy as np
import torch
from torch import Tensor

from napari_diffseg.engine.augment import augment
from napari_diffseg.engine.pieces import largest_pieces
from napari_diffseg.engine.pixel_head import PixelBank
from napari_diffseg.engine.predict import posterior
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.registration import soft_tissue
from napari_diffseg.engine.training import Training
from napari_diffseg.network.device import autocast, upload
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter

MIN_CONFIDENCE = 0.7
"""Pixels whose class is less likely get no pseudo-label."""

UNPAINTED_WEIGHT = 0.5
"""How much a pixel counts, among painted ones, that nobody painted."""

MAX_SLICES = 40
"""Slices that get pseudo-labels in one round."""

_PIXELS_NEAR = (100, 300)  # of each structure and of background, from one slice
_PIXELS_ALONE = (60, 150)  # the same, from one slice with no paint near


def extract_features(training: Training, images: Tensor) -> tuple[Tensor, ...]:
    """Decoder maps of all levels ``(B, C, h, w)`` of images ``(B, 1, H, W)``."""
    try:
        with torch.inference_mode(), autocast(images.device):
            return training.segmenter.unet.decode_levels(training.segmenter.encode(images))
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
        training.halve_batch()
        halves = [extract_features(training, half) for half in images.chunk(2)]
        return tuple(torch.cat(pair) for pair in zip(*halves, strict=True))


def pseudo_labelled_pixels(training: Training, reach: int) -> Generator[Progress, None, PixelBank]:
    """Sample slices that are not painted, labelled by head and propagated labels together.

    Parameters
    ----------
    training
        Of a head that has learnt.
    reach
        Slices from a painted one, at most.
    """
    propagated, grid = training.propagated, training.grid
    assert propagated is not None
    known = {slice_.z for slice_ in training.painted if slice_.full}
    near = [z for z in range(len(training.volume.hu)) if propagated.distance(z) <= reach]
    near = [z for z in near if z not in known]
    near = near[:: math.ceil(len(near) / MAX_SLICES) or 1]
    bank, step = PixelBank(), training.batch
    for first in range(0, len(near), step):
        batch = near[first : first + step]
        hu, device = training.volume.hu[batch], training.images.device
        images = upload(grid.image(hu), device)  # (B, 1, H, W)
        edges = upload(soft_tissue(grid, hu), device)  # (B, H, W)
        maps = extract_features(training, images)
        with torch.inference_mode(), autocast(device):
            logits = training.segmenter.head(maps)  # (B, K, H, W)
        targets = []
        for one, z, edge in zip(logits, batch, edges, strict=True):
            confidence, labels = posterior(one, propagated, z, edge).max(dim=0)
            # The mask also makes a tensor that is none of inference mode.
            targets.append(labels.masked_fill(confidence < MIN_CONFIDENCE, UNKNOWN))
        # Plain slices of one scan would teach nothing that holds for another patient.
        changed, classes = augment(images, torch.stack(targets), training.generator)
        maps = extract_features(training, changed)
        for n, z in enumerate(batch):
            bank.add(
                tuple(level[n : n + 1] for level in maps),
                classes[n : n + 1],
                training.generator,
                *_PIXELS_NEAR,
                weight=math.exp(-propagated.distance(z) / reach),
                unknown=training.unknown,
            )
        yield training.report("pseudo-labelling", first + len(batch), len(near), preview=True)
        if training.budget.left <= 0:
            break
    return bank


def unpainted_pixels(
    training: Training, teacher: Segmenter, slices: Sequence[int], wanted: Tensor | None = None
) -> Generator[Progress, None, tuple[PixelBank, Tensor]]:
    """Sample slices without paint, labelled by a head that has learnt where it is surest.

    Pieces astray of a structure that is one piece are left out: the head is wrong there, or wrong
    elsewhere.

    Parameters
    ----------
    training
        Its network is looked at, and its volume.
    teacher
        Labels the slices. Its structures are the first ones of the training's segmenter; of the
        others it knows nothing. Its card says which of them are one piece.
    slices
        Which slices, ascending.
    wanted
        Which classes are taken from each of them, bool ``(n, K)``; all where ``None``.

    Returns
    -------
    The pixels, and the share of each class ``(K,)`` in what the head predicts. Nothing where the
    time was up first.
    """
    known, classes_in_all = len(teacher.labels) + 1, len(training.segmenter.labels) + 1
    images = training.grid.image(training.volume.hu[list(slices)])  # (n, 1, H, W)
    found = yield from _labelled(training, teacher, slices, images)
    bank, shares = PixelBank(), torch.zeros(classes_in_all)
    if found is None:
        return bank, shares
    classes, confidence, shares[:known] = found
    left_out = _doubtful(classes, confidence, teacher)
    if wanted is not None:
        left_out |= ~wanted[torch.arange(len(classes))[:, None, None], classes]
    classes = classes.masked_fill(left_out, UNKNOWN)
    unknown, step = torch.arange(classes_in_all) >= known, training.batch
    for first in range(0, len(slices), step):
        changed, targets = augment(
            upload(images[first : first + step], training.images.device),
            upload(classes[first : first + step], training.images.device),
            training.generator,
        )
        maps = extract_features(training, changed)
        bank.add(
            maps,
            targets,
            training.generator,
            *_PIXELS_ALONE,
            weight=UNPAINTED_WEIGHT,
            unknown=unknown,
        )
        done = (len(slices) + first) // 2
        yield training.report("extracting features", done, len(slices))
    return bank, shares


def _labelled(
    training: Training, teacher: Segmenter, slices: Sequence[int], images: Tensor
) -> Generator[Progress, None, tuple[Tensor, Tensor, Tensor] | None]:
    """Label slices: classes and confidence ``(n, H, W)``, share of each class ``(K,)``.

    ``None`` where the time was up first.
    """
    device, step = training.images.device, training.batch
    tissue = soft_tissue(training.grid, training.volume.hu[list(slices)])  # (n, H, W)
    teacher.eval()
    labels, sureness = [], []
    shares = torch.zeros(len(teacher.labels) + 1)
    for first in range(0, len(slices), step):
        if training.budget.left <= 0:
            return None
        with torch.inference_mode(), autocast(device):
            logits = teacher(upload(images[first : first + step], device))
        for n, one in enumerate(logits, start=first):
            p = posterior(one, None, slices[n], upload(tissue[n], device))
            confidence, best = p.max(dim=0)
            labels.append(best.cpu())
            sureness.append(confidence.cpu())
            shares += p.mean(dim=(1, 2)).cpu() / len(slices)
        yield training.report("pseudo-labelling", first // 2, len(slices))
    # A clone is none of inference mode's.
    return torch.stack(labels).clone(), torch.stack(sureness), shares.clone()


def _doubtful(classes: Tensor, confidence: Tensor, teacher: Segmenter) -> Tensor:
    """Where labels ``(n, H, W)`` are not sure enough, or astray of a structure in one piece."""
    found = classes.numpy().astype(np.uint8)
    single = teacher.card.single_pieces
    ids = [n for n, label in enumerate(teacher.labels, start=1) if label.name in single]
    astray = torch.from_numpy(largest_pieces(found, ids) != found)
    # The surer half of a class is taken anyway: else those that the head doubts everywhere would be
    # learnt from no pixel, and be lost.
    enough = torch.full((len(teacher.labels) + 1,), MIN_CONFIDENCE)
    for n in classes.unique().tolist():
        enough[n] = min(MIN_CONFIDENCE, float(confidence[classes == n].median()))
    return astray | (confidence < enough[classes])


def spread(slices: Sequence[int], count: int) -> Sequence[int]:
    """Every n-th of some slices, so that about `count` are left.

    Examples
    --------
    >>> list(spread(range(10), 4))
    [0, 2, 4, 6, 8]
    """
    return slices[:: max(1, len(slices) // count)]
