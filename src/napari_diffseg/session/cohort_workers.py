"""Where the cases of a cohort are predicted: this process, processes of this machine, or Dask."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any, Protocol

import torch

from napari_diffseg.session.cohort_case import (
    CohortError,
    Job,
    forget_model,
    predict_case,
    predict_whole_case,
)
from napari_diffseg.session.cohort_table import CaseResult

_ATTEMPTS = 2
"""How often a case is begun whose process is ended from outside."""
_DASK_SECONDS = 10
"""How long a scheduler may take to answer."""
_one_at_a_time = threading.Lock()  # a Dask worker may have many threads, and one memory


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
        forget_model()
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
        while True:
            with _no_interrupt():
                executor = self._idle.pop() if self._idle else self._new()
                try:
                    future = executor.submit(predict_whole_case, job)
                    self._running[future] = (executor, job, attempt)
                    return
                except BrokenProcessPool:  # its process was ended while it was idle
                    executor.shutdown()

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        return ProcessPoolExecutor(1, context, _begin_worker, (self._threads,))

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
        return predict_whole_case(job)


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
    """Start processes that never see Ctrl+C; one that comes meanwhile is heard at the end.

    Heard in the middle, it would leave a process that nobody knows of and waits for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread sets signals
        return
    if sys.platform == "win32":
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        return
    # Blocking keeps it from the new processes, which inherit that. It does not keep it from this
    # one, for the system may give it to any other thread.
    heard: list[tuple[int, FrameType | None]] = []
    usual = signal.signal(signal.SIGINT, lambda *one: heard.append(one))
    resource_tracker.ensure_running()  # it would end the blocking when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, usual)
        if heard and callable(usual):
            usual(*heard[0])
