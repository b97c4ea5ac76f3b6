"""Leave-one-out Dice: each painted slice is judged by a model that never saw it."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine import metrics
from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.planes import PaintedPlane, crossed
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone
from napari_diffseg.session.journal import SessionError

MAX_FOLDS = 10
"""More painted slices than this are sampled evenly, so that each fold keeps a useful budget."""
T = TypeVar("T")


def closable(steps: Iterator[T]) -> closing[Generator[T, None, None]]:
    """Close an engine's generator, and with it its work, when the block is left."""
    return closing(cast("Generator[T, None, None]", steps))


def painted_ids(mask: NDArray[np.uint8]) -> set[int]:
    """Label ids that are painted on a slice or a plane."""
    return set(np.unique(mask).tolist()) - {0, BACKGROUND}


def taught_ids(
    painted: Sequence[PaintedSlice], planes: Sequence[PaintedPlane], known: bool = False
) -> set[int]:
    """Label ids that can be learnt from this paint.

    Parameters
    ----------
    painted, planes
        The paint.
    known
        Whether other patients have shown the structures, so that background alone teaches, too:
        where the model sees what is not there.

    Raises
    ------
    SessionError
        If there is none, or no background to tell them from.
    """
    if not painted and not planes:
        raise SessionError("Paint a structure on at least one slice, then Train.")
    together: list[PaintedSlice | PaintedPlane] = [*painted, *planes]
    on = set().union(*(painted_ids(one.mask) for one in together))
    if not on and not known:
        raise SessionError("Only background is painted. Paint a structure, then Train.")
    if not any(one.full or (one.mask == BACKGROUND).any() for one in together):
        raise SessionError(
            "No background is painted. Scribble some, or mark a slice as painted in full."
        )
    return on


def leave_one_out(
    volume: Volume,
    painted: Sequence[PaintedSlice],
    judged: Sequence[int],
    labels: Sequence[Label],
    backbone: Backbone,
    settings: TrainSettings,
    registration: Registration | None = None,
    planes: Sequence[PaintedPlane] = (),
) -> Generator[Progress, None, dict[int, float]]:
    """Train without each judged slice, predict it, and compare it with its paint.

    Training always begins at the backbone: the session's model, or a model that was loaded, may
    have seen the slice.

    Parameters
    ----------
    volume, painted, labels, backbone, settings, registration
        As for :func:`finetune`. The seconds are shared by the folds; each takes all the iterations.
    judged
        Slices that are left out in turn; they are painted in full.
    planes
        Painted coronal and sagittal planes; their rows and columns in a judged slice do not count.

    Yields
    ------
    Progress
        Of the whole validation.

    Returns
    -------
    Dice by label id, over the pixels of all judged slices together. A label that is painted on
    fewer than two slices, or on no judged one, is left out: nothing can be said of it.

    Raises
    ------
    SessionError
        If fewer than two slices are painted, or no label is on two of them.
    """
    if len(painted) + len(planes) < 2 or not judged:
        raise SessionError(
            "validation leaves out one painted slice at a time, so it needs two slices "
            "painted in full; paint another one"
        )
    on = {slice_.z: painted_ids(slice_.mask) for slice_ in painted}
    across = set().union(*(painted_ids(plane.mask) for plane in planes))
    ids = [
        label.id
        for label in labels
        if sum(label.id in there for there in (*on.values(), across)) > 1
        and any(label.id in on[z] for z in judged)
    ]
    folds = [z for z in judged if across.union(*(there for w, there in on.items() if w != z))]
    if not ids or not folds:
        raise SessionError(
            "every structure is painted on one slice only, so none can be validated; "
            "paint one of them on a second slice"
        )
    if len(folds) > MAX_FOLDS:
        folds = [folds[i] for i in np.linspace(0, len(folds) - 1, MAX_FOLDS).round().astype(int)]
    share = None if settings.seconds is None else settings.seconds / len(folds)
    began = time.perf_counter()
    references, predictions = [], []
    for done, z in enumerate(folds):
        rest = [slice_ for slice_ in painted if slice_.z != z]
        taught = across.union(*(on[slice_.z] for slice_ in rest))
        known = [label for label in labels if label.id in taught]
        own = replace(settings, seconds=share)
        steps = finetune(
            volume, rest, known, backbone, own, registration=registration, planes=planes
        )
        segmenter = None
        with closable(steps) as fold:
            for progress in fold:
                segmenter = progress.segmenter
                registration = progress.registration or registration
                elapsed = time.perf_counter() - began
                remaining = None
                if progress.remaining is not None:
                    per_fold = progress.seconds + progress.remaining
                    remaining = progress.remaining + per_fold * (len(folds) - done - 1)
                note = f"without slice {z} ({done + 1} of {len(folds)})"
                yield Progress("validating", done, len(folds), elapsed, remaining, None, note)
        assert segmenter is not None
        engine = predict(segmenter, volume, rest, z, settings.device, registration, planes)
        with closable(engine) as found:
            predicted = next(found).mask
        unseen = crossed(planes, z, volume.hu.shape) == 0
        predictions.append(predicted * unseen)
        references.append(next(slice_.mask for slice_ in painted if slice_.z == z) * unseen)
    quality = metrics.dice(np.stack(predictions), np.stack(references), ids)
    yield Progress(
        "validated", len(folds), len(folds), time.perf_counter() - began, 0.0, note="validated"
    )
    return {key: value for key, value in quality.items() if not math.isnan(value)}
