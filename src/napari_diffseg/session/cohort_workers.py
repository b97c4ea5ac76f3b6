"""Predict one case after the other: in this process, in processes of this machine, or on Dask."""

from __future__ import annotations

import gc
import importlib.util
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from napari_diffseg.engine.predict import predict
from napari_diffseg.io.files import content_sha256
from napari_diffseg.io.volume import Volume, read_volume, write_mask
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.cohort_table import CaseResult, LabelFigures

_ATTEMPTS = 2
"""How often a case is begun whose process is ended from outside."""
_DASK_SECONDS = 10
"""How long a scheduler may take to answer."""


class CohortError(ValueError):
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
    running: Path
    result: CaseResult
    known: CaseResult | None = None


class _StoppedError(Exception):
    """The run was stopped while this case was predicted."""


_one_at_a_time = threading.Lock()  # a Dask worker may have many threads, and one memory
_model: dict[str, Segmenter] = {}


def predict_case(job: Job) -> Generator[float, None, CaseResult]:
    """Predict one case and write its mask; an error becomes a row of the table.

    Yields
    ------
    The share of slices that are done.
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
    )


def _predict(
    job: Job, segmenter: Segmenter, volume: Volume
) -> Generator[float, None, tuple[LabelFigures, ...]]:
    mask = np.zeros(volume.hu.shape, np.uint8)
    voxels, percent = np.zeros(256, np.int64), np.zeros(256)
    for done, found in enumerate(predict(segmenter, volume, device=job.device), start=1):
        _go_on(job)
        mask[found.z] = found.mask
        values = found.mask.ravel()
        voxels += np.bincount(values, minlength=256)
        percent += np.bincount(values, weights=found.confidence.ravel(), minlength=256)
        yield done / len(mask)
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


def _whole(job: Job) -> CaseResult:
    """Predict a case without looking at its progress."""
    steps = predict_case(job)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: CaseResult = end.value
            gc.collect()  # some readers leave cycles that hold a volume
            return result


class Pool(Protocol):
    """Where cases are predicted."""

    @property
    def free(self) -> int:
        """How many more cases can be begun now."""

    @property
    def share(self) -> float:
        """Cases that are done so far of those which are running, as far as is known."""

    def submit(self, job: Job) -> None:
        """Begin a case."""

    def wait(self) -> list[CaseResult]:
        """Work, or wait half a second; returns what was done by then."""

    def stop(self) -> list[CaseResult]:
        """End, once the file ``running`` is gone; returns what was still done."""


class ThisProcess:
    """Predicts in this process, a slice at each call of :meth:`wait`."""

    def __init__(self) -> None:
        self._steps: Generator[float, None, CaseResult] | None = None
        self.share = 0.0

    @property
    def free(self) -> int:
        """One, when nothing is running."""
        return int(self._steps is None)

    def submit(self, job: Job) -> None:
        self._steps, self.share = predict_case(job), 0.0

    def wait(self) -> list[CaseResult]:
        assert self._steps is not None
        try:
            self.share = next(self._steps)
        except StopIteration as end:
            self._steps, self.share = None, 0.0
            return [end.value]
        return []

    def stop(self) -> list[CaseResult]:
        if self._steps is not None:
            self._steps.close()
        _model.clear()
        return []


class Processes:
    """Predicts in processes of this machine, each with its share of the threads.

    Each is a pool of one, so that a process which is ended from outside takes one case with it.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads = max(1, torch.get_num_threads() // workers)
        self._idle: list[ProcessPoolExecutor] = []
        self._running: dict[Future[CaseResult], tuple[ProcessPoolExecutor, Job, int]] = {}

    @property
    def free(self) -> int:
        """Processes that have nothing to do."""
        return self._workers - len(self._running)

    @property
    def share(self) -> float:
        """On average, a running case is half done."""
        return len(self._running) / 2

    def submit(self, job: Job, attempt: int = 1) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with _no_interrupt():
            while self._idle:
                executor = self._idle.pop()
                try:
                    self._running[executor.submit(_whole, job)] = (executor, job, attempt)
                    return
                except BrokenProcessPool:  # its process was ended while it was idle
                    executor.shutdown()
            executor = ProcessPoolExecutor(1, context, _begin_worker, (self._threads,))
            self._running[executor.submit(_whole, job)] = (executor, job, attempt)

    def wait(self) -> list[CaseResult]:
        done, _ = wait(self._running, 0.5, FIRST_COMPLETED)
        results = []
        for future in done:
            executor, job, attempt = self._running.pop(future)
            try:
                results.append(future.result())
                self._idle.append(executor)
            except BrokenProcessPool:
                executor.shutdown()
                if attempt < _ATTEMPTS:
                    self.submit(job, attempt + 1)
                else:
                    results.append(_killed(job))
        return results

    def stop(self) -> list[CaseResult]:
        results = []
        for future, (executor, _, _) in self._running.items():
            with suppress(BrokenProcessPool):
                results.append(future.result())
            self._idle.append(executor)
        for executor in self._idle:
            executor.shutdown()
        return results


class Dask:
    """Predicts on the workers of a Dask cluster, which see the same files.

    Parameters
    ----------
    address
        Of its scheduler.

    Raises
    ------
    CohortError
        If Dask is not installed, or no scheduler answers.
    """

    free = 1 << 30  # the scheduler queues them

    def __init__(self, address: str) -> None:
        if importlib.util.find_spec("distributed") is None:
            raise CohortError(
                '--dask needs the extra "training": pip install "napari-diffseg[training]"'
            )
        import distributed

        self._dask: Any = distributed
        # Lost workers and connections are in the table.
        for name in ("distributed", "distributed.client", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            self._client = distributed.Client(
                address, timeout=_DASK_SECONDS, set_as_default=False, name="napari-diffseg"
            )
        except (OSError, ValueError, TimeoutError) as error:
            raise CohortError(
                f"{address}: no Dask scheduler answers there; start one with: dask scheduler"
            ) from error
        self._running: dict[Any, Job] = {}

    @property
    def share(self) -> float:
        """On average, a case on a worker is half done; the others are queued."""
        info = self._client.scheduler_info()
        # Recent versions list five workers and give their number, earlier ones list all.
        workers = info.get("n_workers", len(info.get("workers", ())))
        return float(min(workers, len(self._running))) / 2

    def submit(self, job: Job) -> None:
        future = self._client.submit(_on_dask, job, pure=False, retries=_ATTEMPTS)
        self._running[future] = job

    def wait(self) -> list[CaseResult]:
        # distributed.wait raises when one future is cancelled, and says nothing of the others.
        until = time.monotonic() + 0.5
        while True:
            done = [future for future in self._running if future.done()]
            if done or time.monotonic() > until:
                return [self._result(future) for future in done]
            time.sleep(0.02)

    def _result(self, future: Any) -> CaseResult:
        job = self._running.pop(future)
        if future.status in ("cancelled", "lost"):
            text = "the connection to the Dask scheduler was lost; start the same command again"
            return replace(job.result, status="failed", error=text)
        try:
            result: CaseResult = future.result()
            return result
        except self._dask.KilledWorker:
            return _killed(job)
        except Exception as error:  # whatever a cluster raises; the other cases go on
            text = f"the Dask cluster gave it up ({type(error).__name__})"
            return replace(job.result, status="failed", error=text)
        finally:
            future.release()

    def stop(self) -> list[CaseResult]:
        # Queued cases see that the run has ended and return at once, running ones after a slice.
        deadline = time.monotonic() + _DASK_SECONDS
        results = []
        while self._running and time.monotonic() < deadline:
            results += self.wait()
        with suppress(Exception):  # of a connection that is lost already
            self._client.cancel([*self._running], force=True)
            self._client.close()
        return results


def _on_dask(job: Job) -> CaseResult:
    from distributed import get_worker

    with _one_at_a_time:
        torch.set_num_threads(max(1, get_worker().state.nthreads))
        return _whole(job)


def _begin_worker(threads: int) -> None:
    """Leave Ctrl+C to the parent, and end when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    logging.getLogger().setLevel(logging.ERROR)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def _killed(job: Job) -> CaseResult:
    text = "its process was ended from outside, perhaps for lack of memory; use fewer workers"
    return replace(job.result, status="failed", error=text)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Start processes that never see Ctrl+C, not even before they can ignore it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread sets signals
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
