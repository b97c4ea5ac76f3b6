"""What learns from the paint: training, prediction, validation, and the model in use."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import Progress, SlicePrediction
from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.files import check_outputs
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, load_backbone
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.corrections import Corrections, Repeated
from napari_diffseg.session.housekeeping import make_room
from napari_diffseg.session.journal import Record, SessionError, saving
from napari_diffseg.session.lesson import Lesson, match_names, rename, start_of, stored_prediction
from napari_diffseg.session.log import SessionLog
from napari_diffseg.session.paint import Paint, SliceState, Snapshot
from napari_diffseg.session.prediction import Prediction
from napari_diffseg.session.rounds import LossHistory, Round, Rounds, StoredPrediction
from napari_diffseg.session.stored_slices import store_slices
from napari_diffseg.session.stray import take_off_stray
from napari_diffseg.session.validation import closable, leave_one_out, painted_ids

_NOT_SAVED = (
    "the {what} could not be saved ({reason}); it is in use until the session is closed: free "
    "some space and make it again, or save it elsewhere"
)
_NOT_KEPT = "the painted slices could not be kept for later patients ({reason}); free some space"


class Trainer:
    """The model of one session, and the engine that makes it from the paint.

    Parameters
    ----------
    volume
        The CT.
    backbone
        What training begins at: a name, a file, or a loaded one; ``None`` is the shipped one.
    paint, prediction, rounds, log
        The other parts of the session.

    Attributes
    ----------
    segmenter
        The model in use.
    round
        The round that it came from.
    quality
        Leave-one-out Dice by label id, of the last validation.
    current
        The slice that the user looks at; predicted first.
    seconds
        Wall time in s of the last prediction and validation, which belong to no round.
    stray
        Slices off which the last prediction took pieces astray.
    repeated
        Mistakes that were corrected and that the last prediction shows again nearby.
    """

    def __init__(
        self,
        volume: Volume,
        backbone: str | Path | Backbone | None,
        paint: Paint,
        prediction: Prediction,
        rounds: Rounds,
        log: SessionLog,
    ) -> None:
        self.segmenter: Segmenter | None = None
        self.round: Round | None = None
        self.quality: dict[int, float] = {}
        self.current = len(volume.hu) // 2
        self.seconds: dict[str, float] = {}
        self.stray: tuple[int, ...] = ()
        self.repeated: tuple[Repeated, ...] = ()
        self._corrections = Corrections()
        self._volume, self._base = volume, backbone
        self._paint, self._prediction, self._rounds, self._log = paint, prediction, rounds, log
        self._validated: tuple[int, TrainSettings] | None = None  # what the quality belongs to
        self._finish = threading.Event()

    @property
    def backbone(self) -> Backbone:
        """What training begins at; loaded when first needed."""
        if not isinstance(self._base, Backbone):
            self._base = load_backbone(self._base)
        return self._base

    def train(
        self, settings: TrainSettings, from_model: bool | Literal["loaded"] = False
    ) -> Generator[Progress, None, None]:
        """Train on the slices painted now; the round is committed with the last step.

        Closing the iterator at any step, or an error in it, leaves the model as it was. With
        neither seconds nor iterations in the settings, it goes on until :meth:`finish`.

        Parameters
        ----------
        settings
            How to train.
        from_model
            Go on from the model in use; otherwise begin at the backbone. ``"loaded"`` begins at
            the model that was loaded last, and where there is none at the backbone.

        Raises
        ------
        SessionError
            At once, if there is nothing to learn from.
        """
        self._finish.clear()
        start, base = start_of(from_model, self.segmenter, self.round, self._rounds)
        stored = stored_prediction(self.round, self._rounds)
        with self._log.changing():
            lesson = Lesson.of(self._paint, start, base, self.round, stored)
        if from_model is True:
            settings = lesson.corrections.quick(settings)
        return self._train(settings, lesson)

    def finish(self) -> None:
        """End the running training within about a second, and keep what it has learnt.

        The training raises :class:`~napari_diffseg.engine.annotations.TrainError` if it has learnt
        nothing yet; the model stays as it was then.
        """
        self._finish.set()

    def _train(self, settings: TrainSettings, lesson: Lesson) -> Generator[Progress, None, None]:
        began = last = time.perf_counter()
        taken = lesson.taken
        yield Progress("loading", 0, None, 0.0, None, note=lesson.note)
        losses, seconds, iterations = LossHistory(), dict[str, float](), 0
        engine = finetune(
            self._volume,
            taken.slices,
            lesson.labels,
            lesson.start or self.backbone,
            settings,
            lambda: self.current,
            self._rounds.registration,
            self._finish.is_set,
            planes=taken.planes,
            rehearse=lesson.cases != 1,
        )
        with closable(engine) as steps:
            for progress in steps:
                now = time.perf_counter()
                seconds[progress.stage] = seconds.get(progress.stage, 0.0) + now - last
                last = now
                if progress.loss is not None:
                    iterations += 1
                    losses.add(iterations, progress.loss)
                if progress.segmenter is not None:
                    seconds["total"] = now - began
                    known = self._validated == (taken.revision, settings)
                    made = Round(
                        number=self._rounds.next_number,
                        settings=settings,
                        parent=lesson.base.number if lesson.base is not None else None,
                        slices=tuple(slice_.z for slice_ in taken.slices),
                        planes=tuple(plane.where for plane in taken.planes),
                        corrected=lesson.corrections.all,
                        iterations=iterations,
                        seconds={key: round(value, 3) for key, value in seconds.items()},
                        losses=tuple(losses.points),
                        quality=self.quality if known else {},
                    )
                    progress.segmenter.card = replace(
                        progress.segmenter.card, cases=lesson.cases, slices=lesson.slices
                    )
                    problem = self.take(made, progress.segmenter, progress.registration)
                    self._corrections = lesson.corrections
                    try:
                        self.keep_slices()
                    except SessionError as error:
                        problem = problem or str(error)
                    progress = replace(progress, note=problem or progress.note)
                yield progress

    def take(
        self, made: Round, segmenter: Segmenter, registration: Registration | None = None
    ) -> str:
        """Take a model into use and keep it on disk; returns why that failed, if it did."""
        problem = ""
        try:
            with self._log.changing():
                self._log.open()
            with saving(_NOT_SAVED.replace("{what}", "model")):
                # Outside the lock: a large model must not hold up the painter.
                self._rounds.commit(made, segmenter, registration)
            if self._log.root is not None and self._log.folder is not None:
                make_room(self._log.root, self._log.folder)
        except SessionError as error:
            problem = str(error)
            self._rounds.hold(made, segmenter, registration)
        try:
            with self._log.lock:
                self._use(made, segmenter)
        except SessionError as error:
            problem = problem or str(error)
        return problem

    def keep_slices(self) -> None:
        """Keep slices for later patients; every training and every whole prediction does it, too.

        Raises
        ------
        SessionError
            If they cannot be written.
        """
        painted, made = self._paint.painted(), self.round
        if self._log.folder is not None and any(painted_ids(slice_.mask) for slice_ in painted):
            own = made is not None and made.settings is not None  # else it knows this patient not
            sure = self._prediction.sure_slices(made.number) if made is not None and own else []
            with saving(_NOT_KEPT):
                store_slices(self._log.folder, self._volume, painted, self._paint.labels, sure)

    def _use(self, made: Round, segmenter: Segmenter) -> None:
        self.segmenter, self.round, self.quality = segmenter, made, dict(made.quality)
        self._log.append(self.records()[0])

    def predict(self, start: int | None = None) -> Generator[SlicePrediction, None, None]:
        """Predict all slices with the model in use, the current one first, then outwards.

        Slices whose prediction the user has corrected and not yet accepted are left alone.
        Stopped early, the slices not reached keep what was predicted before. Of structures that the
        model's card calls one piece, the largest piece is kept in the end.

        Raises
        ------
        SessionError
            At once, if there is no model.
        """
        if self.segmenter is None or self.round is None:
            raise SessionError("there is no model yet; train, or load one")
        first = self.current if start is None else self._paint.check(start)
        with self._log.changing():
            return self._predict(self.segmenter, self.round, self._paint.snapshot(), first)

    def _predict(
        self, segmenter: Segmenter, made: Round, taken: Snapshot, start: int
    ) -> Generator[SlicePrediction, None, None]:
        began, self.stray, self.repeated = time.perf_counter(), (), ()
        device = made.settings.device if made.settings is not None else "auto"
        known = self._rounds.registration, taken.planes
        engine = predict(segmenter, self._volume, taken.slices, start, device, *known)
        done: list[int] = []
        try:
            with closable(engine) as slices:
                for found in slices:
                    if self._prediction.put(found, made.number):
                        done.append(found.z)
                        yield replace(found, mask=self._prediction.mask[found.z].copy())
            self.stray = take_off_stray(
                self._prediction, segmenter, self._volume, taken, self._rounds.registration
            )
            sure = self._paint.states >= SliceState.PAINTED
            sure[list(self._prediction.edited)] = True
            _, dy, dx = self._volume.geometry.spacing
            self.repeated = self._corrections.repeated(self._prediction.mask, sure, (dy, dx))
        finally:
            self.seconds["predicting"] = round(time.perf_counter() - began, 3)
            if done:
                self._store_prediction(made.number, sorted(done))
        self.keep_slices()

    def _store_prediction(self, number: int, done: list[int]) -> None:
        # Without the lock, for compressing takes a while; a slice that is edited meanwhile has a
        # record of its own.
        mask, confidence = self._prediction.mask, self._prediction.confidence
        with saving(_NOT_SAVED.replace("{what}", "prediction")):
            if len(done) == len(mask):
                whole = StoredPrediction(np.array(done, np.int64), mask, confidence)
                self._rounds.store_prediction(number, whole)
            else:
                part = StoredPrediction(np.array(done, np.int64), mask[done], confidence[done])
                self._rounds.add_prediction(number, part)
        self._prediction.log_round(number, done)

    def validate(self, settings: TrainSettings) -> Generator[Progress, None, None]:
        """Measure quality: leave each slice painted in full out in turn; sets ``quality``.

        The seconds in ``settings`` are shared by the slices that are left out.

        Raises
        ------
        SessionError
            If fewer than two slices are painted in full, or no structure is on two slices.
        """
        with self._log.changing():
            painted, planes, revision = self._paint.snapshot()
            judged = [s.z for s in painted if self._paint.states[s.z] == SliceState.PAINTED]
            made, labels = self.round, self._paint.labels
        began = time.perf_counter()
        quality = yield from leave_one_out(
            self._volume,
            painted,
            judged,
            labels,
            self.backbone,
            settings,
            self._rounds.registration,
            planes,
        )
        self.seconds["validating"] = round(time.perf_counter() - began, 3)
        with self._log.lock:
            self.quality, self._validated = quality, (revision, settings)
            if made is not None and made == self.round:
                with saving():
                    self._rounds.rate(made.number, quality)
                self.round = self._rounds.numbered(made.number)

    # Models

    def restore(self, number: int) -> None:
        """Go back to the model of a round, and to its prediction where that was kept.

        Raises
        ------
        SessionError
            If there is no such round, or its files are damaged; nothing changes then.
        """
        made = self._rounds.numbered(number)
        segmenter, stored = self._rounds.model(number), self._rounds.prediction(number)
        with self._log.changing():
            self._use(made, segmenter)
            self._prediction.restore(number, stored)

    def save_model(self, path: Path | str, licence: str = "") -> None:
        """Write the model in use to a file, with its card and without any trace of the volume.

        Parameters
        ----------
        path
            The file.
        licence
            Terms of use for the card; empty keeps those that are on it.
        """
        if self.segmenter is None:
            raise SessionError("there is no model to save; train first")
        rename(self.segmenter, self._paint)
        check_outputs([Path(path)], [self._volume.geometry.source])
        card = replace(self.segmenter.card, licence=licence or self.segmenter.card.licence)
        if self.quality:
            names = {label.id: label.name for label in self._paint.labels}
            found = {names[key]: dice for key, dice in self.quality.items() if key in names}
            card = replace(card, validation=found, validation_kind="leave-one-slice-out")
        self.segmenter.card = card
        with saving(f"{path}: cannot be written ({{reason}}); choose another place"):
            self.segmenter.save(path)

    def load_model(self, path: Path | str, by_name: bool = False) -> None:
        """Take a saved model into use as a new round; its structures become labels here.

        Parameters
        ----------
        path
            The model.
        by_name
            A structure takes the id of its namesake here, or a free one.

        Raises
        ------
        SegmenterError
            If the file is no model.
        SessionError
            If one of its structures has the id or the name of another one here; or if the model,
            which is in use then, cannot be kept with the session.
        """
        segmenter = Segmenter.load(path)
        if by_name:
            match_names(segmenter, self._paint)
        else:
            self._paint.adopt(segmenter.labels)
        problem = self.take(Round(self._rounds.next_number), segmenter)
        if problem:
            raise SessionError(problem)

    # Journal

    def records(self) -> list[Record]:
        """The whole state, as the shortest journal that leads to it."""
        return [] if self.round is None else [Record({"op": "round", "number": self.round.number})]

    def recover(self, number: int) -> None:
        """Take the model of a round into use that a journal names."""
        self.segmenter = self._rounds.model(number)
        self.round = self._rounds.numbered(number)
        self.quality = dict(self.round.quality)
