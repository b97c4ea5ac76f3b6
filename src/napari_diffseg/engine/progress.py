"""What a long task reports, and the time it may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.registration import Registration
from napari_diffseg.network.segmenter import Segmenter

S = TypeVar("S")
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """One predicted slice.

    Attributes
    ----------
    z
        Slice index, inferior to superior.
    mask
        Label ids ``(y, x)``, uint8.
    confidence
        Probability of the chosen label in percent ``(y, x)``, uint8.
    """

    z: int
    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Progress:
    """One step of a long task.

    Attributes
    ----------
    stage
        What is being done, in a word or two.
    step, steps
        Steps done in this stage, and of how many (``None`` where time decides).
    seconds, remaining
        Elapsed and remaining time of the whole task in s.
    loss
        Training loss, where there is one.
    note
        Something the user should know, else empty.
    preview
        A fresh prediction of the current slice, now and then.
    segmenter
        The trained model, on the last one only.
    registration
        The registration of the volume's slices, on the last one only and where there is one.
    """

    stage: str
    step: int
    steps: int | None
    seconds: float
    remaining: float | None
    loss: float | None = None
    note: str = ""
    preview: SlicePrediction | None = None
    segmenter: Segmenter | None = None
    registration: Registration | None = None


class Budget:
    """The time of a task: a number of seconds from now, or until it is finished by hand.

    Parameters
    ----------
    seconds
        ``None`` sets no limit.
    finished
        Asked at every step; once true, no time is left.
    """

    def __init__(self, seconds: float | None, finished: Callable[[], bool] | None = None) -> None:
        self._seconds = math.inf if seconds is None else seconds
        self._finished = finished
        self._began = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    @property
    def finishing(self) -> bool:
        """Whether the task is to finish now."""
        return self._finished is not None and self._finished()

    @property
    def left(self) -> float:
        """Seconds left; infinite without a limit, none once the task is to finish."""
        return 0.0 if self.finishing else self._seconds - self.elapsed


def mapped(steps: Generator[S, None, T], change: Callable[[S], U]) -> Generator[U, None, T]:
    """Pass on what `change` makes of each step of a task, and return the task's result."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield change(step)


def result_of(steps: Generator[Any, None, T]) -> T:
    """Drive a task to its end, and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
