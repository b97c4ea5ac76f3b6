"""One annotation session without a screen: paint, train, predict, correct, export.

Threads
-------
``train``, ``predict``, ``validate``, ``restore``, ``compare``, ``load_model``, ``save_model``,
``export_mask``, ``export_report`` and ``recover`` take long and may run in a worker thread, one of
them at a time. Everything else is quick and belongs to the thread that owns the session (the
GUI's), also while one of those runs: training works on a copy of the paint, made when ``train`` is
called. ``predict`` writes :attr:`Session.prediction` in place, one whole slice before each yield.
``current`` is a plain int that the owner sets and the worker reads.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.annotation import Annotation, saving
from napari_diffseg.backbone import Backbone, home, load_backbone
from napari_diffseg.finetune import BACKGROUND, PaintedSlice, Progress, TrainSettings, finetune
from napari_diffseg.journal import Record, SessionError, SessionFolder
from napari_diffseg.motion import Motion
from napari_diffseg.paint import SliceState
from napari_diffseg.predict import SlicePrediction, predict
from napari_diffseg.report import describe
from napari_diffseg.rounds import Comparison, LossCurve, Round, Stored
from napari_diffseg.segmenter import Segmenter
from napari_diffseg.suggest import Suggestion, slice_change, slice_confidence, suggest
from napari_diffseg.validation import closable, leave_one_out, painted_ids
from napari_diffseg.volume import Label, Volume, write_mask

__all__ = ["Comparison", "Round", "Session", "SessionError", "SliceState", "Suggestion"]

_REACH_MM = 25.0  # how far along z a painted slice is taken to help its neighbours


class Session(Annotation):
    """An annotation, and the engine that learns from it.

    Parameters
    ----------
    volume
        The CT.
    labels
        The structures to begin with.
    backbone
        What training begins at: a name, a file, or a loaded one; ``None`` is the shipped one.
    folder
        Where sessions are kept; ``None`` is the user's data folder, ``False`` keeps nothing on
        disk. Each session gets a new folder below it, made when there is something to keep; one
        that is there already is opened by :meth:`recover` only.

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
        self._motion: Motion | None = None  # the volume's; every model of it can use it
        self._seconds: dict[str, float] = {}
        self._judged: tuple[int, TrainSettings] | None = None  # what the quality belongs to

    @classmethod
    def recover(
        cls,
        volume: Volume,
        folder: Path | None = None,
        backbone: str | Path | Backbone | None = None,
    ) -> Session | None:
        """Open the newest session of this very volume (same voxels, affine and shape).

        Parameters
        ----------
        volume, folder, backbone
            As for :class:`Session`.

        Returns
        -------
        The session, or ``None`` when there is none; ``notes`` names what could not be read.

        Raises
        ------
        SessionError
            If it is open in another window or process.
        """
        session = cls(volume, backbone=backbone, folder=folder)
        place = SessionFolder.latest(Path(folder or home() / "sessions"), volume)
        if place is None:
            return None
        found = False
        try:
            found = session._recover(place)
        finally:
            if not found:
                place.release()
        return session if found else None

    @property
    def backbone(self) -> Backbone:
        """What training begins at; loaded when first needed."""
        if not isinstance(self._base, Backbone):
            self._base = load_backbone(self._base)
        return self._base

    def suggest(self, n: int = 1) -> list[Suggestion]:
        """Name the slices that are most worth painting next, the best first."""
        confidence = change = None
        with self._lock:
            if self.predicted.all():
                # A few pixels tell as much, and the window asks after each stroke.
                step = max(1, self.prediction.shape[2] // 64)
                prediction = self.prediction[:, ::step, ::step]
                confidence = slice_confidence(prediction, self.confidence[:, ::step, ::step])
                change = slice_change(prediction)
            reach = max(2.0, _REACH_MM / float(self.volume.geometry.spacing[0]))
            return suggest(self.states > 0, confidence, change, n, reach)

    # Training

    def train(self, settings: TrainSettings, from_model: bool = False) -> Iterator[Progress]:
        """Train on the slices painted now; the round is committed with the last step.

        Closing the iterator at any step, or an error in it, leaves the model as it was.

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
            self.volume, painted, labels, base, settings, lambda: self.current, self._motion
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
                    self._commit(made, progress.segmenter)
                yield replace(progress, note=f"{progress.note} {note}".strip())

    def _commit(self, made: Round, segmenter: Segmenter) -> None:
        with self._lock:
            self._open_journal()
        with saving():  # outside the lock: a large model must not hold up the painter
            self._rounds.commit(made, segmenter)
        with self._lock:
            self._use(made, segmenter)

    def _use(self, made: Round, segmenter: Segmenter) -> None:
        self._motion = segmenter.motion = segmenter.motion or self._motion
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
            with closable(predict(segmenter, self.volume, painted, start, device)) as slices:
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

    # Rounds and models

    def restore(self, number: int) -> None:
        """Go back to the model of a round, and to its prediction where that was kept.

        Raises
        ------
        SessionError
            If there is no such round, or its files are damaged; nothing changes then.
        """
        made = self._rounds[number]
        segmenter, stored = self._rounds.model(number), self._rounds.prediction(number)
        with self._lock:
            self._use(made, segmenter)
            kept = np.isin(np.arange(len(self.predicted)), sorted(self.edited))
            self.predicted[~kept] = 0
            self.prediction[~kept] = 0
            self.confidence[~kept] = 0
            self._log(Record({"op": "restore"}))
            if stored is not None:
                self._show(number, stored)
                slices = stored.slices.tolist()
                self._log(Record({"op": "predicted", "round": number, "slices": slices}))

    def compare(self, a: int, b: int) -> Comparison:
        """Compare the predictions of two rounds: Dice by label, changed pixels by slice."""
        ids = [label.id for label in self.labels]
        return self._rounds.compare(a, b, len(self.prediction), ids)

    def save_model(self, path: Path | str) -> None:
        """Write the model in use to a file, without any trace of the volume."""
        if self.segmenter is None:
            raise SessionError("there is no model to save; train first")
        self._rename(self.segmenter)
        _check_folder(Path(path))
        self.segmenter.save(path)

    def load_model(self, path: Path | str) -> None:
        """Take a saved model into use as a new round; its structures become labels here.

        Raises
        ------
        SegmenterError
            If the file is no model.
        SessionError
            If one of its structures has the id or the name of another one here.
        """
        segmenter = Segmenter.load(path)
        with self._lock:
            self._truth.adopt(segmenter.labels)
            self._log(self._labels_record())
        self._commit(Round(self._rounds.next_number), segmenter)

    def _rename(self, segmenter: Segmenter) -> None:
        # Structures may have been renamed since the model was trained.
        now = {label.id: label for label in self.labels}
        segmenter.labels = tuple(now.get(label.id, label) for label in segmenter.labels)

    # Export

    def merged(self) -> NDArray[np.uint8]:
        """Paint over prediction ``(z, y, x)``: whole slices, or scribbles only where painted."""
        with self._lock:
            return self._truth.over(self.prediction)

    def export_mask(self, path: Path | str) -> int:
        """Write :meth:`merged` on the source grid, in the format of the file name.

        Returns
        -------
        Number of slices that are neither painted nor predicted; they are empty in the file.

        Raises
        ------
        SessionError
            If there is nothing to export.
        """
        with self._lock:
            empty = (self.states == SliceState.UNPAINTED) & (self.predicted == 0)
        if empty.all():
            raise SessionError("there is nothing to export yet: paint a slice, or train first")
        _check_folder(Path(path))
        write_mask(path, self.merged(), self.volume.geometry, self.labels)
        return int(empty.sum())

    def report(self) -> dict[str, Any]:
        """Say how the result was made, as JSON values without name, id or path of anyone."""
        return describe(self, self._seconds)

    def export_report(self, path: Path | str) -> None:
        """Write :meth:`report` as JSON."""
        path = Path(path)
        _check_folder(path)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(json.dumps(self.report(), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise SessionError(f"{path}: the folder {path.parent} does not exist; make it first")
