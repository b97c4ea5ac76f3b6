"""The network's half of a session: train, finish, predict, validate.

:class:`Learning` stands on :class:`Annotation`, which knows what is
painted and keeps it; :class:`Session` adds rounds, models and export.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.predict import SlicePrediction, predict
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, load_backbone
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.annotation import Annotation
from napari_diffseg.session.housekeeping import make_room
from napari_diffseg.session.journal import Record, SessionError, saving
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.rounds import LossCurve, Round, Stored
from napari_diffseg.session.validation import closable, leave_one_out, painted_ids


class Learning(Annotation):
    """An annotation, and the engine that learns from it.

    Parameters
    ----------
    volume, labels, folder
        As for :class:`Annotation`.
    backbone
        What training begins at: a name, a file, or a loaded one; ``None`` is the shipped one.

    Attributes
    ----------
    current
        The slice that the user looks at; predicted first.
    """

    def __init__(
        self,
        volume: Volume,
        labels: Iterable[Label] = (),
        backbone: str | Path | Backbone | None = None,
        folder: Path | Literal[False] | None = None,
    ) -> None:
        super().__init__(volume, labels, folder)
        self.current = len(volume.hu) // 2
        self._base = backbone
        self._seconds: dict[str, float] = {}
        self._judged: tuple[int, TrainSettings] | None = None  # what the quality belongs to
        self._finish = threading.Event()

    @property
    def backbone(self) -> Backbone:
        """What training begins at; loaded when first needed."""
        if not isinstance(self._base, Backbone):
            self._base = load_backbone(self._base)
        return self._base

    def train(self, settings: TrainSettings, from_model: bool = False) -> Iterator[Progress]:
        """Train on the slices painted now; the round is committed with the last step.

        Closing the iterator at any step, or an error in it, leaves the model as it was.
        :meth:`finish` ends it early with what it has learnt; with neither seconds nor iterations
        in the settings, it goes on until then.

        Parameters
        ----------
        settings
            How to train.
        from_model
            Go on from the model in use; otherwise begin at the backbone.

        Raises
        ------
        SessionError
            At once, if there is nothing to learn from.
        """
        self._finish.clear()
        with self._lock:
            painted, revision = self._truth.painted(), self._revision
            labels, model = self.labels, self.segmenter
        if from_model and model is None:
            raise SessionError("there is no model to continue from; train from the base first")
        if not painted:
            raise SessionError("Paint a structure on at least one slice, then Train.")
        on = set().union(*(painted_ids(slice_) for slice_ in painted))
        if not on:
            raise SessionError("Only background is painted. Paint a structure, then Train.")
        if not any(s.full or (s.mask == BACKGROUND).any() for s in painted):
            raise SessionError(
                "No background is painted. Scribble some, or mark a slice as painted in full."
            )
        missing = ", ".join(label.name for label in labels if label.id not in on)
        note = f"No painted pixel yet: {missing}." if missing else ""
        wanted = [label for label in labels if label.id in on]
        start = model if from_model else None
        if start is not None:
            self._rename(start)
            known = {label.id for label in start.labels}
            wanted = [*start.labels, *(label for label in wanted if label.id not in known)]
        return self._train(settings, start, painted, wanted, note, revision)

    def finish(self) -> None:
        """End the running training within about a second, and keep what it has learnt.

        The training's iterator raises :class:`~napari_diffseg.engine.finetune.TrainError` if it has
        learnt nothing yet; the model stays as it was then.
        """
        self._finish.set()

    def _train(
        self,
        settings: TrainSettings,
        start: Segmenter | None,
        painted: tuple[PaintedSlice, ...],
        labels: list[Label],
        note: str,
        revision: int,
    ) -> Iterator[Progress]:
        began = last = time.perf_counter()
        parent = self.round.number if start is not None and self.round is not None else None
        yield Progress("loading", 0, None, 0.0, None, note=note)
        curve, seconds, iterations = LossCurve(), dict[str, float](), 0
        base = start or self.backbone
        engine = finetune(
            self.volume,
            painted,
            labels,
            base,
            settings,
            lambda: self.current,
            self._rounds.registration,
            self._finish.is_set,
        )
        with closable(engine) as steps:
            for progress in steps:
                now = time.perf_counter()
                seconds[progress.stage] = seconds.get(progress.stage, 0.0) + now - last
                last = now
                if progress.loss is not None:
                    iterations += 1
                    curve.add(iterations, progress.loss)
                if progress.segmenter is not None:
                    seconds["total"] = now - began
                    made = Round(
                        number=self._rounds.next_number,
                        settings=settings,
                        parent=parent,
                        slices=tuple(slice_.z for slice_ in painted),
                        iterations=iterations,
                        seconds={key: round(value, 3) for key, value in seconds.items()},
                        losses=tuple(curve.points),
                        quality=self.quality if self._judged == (revision, settings) else {},
                    )
                    self._commit(made, progress.segmenter, progress.registration)
                yield progress

    def _commit(
        self, made: Round, segmenter: Segmenter, registration: Registration | None = None
    ) -> None:
        with self._lock:
            self._open_journal()
        with saving():  # outside the lock: a large model must not hold up the painter
            self._rounds.commit(made, segmenter, registration)
        if self._root is not None and self.folder is not None:
            make_room(self._root, self.folder)
        with self._lock:
            self._use(made, segmenter)

    def _use(self, made: Round, segmenter: Segmenter) -> None:
        self.segmenter, self.round, self.quality = segmenter, made, dict(made.quality)
        self._log(Record({"op": "round", "number": made.number}))

    def predict(self, start: int | None = None) -> Iterator[SlicePrediction]:
        """Predict all slices with the model in use, the current one first, then outwards.

        Slices whose prediction the user has corrected and not yet accepted are left alone.
        Stopped early, the slices not reached keep what was predicted before.

        Raises
        ------
        SessionError
            At once, if there is no model.
        """
        if self.segmenter is None or self.round is None:
            raise SessionError("there is no model yet; train, or load one")
        first = self.current if start is None else self._truth.check(start)
        return self._predict(self.segmenter, self.round, self.painted(), first)

    def _predict(
        self, segmenter: Segmenter, made: Round, painted: tuple[PaintedSlice, ...], start: int
    ) -> Iterator[SlicePrediction]:
        began = time.perf_counter()
        device = made.settings.device if made.settings is not None else "auto"
        done: list[int] = []
        try:
            registration = self._rounds.registration
            with closable(
                predict(segmenter, self.volume, painted, start, device, registration)
            ) as slices:
                for found in slices:
                    with self._lock:
                        if found.z in self.edited:
                            continue
                        self.prediction[found.z] = self.known_ids(found.mask)
                        self.confidence[found.z] = found.confidence
                        self.predicted[found.z] = made.number
                    done.append(found.z)
                    yield replace(found, mask=self.prediction[found.z].copy())
        finally:
            self._seconds["predicting"] = round(time.perf_counter() - began, 3)
            if done:
                self._keep_prediction(made.number, np.array(sorted(done), np.int64))

    def _keep_prediction(self, number: int, slices: NDArray[np.int64]) -> None:
        # Without the lock, for compressing takes a while; a slice that is edited meanwhile has a
        # record of its own.
        whole = len(slices) == len(self.prediction)
        masks = self.prediction if whole else self.prediction[slices]
        percents = self.confidence if whole else self.confidence[slices]
        with saving():
            self._rounds.store_prediction(number, Stored(slices, masks, percents))
        with self._lock:
            self._log(Record({"op": "predicted", "round": number, "slices": slices.tolist()}))

    def validate(self, settings: TrainSettings) -> Iterator[Progress]:
        """Measure quality: leave each slice painted in full out in turn; sets ``quality``.

        The seconds in ``settings`` are shared by the slices that are left out.

        Raises
        ------
        SessionError
            If fewer than two slices are painted in full, or no structure is on two slices.
        """
        with self._lock:
            painted, revision = self._truth.painted(), self._revision
            judged = [s.z for s in painted if self.states[s.z] == SliceState.PAINTED]
            made, labels = self.round, self.labels
        began = time.perf_counter()
        quality = yield from leave_one_out(
            self.volume, painted, judged, labels, self.backbone, settings
        )
        self._seconds["validating"] = round(time.perf_counter() - began, 3)
        with self._lock:
            self.quality, self._judged = quality, (revision, settings)
            if made is not None and made == self.round:
                with saving():
                    self._rounds.rate(made.number, quality)
                self.round = self._rounds[made.number]

    def _rename(self, segmenter: Segmenter) -> None:
        # Structures may have been renamed since the model was trained.
        now = {label.id: label for label in self.labels}
        segmenter.labels = tuple(now.get(label.id, label) for label in segmenter.labels)
