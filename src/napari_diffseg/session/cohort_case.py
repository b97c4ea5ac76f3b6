"""One case of a cohort: read, predicted and written, in whatever process that is."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from napari_diffseg.engine.adaptation import adapt
from napari_diffseg.engine.pieces import largest_pieces
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import Progress, mapped
from napari_diffseg.io.errors import UserError
from napari_diffseg.io.files import content_sha256
from napari_diffseg.io.volume import Volume, read_volume, write_mask
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.cohort_table import CaseResult, LabelFigures

_ADAPTING = 0.6  # of a case's time, about
_model: dict[str, Segmenter] = {}
"""The model of this process by its SHA-256: one at most."""


class CohortError(UserError):
    """A cohort cannot be predicted."""


@dataclass(frozen=True)
class Job:
    """One case to predict; all of it can be sent to another process.

    Attributes
    ----------
    volume, mask, model
        What is read, written, and used.
    model_sha256
        Of the model.
    device
        As for :func:`~napari_diffseg.engine.predict.predict`.
    adapt
        Whether the model adapts to the volume first.
    running
        A file that is there as long as the run goes on.
    result
        The row of the table, to be filled.
    known
        The row of a mask that is there, was made by this model and is unchanged. If the volume is
        unchanged, too, nothing is to be done.
    """

    volume: Path
    mask: Path
    model: Path
    model_sha256: str
    device: str
    adapt: bool
    running: Path
    result: CaseResult
    known: CaseResult | None = None


class _StoppedError(Exception):
    """The run was stopped while this case was predicted."""


def predict_case(job: Job) -> Generator[float, None, CaseResult]:
    """Predict one case and write its mask; an error becomes a row of the table.

    Yields
    ------
    The share that is done.
    """
    began = time.perf_counter()
    result = job.result
    try:
        _go_on(job)
        fingerprint = content_sha256(job.volume) if job.volume.exists() else ""
        if job.known is not None and job.known.volume_sha256 == fingerprint:
            return replace(job.known, status="present", case=result.case, source=result.source)
        volume = read_volume(job.volume)
        result = replace(result, slices=len(volume.hu), notes=volume.geometry.notes)
        labels = yield from _predict(job, _loaded(job), volume)
    except _StoppedError:
        return replace(result, status="not reached")
    except Exception as error:
        return replace(job.result, status="failed", error=_sentence(error, job))
    return replace(
        result,
        status="predicted",
        labels=labels,
        seconds=round(time.perf_counter() - began, 2),
        model_sha256=job.model_sha256,
        volume_sha256=fingerprint,
        mask_sha256=content_sha256(job.mask),
        adapted=job.adapt,
    )


def _predict(
    job: Job, segmenter: Segmenter, volume: Volume
) -> Generator[float, None, tuple[LabelFigures, ...]]:
    mask, confidence = (np.zeros(volume.hu.shape, np.uint8) for _ in range(2))
    before = 0.0
    if job.adapt:
        segmenter = yield from _adapted(job, segmenter, volume)
        before = _ADAPTING
    for done, found in enumerate(predict(segmenter, volume, device=job.device), start=1):
        _go_on(job)
        mask[found.z], confidence[found.z] = found.mask, found.confidence
        yield before + (1 - before) * done / len(mask)
    single = segmenter.card.single_pieces
    mask = largest_pieces(mask, [one.id for one in segmenter.labels if one.name in single])
    voxels, percent = np.zeros(256, np.int64), np.zeros(256)
    for plane, sure in zip(mask, confidence, strict=True):
        voxels += np.bincount(plane.ravel(), minlength=256)
        percent += np.bincount(plane.ravel(), weights=sure.ravel(), minlength=256)
    write_mask(job.mask, mask, volume.geometry, segmenter.labels)
    voxel_ml = abs(float(np.linalg.det(volume.geometry.affine[:3, :3]))) / 1000
    return tuple(
        LabelFigures(
            label.name,
            round(voxels[label.id] * voxel_ml, 3),
            round(percent[label.id] / voxels[label.id], 1) if voxels[label.id] else None,
        )
        for label in segmenter.labels
    )


def _adapted(job: Job, segmenter: Segmenter, volume: Volume) -> Generator[float, None, Segmenter]:
    def share(progress: Progress) -> float:
        _go_on(job)
        if progress.remaining is None:
            return 0.0
        return _ADAPTING * progress.seconds / (progress.seconds + progress.remaining)

    return mapped(adapt(segmenter, volume, job.device), share)


def _go_on(job: Job) -> None:
    if not job.running.exists():
        raise _StoppedError


def _loaded(job: Job) -> Segmenter:
    """Load the model once a process."""
    if job.model_sha256 not in _model:
        if content_sha256(job.model) != job.model_sha256:
            raise CohortError(f"{job.model}: has changed since the run began; start again")
        _model.clear()
        _model[job.model_sha256] = Segmenter.load(job.model)
    return _model[job.model_sha256]


def _sentence(error: Exception, job: Job) -> str:
    """One line without the folders of the files, which may name a patient."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        text = "not enough memory; use fewer workers"
    elif not isinstance(error, ValueError | OSError):
        text = f"{type(error).__name__}: {text or 'no message'}"
    text = text.removeprefix(f"{job.volume}: ")
    for path in (job.volume, job.mask):
        if path.parent != Path():
            text = text.replace(f"{path.parent}{os.sep}", "")
    return text


def predict_whole_case(job: Job) -> CaseResult:
    """Predict a case without looking at its progress."""
    steps = predict_case(job)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: CaseResult = end.value
            gc.collect()  # some readers leave cycles that hold a volume
            return result


def forget_model() -> None:
    """Free the memory of the model that this process has loaded."""
    _model.clear()
