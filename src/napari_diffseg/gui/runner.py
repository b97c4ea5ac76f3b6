"""What runs in the background on one session: training, prediction, the quality check.

Owns the task and shows its items in the layers on the GUI thread. A preview of a running training
is a picture: it goes to the layers and never to the session.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_diffseg.engine.progress import Progress, SlicePrediction
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.gui.layers import VolumeLayers
from napari_diffseg.gui.worker import Task
from napari_diffseg.session.adapting import adapt_model
from napari_diffseg.session.corrections import sentence
from napari_diffseg.session.late_planes import register_late_planes
from napari_diffseg.session.review import worth_of_a_slice, worth_text
from napari_diffseg.session.session import Session

Running = Literal["", "training", "adapting", "predicting", "checking"]

STOP_SECONDS = 10.0
"""How long a closing window waits for the network's current step, which takes far less."""


class Runner(QObject):
    """Runs one thing at a time on a session, and shows its predictions in the layers."""

    changed = Signal()
    ended = Signal(str)  # what to say of it
    failed = Signal(object)  # the error

    def __init__(self, session: Session, layers: VolumeLayers) -> None:
        super().__init__()
        self.session, self.layers = session, layers
        self.running: Running = ""
        self.done = 0
        self.latest: Progress | None = None
        self.losses: list[float] = []
        self.notes: list[str] = []  # of the training, shown at its end
        self.previous: NDArray[np.uint8] | None = None
        self.finishing = False
        self._task: Task | None = None
        self._first = 0.0  # when the first slice was predicted

    @property
    def remaining(self) -> float | None:
        """Time in s that the slices not predicted yet will take, once that can be said."""
        if self.done < 2:
            return None
        left = len(self.session.volume.hu) - self.done
        return (time.monotonic() - self._first) / (self.done - 1) * left

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for and has not come through yet."""
        return self._task is not None and self._task.stopping

    def train(self, settings: TrainSettings, from_model: bool) -> None:
        """Train on all painted slices, then predict every slice."""

        def steps() -> Generator[Any, None, None]:
            yield from self.session.trainer.train(settings, from_model or "loaded")
            yield from self._predicted()

        self.losses = []
        self._run("training", steps)

    def adapt(self) -> None:
        """Adapt the model of other patients to this CT, then predict every slice."""

        def steps() -> Generator[Any, None, None]:
            yield from adapt_model(self.session)
            yield from self._predicted()

        self.losses = []
        self._run("adapting", steps)

    def predict(self) -> None:
        """Predict every slice with the model that is there."""
        self._run("predicting", self._predicted)
        self._begin_prediction()

    def _predicted(self) -> Generator[Progress | SlicePrediction, None, None]:
        yield from register_late_planes(self.session)
        self._keep_previous()
        yield from self.session.trainer.predict()

    def check(self, settings: TrainSettings) -> None:
        """Measure the quality by leaving each painted slice out once."""
        self._run("checking", lambda: self.session.trainer.validate(settings))

    def finish(self) -> None:
        """End the training with what it has learnt, and predict every slice."""
        if self.running == "training":
            self.session.trainer.finish()
            self.finishing = True
            self.changed.emit()

    def stop(self) -> None:
        """Stop what runs at its next step; the previous model stays."""
        if self._task is not None:
            self._task.stop()
            self.changed.emit()

    def close(self) -> None:
        """Stop what runs and wait for it."""
        if self._task is not None:
            self._task.stop()
            self._task.wait(STOP_SECONDS)
            self._task = None

    def _run(self, running: Running, make: Callable[[], Generator[Any, None, Any]]) -> None:
        self.running, self.done, self.latest, self.notes = running, 0, None, []
        self.finishing = False
        self._task = Task(make)
        self._task.batch.connect(self._on_batch)
        self._task.finished.connect(self._on_finished)
        self._task.failed.connect(self._on_failed)
        self._task.start()
        self.changed.emit()

    def _on_batch(self, items: tuple[Any, ...]) -> None:
        preview, shown = None, False
        for item in items:
            if isinstance(item, SlicePrediction):
                if self.done == 0:
                    self.running, self.latest, self._first = "predicting", None, time.monotonic()
                    self._begin_prediction()
                self._show(item)
                shown = shown or item.z == self.session.trainer.current
                self.done += 1
            else:
                self.latest = item
                if item.note and self.running == "training":
                    self.notes.append(item.note)
                if item.loss is not None:
                    self.losses.append(item.loss)
                preview = item.preview or preview
                if item.segmenter is not None and self.running == "training":
                    self.running = "predicting"  # a stop from here on undoes no training
        if preview is not None and self.running == "training":
            self._show(preview, preview=True)
            shown = preview.z == self.session.trainer.current
        if shown:
            self.layers.redraw_prediction()
        self.changed.emit()

    def _show(self, found: SlicePrediction, preview: bool = False) -> None:
        if found.z not in self.session.prediction.edited:
            self.layers.show_slice(found.z, found.mask, found.confidence, preview)

    def _begin_prediction(self) -> None:
        self._end_previews()
        self.layers.show_difference(None)
        self.layers.let_correct(False)

    def _end_previews(self) -> None:
        """Show again what the previews covered."""
        prediction = self.session.prediction
        for z in sorted(self.layers.previewed):
            self.layers.show_slice(z, prediction.mask[z], prediction.confidence[z])

    def _keep_previous(self) -> None:
        """Keep the prediction for comparison with the one that comes."""
        if self.session.prediction.round_of.any():
            self.previous = self.session.prediction.mask.copy()

    def _on_finished(self, stopped: bool) -> None:
        running, made = self._end(), self.session.trainer.round
        if running == "adapting" and made is not None and made.adapted:
            running = "predicting"  # planes are registered before the first slice
        kept = ", the model before it is kept" if self.session.trainer.segmenter is not None else ""
        sentence = {
            ("training", True): f"Training stopped{kept}.",
            ("adapting", True): "The model was not adapted: it is as before.",
            ("predicting", True): "Prediction stopped.",
            ("checking", True): "Quality check stopped.",
            ("checking", False): f"Quality measured on slices left out. {self._worth()}".strip(),
        }.get((running, stopped), " ".join([*self.notes, *self._again()]))
        self.ended.emit(sentence)

    def _worth(self) -> str:
        quality, painted = self.session.trainer.quality, len(self.session.paint.painted())
        return worth_text(worth_of_a_slice(list(quality.values()), painted)) if quality else ""

    def _again(self) -> list[str]:
        names = {label.id: label.name for label in self.session.paint.labels}
        found = sentence(self.session.trainer.repeated, names)
        return [found] if found else []

    def _on_failed(self, error: Exception) -> None:
        # Pieces astray are taken off before a prediction is saved, which may fail.
        prediction = self.session.prediction
        stray, self.session.trainer.stray = self.session.trainer.stray, ()
        for z in stray:
            self.layers.show_slice(z, prediction.mask[z], prediction.confidence[z])
        self._end()
        self.failed.emit(error)

    def _end(self) -> Running:
        running = self.running
        self._end_previews()
        self._task, self.running = None, ""
        self.layers.let_correct(True)
        self.layers.redraw_prediction()
        return running
