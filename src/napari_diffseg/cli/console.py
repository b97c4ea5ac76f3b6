"""What a long task shows on standard error: one line that is redrawn, or a few in a log."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

_LIVE_SECONDS, _LOG_SECONDS = 0.2, 10.0  # between two updates


class ProgressLine:
    """Shows progress with the remaining time.

    On a terminal one line is redrawn; elsewhere, as in a log, a line is written when a stage
    begins and every ten seconds. Use it as a context manager, so that the line is ended.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._stage = ""
        self._last = 0.0
        self._width = 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_line()

    def update(
        self,
        stage: str,
        step: int,
        steps: int | None = None,
        remaining: float | None = None,
        loss: float | None = None,
    ) -> None:
        """Show a task's stage, its steps done and in all, seconds left, and training loss."""
        now = time.monotonic()
        pause = _LIVE_SECONDS if self._live else _LOG_SECONDS
        last_step = steps is not None and step >= steps
        if stage == self._stage and now - self._last < pause and not (self._live and last_step):
            return
        self._stage, self._last = stage, now
        count = f" {step}" + (f"/{steps}" if steps else "") if step or steps else ""
        parts = [f"{stage}{count}"]
        if loss is not None:
            parts.append(f"loss {loss:.3f}")
        if remaining is not None and remaining > 0:
            parts.append(f"{duration(remaining)} left")
        self._write(", ".join(parts))

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._end_line()
        print(text, file=self._stream, flush=True)

    def _write(self, text: str) -> None:
        if self._live:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
            self._stream.flush()
        else:
            print(text, file=self._stream, flush=True)

    def _end_line(self) -> None:
        if self._live and self._width:
            self._stream.write("\n")
            self._stream.flush()
        self._width = 0


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl+C wait until the files that belong together are written.

    Raises
    ------
    KeyboardInterrupt
        At the end, when it was pressed meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def duration(seconds: float) -> str:
    """Write seconds as ``42 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out text in columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def figure(value: float | None, digits: int = 3) -> str:
    """Write a figure; a dash where it is undefined."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
