"""Long run: rounds of paint, train, predict and undo in one process."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from fault_sessions import nothing_hidden
from fault_tools import Figures, Kind
from session_tools import LIVER, QUICK, block, tiny_backbone, tiny_volume

from napari_diffseg.session import Session

_WARM = 0.2  # share of the rounds that is not measured
_MAX_SLOPE = 16.0  # KiB a round


def run(count: int, seed: int, folder: Path) -> Figures:
    """Work for ``count`` rounds; a round is a try, lost where threads, files or memory grow."""
    process = psutil.Process()
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=folder)
    warm, memory = max(2, int(_WARM * count)), []
    threads = files = 0
    for number in range(count):
        z = number % 6
        mask = block()
        mask[(number % 7) * 4 :][:3] = 1
        session.paint.set_slice(z, mask)
        list(session.trainer.train(replace(QUICK, iterations=1, seed=seed + number)))
        list(session.trainer.predict())
        session.prediction.edit((z + 1) % 6, mask)
        session.paint.clear_slice(z)  # undo
        if number >= warm:
            gc.collect()
            memory.append(process.memory_info().rss / 1024)
        if number + 1 == warm:
            session.save()  # no sync is on its way then
            threads, files = threading.active_count(), process.num_fds()
    session.save()
    timers = [t for t in threading.enumerate() if isinstance(t, threading.Timer)]
    for timer in timers:
        timer.join()
    more_threads, more_files = threading.active_count() - threads, process.num_fds() - files
    slope = float(np.polyfit(np.arange(len(memory)), memory, 1)[0])
    session.close()
    nothing_hidden(folder)
    good = more_threads <= 0 and more_files <= 0 and slope < _MAX_SLOPE
    note = (
        f"memory grows by {slope:.1f} KiB a round after {warm} rounds; {max(0, more_threads)} "
        f"threads and {max(0, more_files)} file handles more at the end"
    )
    return Figures(count, count if good else 0, 0 if good else count, note)


KINDS = (
    Kind(
        "long-run",
        "paint, train, predict, correct and undo in one process: memory, threads and file handles "
        "do not grow",
        run,
        500,
        500,
    ),
)
