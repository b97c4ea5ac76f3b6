"""Predict every slice of a volume, the current one first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_diffseg.engine.annotations import PaintedSlice, class_maps
from napari_diffseg.engine.crossing import Crossing, crossing_of, register_planes
from napari_diffseg.engine.fusion import FusedLabels
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.pieces import unsupported_pieces
from napari_diffseg.engine.planes import PaintedPlane, with_planes
from napari_diffseg.engine.progress import Budget, Progress, SlicePrediction, mapped, result_of
from napari_diffseg.engine.propagation import PropagatedLabels
from napari_diffseg.engine.random_walker import refine_outlines, with_seeds
from napari_diffseg.engine.registration import Registration, soft_tissue
from napari_diffseg.engine.scribbles import class_prior, complete_scribbles
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.device import autocast, pick_device, upload, within_memory
from napari_diffseg.network.segmenter import Segmenter, SegmenterError

_BATCH = 4
_SINGLE_SLICE_WEIGHT = 0.5  # of a head that learnt from one painted slice
_MIN_PROPAGATED = 1e-3  # probability of a propagated label, at least
_MIN_WITNESS = 0.3  # probability of a propagated label that supports a piece
_MIN_LOG_HEAD = -8.0  # log probability of a class in the head's opinion, at least


def outwards(start: int, count: int) -> list[int]:
    """Slice indices ordered by distance from ``start``.

    Examples
    --------
    >>> outwards(1, 4)
    [1, 0, 2, 3]
    """
    return sorted(range(count), key=lambda z: (abs(z - start), z))


def propagate_labels(
    segmenter: Segmenter,
    grid: SliceGrid,
    volume: Volume,
    painted: Sequence[PaintedSlice],
    registration: Registration | None,
    crossing: Crossing | None = None,
) -> PropagatedLabels | None:
    """Propagate painted labels; ``None`` without paint or without a registration of this volume.

    Scribbled slices are completed by the segmenter, which has to be trained by then.
    """
    if registration is None or not registration.fits(volume, grid):
        return None
    classes = len(segmenter.labels) + 1
    if not painted:
        return None if crossing is None else FusedLabels(registration, {}, classes, None, crossing)
    targets = grid.target(class_maps(painted, segmenter.labels))  # (n, rows, columns)
    sources = {slice_.z: target for slice_, target in zip(painted, targets, strict=True)}
    full = torch.tensor([slice_.full for slice_ in painted])
    prior = class_prior(targets, full, classes)

    def complete(z: int) -> Tensor:
        return complete_scribbles(segmenter, grid, volume, z, sources[z], prior)

    if crossing is not None:
        found: PropagatedLabels = FusedLabels(registration, sources, classes, complete, crossing)
    else:
        found = PropagatedLabels(registration, sources, classes, complete)
    found.alone &= segmenter.card.cases < 2  # other patients taught the head, too
    return found


def posterior(
    logits: Tensor, propagated: PropagatedLabels | None, z: int, image: Tensor | None
) -> Tensor:
    """Class probabilities ``(K, rows, columns)`` from head, propagated labels and edges.

    Propagated labels are the prior and the head is the likelihood: their product, normalised. A
    head that learnt from a single slice, and from nobody else, counts half.

    Parameters
    ----------
    logits
        Of one slice, ``(K, rows, columns)``.
    propagated
        Labels propagated from painted slices, or ``None``.
    z
        Slice index.
    image
        The slice on the soft-tissue window ``(rows, columns)``, whose edges the outlines shall
        follow, or ``None``.
    """
    head = logits.float().log_softmax(dim=0)
    if propagated is None:
        return head.exp() if image is None else refine_outlines(head.exp(), image)
    labels = propagated.at(z).to(head.device)
    if propagated.completes(z):
        return labels  # the head's opinion is in it already
    weight = _SINGLE_SLICE_WEIGHT if propagated.alone else 1.0
    log_prior = labels.clamp(min=_MIN_PROPAGATED).log()
    joint = (log_prior + weight * head.clamp(min=_MIN_LOG_HEAD)).softmax(dim=0)
    if z in propagated.sources:  # a painted slice has its outlines
        return joint
    seeds = propagated.seeds(z)
    seeds = None if seeds is None else seeds.to(joint.device)
    if image is not None:
        return refine_outlines(joint, image, seeds)
    return joint if seeds is None else with_seeds(joint, seeds)


def native_prediction(
    grid: SliceGrid, labels: Sequence[Label], z: int, probabilities: Tensor
) -> SlicePrediction:
    """Bring class probabilities ``(K, rows, columns)`` back to slice ``z`` of the volume."""
    ids = np.array([0, *(label.id for label in labels)], np.uint8)
    classes, confidence = grid.native(probabilities)
    return SlicePrediction(z, ids[classes], np.rint(confidence * 100).astype(np.uint8))


def predict_slices(
    segmenter: Segmenter,
    grid: SliceGrid,
    volume: Volume,
    propagated: PropagatedLabels | None,
    order: Sequence[int],
) -> Iterator[SlicePrediction]:
    """Predict slices in this order, in batches, on the segmenter's own device."""
    device = next(segmenter.parameters()).device
    training = segmenter.training
    for first in range(0, len(order), _BATCH):
        batch = order[first : first + _BATCH]
        segmenter.eval()
        try:
            with torch.inference_mode(), autocast(device):
                logits = segmenter(upload(grid.image(volume.hu[batch]), device))  # (B, K, H, W)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            for z in batch:
                yield from predict_slices(segmenter, grid, volume, propagated, [z])
            continue
        finally:
            segmenter.train(training)
        if not torch.isfinite(logits).all():
            raise SegmenterError(
                "the model computes no numbers, so its weights are damaged; train again, or load "
                "another one"
            )
        images: Sequence[Tensor | None] = [None] * len(batch)
        if segmenter.config.head == "levels":  # the papers' recipe leaves outlines alone
            images = list(upload(soft_tissue(grid, volume.hu[batch]), device))
        for z, one, image in zip(batch, logits, images, strict=True):
            probabilities = posterior(one, propagated, z, image)
            yield native_prediction(grid, segmenter.labels, z, probabilities)


def predict(
    segmenter: Segmenter,
    volume: Volume,
    painted: Sequence[PaintedSlice] = (),
    start: int = 0,
    device: str = "auto",
    registration: Registration | None = None,
    planes: Sequence[PaintedPlane] = (),
) -> Iterator[SlicePrediction]:
    """Predict all slices, ``start`` first, then outwards; one yield a slice.

    Parameters
    ----------
    segmenter
        Trained model.
    volume
        The CT.
    painted
        Painted slices of this very volume; their labels are propagated where its registration
        is given.
    start
        Slice to begin with.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    registration
        Of this volume, as the last progress of a training holds it.
    planes
        Painted coronal and sagittal planes of this very volume, used as the slices are.

    Yields
    ------
    SlicePrediction
        Mask and confidence of one slice, on the native grid.

    Raises
    ------
    DeviceError
        If the device is absent, or its memory is too small for a single slice.
    SegmenterError
        If the model's weights are so damaged that it computes no numbers.

    Examples
    --------
    >>> from napari_diffseg.io import read_volume, sample_volume_path
    >>> from napari_diffseg.network import SegmenterConfig, load_backbone
    >>> volume = read_volume(sample_volume_path())
    >>> liver = Label(1, "liver", (230, 159, 0))
    >>> untrained = Segmenter.new(load_backbone(), [liver], SegmenterConfig(columns=32))
    >>> first = next(predict(untrained, volume, start=60))
    >>> first.z, first.mask.shape == volume.hu.shape[1:]
    (60, True)
    """
    with within_memory():
        segmenter.placed(pick_device(device))
        grid, propagated = _propagated(segmenter, volume, painted, registration, planes)
        order = outwards(start, len(volume.hu))
        yield from predict_slices(segmenter, grid, volume, propagated, order[:1])
        yield from predict_slices(segmenter, grid, volume, propagated, order[1:])


def register_new_planes(
    segmenter: Segmenter,
    volume: Volume,
    planes: Sequence[PaintedPlane],
    registration: Registration | None,
) -> Generator[Progress, None, Registration | None]:
    """Register planes painted since the training; :func:`predict` takes seconds less with it.

    Parameters
    ----------
    segmenter, volume, planes, registration
        As for :func:`predict`.

    Yields
    ------
    Progress
        After every few pairs of neighbouring planes; nothing where all are registered.

    Returns
    -------
    Registration or None
        ``registration`` itself, or with what was missing added.
    """
    grid = _grid(segmenter, volume)
    if not planes or registration is None or not registration.fits(volume, grid):
        return registration
    clock = Budget(None)

    def report(at: tuple[int, int]) -> Progress:
        (done, count), passed = at, clock.elapsed
        left = passed / done * (count - done)
        return Progress("registering planes", done, count, passed, left)

    return (yield from mapped(register_planes(volume, grid, planes, registration), report))


def stray_pieces(
    segmenter: Segmenter,
    volume: Volume,
    mask: NDArray[np.uint8],
    painted: Sequence[PaintedSlice],
    registration: Registration | None,
    planes: Sequence[PaintedPlane] = (),
) -> NDArray[np.bool_]:
    """Pieces of predicted structures that neither paint nor propagated labels support.

    Structures that are painted on fewer than two slices, or whose propagated labels are several
    pieces, are left alone: they may be several pieces.

    Parameters
    ----------
    segmenter, volume, painted, registration, planes
        As for :func:`predict`, and what it was called with.
    mask
        Predicted label ids ``(z, y, x)``.

    Returns
    -------
    NDArray
        bool ``(z, y, x)``.
    """
    shown = Counter(label for slice_ in painted for label in np.unique(slice_.mask).tolist())
    looked = [label.id for label in segmenter.labels if shown[label.id] > 1]
    grid, propagated = _propagated(segmenter, volume, painted, registration, planes)
    if propagated is None or not looked:
        return np.zeros(mask.shape, bool)
    ids = np.array([0, *(label.id for label in segmenter.labels)], np.uint8)
    witness = np.zeros((len(mask), *grid.size), np.uint8)
    for z in range(len(mask)):
        p, classes = propagated.at(z).max(dim=0)
        witness[z] = np.where(p.cpu().numpy() >= _MIN_WITNESS, ids[classes.cpu().numpy()], 0)
    return unsupported_pieces(mask, grid.nearest(witness), looked)


def _propagated(
    segmenter: Segmenter,
    volume: Volume,
    painted: Sequence[PaintedSlice],
    registration: Registration | None,
    planes: Sequence[PaintedPlane],
) -> tuple[SliceGrid, PropagatedLabels | None]:
    """The grid of a segmenter on a volume, and the labels propagated on it."""
    grid, crossing = _grid(segmenter, volume), None
    painted = with_planes(painted, planes, volume.hu.shape)
    registration = result_of(register_new_planes(segmenter, volume, planes, registration))
    if planes and registration is not None and registration.fits(volume, grid):
        crossing = crossing_of(volume, grid, planes, segmenter.labels, registration)
    return grid, propagate_labels(segmenter, grid, volume, painted, registration, crossing)


def _grid(segmenter: Segmenter, volume: Volume) -> SliceGrid:
    return SliceGrid.of(
        volume, segmenter.config.columns, segmenter.grid_multiple, segmenter.intensity
    )
