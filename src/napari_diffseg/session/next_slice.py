"""Which slice or plane of a session to paint next, from its paint and its prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.engine.suggest import (
    Suggestion,
    likely_empty,
    slice_change,
    slice_confidence,
    soft_tissue_share,
    structure_share,
    suggest,
)
from napari_diffseg.engine.suggest_plane import PlaneSuggestion, expected_error, suggest_plane
from napari_diffseg.io.volume import Volume
from napari_diffseg.session.lesson import of_other_patients
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.prediction import Prediction
from napari_diffseg.session.trainer import Trainer

_REACH_MM = 25.0  # how far along z a painted slice is taken to help its neighbours
_EMPTY = 0.1  # of the error that is expected elsewhere, where nothing is likely to be shown
_LEAST_SOFT = 0.02  # share of soft tissue that every slice is taken to have
_PIXELS = 64  # per row of a slice: a few say as much, and it is asked after each stroke


def next_slices(
    volume: Volume, paint: Paint, prediction: Prediction, trainer: Trainer, n: int
) -> list[Suggestion]:
    """Name at most `n` slices, the best first; those that repeat a corrected mistake lead."""
    step = max(1, volume.hu.shape[2] // _PIXELS)
    thin = np.s_[:, ::step, ::step]
    taken: NDArray[np.bool_] = paint.states > 0
    confidence = change = weight = None
    if prediction.round_of.all():
        mask = prediction.mask[thin]
        confidence = slice_confidence(mask, prediction.confidence[thin])
        change = slice_change(mask)
        if of_other_patients(trainer.segmenter, trainer.round):
            # They have shown it where structures are; a few slices of one patient have not.
            soft = soft_tissue_share(volume.hu[thin]) + _LEAST_SOFT
            weight = structure_share(mask, [label.id for label in paint.labels], soft) + _EMPTY
        else:
            shown = np.array([plane.any() for plane in paint.mask[thin] % BACKGROUND])
            weight = np.where(likely_empty(taken, shown), _EMPTY, 1.0)
    elif taken.any():
        weight = soft_tissue_share(volume.hu[thin]) + _LEAST_SOFT
    again = [one for one in trainer.repeated if paint.states[one.z] == SliceState.UNPAINTED][:n]
    taken[[one.z for one in again]] = True
    first = [Suggestion(one.z, one.reason) for one in again]
    rest = n - len(first)
    reach = max(2.0, _REACH_MM / float(volume.geometry.spacing[0]))
    return first + (suggest(taken, confidence, change, rest, reach, weight) if rest else [])


def next_plane(volume: Volume, paint: Paint, prediction: Prediction) -> PlaneSuggestion | None:
    """Name a coronal or sagittal plane; ``None`` where a slice is worth more."""
    if not prediction.round_of.all():
        return None
    step = max(1, max(prediction.mask.shape[1:]) // _PIXELS)
    thin = np.s_[:, step // 2 :: step, step // 2 :: step]
    error = expected_error(prediction.mask[thin], prediction.confidence[thin])
    painted, planes = paint.states > 0, list(paint.planes)
    return suggest_plane(error, painted, planes, volume.geometry.spacing, _REACH_MM, step)
