"""What a long task tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from napari_diffseg.engine.predict import SlicePrediction
from napari_diffseg.network.segmenter import Segmenter


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
