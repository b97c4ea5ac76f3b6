"""Runs a generator of the engine in a thread, and hands its items to the window in batches.

The engine yields as often as it likes; the window is told ten times a second. Stopping closes the
generator in its own thread at the next yield, so a stopped training never commits.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

from qtpy.QtCore import QObject, QThreadPool, Signal
from superqt.utils import FunctionWorker, GeneratorWorker

PERIOD = 0.1
"""Seconds between two batches."""


def batches(
    items: Iterable[Any], period: float = PERIOD, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Any, ...]]:
    """Group items so that at most one group comes in every ``period`` seconds.

    Parameters
    ----------
    items
        What is grouped; nothing is dropped.
    period
        In s.
    stop
        Asked after each item; when true the rest is not asked for.

    Yields
    ------
    tuple
        The items since the last group.
    """
    pending: list[Any] = []
    last = -period
    for item in items:
        pending.append(item)
        if stop():
            break
        now = time.monotonic()
        if now - last >= period:
            last = now
            yield tuple(pending)
            pending = []
    if pending:
        yield tuple(pending)


class Task(QObject):
    """One generator at work in its own thread.

    Signals, all delivered on the GUI thread: ``batch(items)``, then exactly one of
    ``finished(stopped)`` and ``failed(error)``.

    Parameters
    ----------
    make
        Makes the generator, called in the thread.
    """

    batch = Signal(object)
    finished = Signal(bool)
    failed = Signal(object)

    def __init__(self, make: Callable[[], Generator[Any, None, Any]]) -> None:
        super().__init__()
        self._make = make
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._worker = GeneratorWorker(self._run)
        self._worker.yielded.connect(self.batch)
        self._worker.errored.connect(self._on_error)
        self._worker.finished.connect(self._on_finished)

    def start(self) -> None:
        """Begin."""
        self._worker.start()

    def stop(self) -> None:
        """Ask the generator to end at its next yield."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    def stop_and_wait(self, seconds: float) -> bool:
        """End it and say whether it did so in time; nothing is signalled any more."""
        self._stop.set()
        self.blockSignals(True)
        return self._ended.wait(seconds)

    def _run(self) -> Iterator[tuple[Any, ...]]:
        # Qt's pool has as many threads as there are cores. A training must not take one of them:
        # exports, and other volumes that are opened meanwhile, would wait for its end.
        pool = QThreadPool.globalInstance()
        pool.releaseThread()
        try:
            with closing(self._make()) as items:
                yield from batches(items, stop=self._stop.is_set)
        finally:
            pool.reserveThread()
            self._ended.set()

    def _on_error(self, error: Exception) -> None:
        self._error = error

    def _on_finished(self) -> None:
        if self._error is not None:
            self.failed.emit(self._error)
        else:
            self.finished.emit(self._stop.is_set())


class Errand(QObject):
    """One plain function in a thread: reading, hashing, exporting.

    Parameters
    ----------
    function
        Called in the thread.
    done
        Called on the GUI thread with the result.
    failed
        Called on the GUI thread with the error.
    """

    _done = Signal(object)
    _failed = Signal(object)

    def __init__(
        self,
        function: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        super().__init__()
        self._ended = threading.Event()
        self._function = function
        self._done.connect(done)
        self._failed.connect(failed)
        self._worker = FunctionWorker(self._run)
        self._worker.returned.connect(self._done)
        self._worker.errored.connect(self._failed)
        self._worker.start()

    @property
    def over(self) -> bool:
        """Whether the function has ended."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the function's end; nothing is signalled any more."""
        self.blockSignals(True)
        return self._ended.wait(seconds)

    def _run(self) -> Any:
        try:
            return self._function()
        finally:
            self._ended.set()


class ThreadCap:
    """Leaves one core to the window while it is open, and gives it back afterwards."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._before = torch.get_num_threads()
        torch.set_num_threads(max(1, min(self._before, (os.cpu_count() or 2) - 1)))

    def release(self) -> None:
        """Set the number of threads back."""
        self._torch.set_num_threads(self._before)
