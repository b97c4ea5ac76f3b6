"""Work in threads: a generator of the engine, whose items come in batches, or one plain call.

The engine yields as often as it likes; the window is updated ten times a second. Stopping closes
the generator in its own thread at the next yield, so a stopped training never commits.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any

from qtpy.QtCore import QObject, QThreadPool, Signal
from superqt.utils import FunctionWorker

BATCH_SECONDS = 0.1
"""At most one batch comes in this time."""


def batches(
    items: Iterable[Any], period: float = BATCH_SECONDS, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[Any, ...]]:
    """Group items so that at most one group comes in every ``period`` seconds; none is dropped.

    ``stop`` is asked after each item; when true the rest is not asked for.
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


def _nothing(*_: Any) -> None:
    """Do nothing, in the place of a function that is over."""


class _Work(QObject):
    """A function in a thread. One of the two signals comes at its end, on the GUI thread.

    Once it has ended it keeps nothing that it worked on, such as a volume: Qt may keep the worker,
    and whoever asked for it may, too.
    """

    finished = Signal(object)  # what the function returned
    failed = Signal(object)  # the error

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self._function = function
        self._ended = threading.Event()
        self._worker = FunctionWorker(self._run)
        self._worker.returned.connect(self.finished)
        self._worker.errored.connect(self.failed)

    def start(self) -> None:
        """Begin."""
        self._worker.start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end and say whether it came; nothing is signalled any more."""
        self.blockSignals(True)
        return self._ended.wait(seconds)

    def _run(self) -> Any:
        try:
            return self._function()
        finally:
            self._function = _nothing
            self._ended.set()


class Task(_Work):
    """A generator at work in a thread, which also makes it; ``finished`` says if it was stopped."""

    batch = Signal(object)  # the items since the last one, on the GUI thread
    _batch = Signal(object)

    def __init__(self, make: Callable[[], Generator[Any, None, Any]]) -> None:
        super().__init__(lambda: self._iterate(make))
        self._stop = threading.Event()
        self._batch.connect(self.batch)

    def stop(self) -> None:
        """Ask the generator to end at its next yield."""
        self._stop.set()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    def _iterate(self, make: Callable[[], Generator[Any, None, Any]]) -> bool:
        # Qt's pool has as many threads as there are cores. A training must not take one of them:
        # exports, and other volumes that are opened meanwhile, would wait for its end.
        pool = QThreadPool.globalInstance()
        pool.releaseThread()
        try:
            with closing(make()) as items:
                for batch in batches(items, stop=self._stop.is_set):
                    self._batch.emit(batch)
        finally:
            pool.reserveThread()
        return self.stopping


class BackgroundCall(_Work):
    """One plain call in a thread: reading, hashing, exporting.

    It begins at once; ``done`` gets the result, or ``failed`` the error, on the GUI thread.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        super().__init__(function)
        self.over = False  # whether its end was heard
        self._done, self._failed = done, failed
        self.finished.connect(self._on_finished)
        self.failed.connect(self._on_failed)
        self.start()

    def _on_finished(self, result: Any) -> None:
        self._end(self._done, result)

    def _on_failed(self, error: Exception) -> None:
        self._end(self._failed, error)

    def wait(self, seconds: float) -> bool:
        """Wait for the end and say whether it came; neither ``done`` nor ``failed`` is called."""
        self._done = self._failed = _nothing
        return super().wait(seconds)

    def _end(self, then: Callable[[Any], None], value: Any) -> None:
        self.over = True
        self._done = self._failed = _nothing
        then(value)


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
