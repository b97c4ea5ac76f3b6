"""One annotation session without a screen: paint, train, predict, correct, export.

Threads
-------
``train``, ``predict``, ``validate``, ``restore``, ``compare``, ``load_model``, ``save_model``,
``export_mask``, ``export_report`` and ``recover`` take long and may run in a worker thread, one of
them at a time. Everything else is quick and belongs to the thread that owns the session (the
GUI's), also while one of those runs, as ``finish`` does: training works on a copy of the paint,
made when ``train`` is called. ``predict`` writes :attr:`Session.prediction` in place, one whole
slice before each yield. ``current`` is a plain int that the owner sets and the worker reads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.suggest import Suggestion, slice_change, slice_confidence, suggest
from napari_diffseg.io.files import check_outputs
from napari_diffseg.io.volume import Volume, write_mask
from napari_diffseg.network.backbone import Backbone, home
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.journal import Record, SessionError, SessionFolder
from napari_diffseg.session.learning import Learning
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.report import describe
from napari_diffseg.session.rounds import Comparison, Round

__all__ = ["Comparison", "Round", "Session", "SessionError", "SliceState", "Suggestion"]

_REACH_MM = 25.0  # how far along z a painted slice is taken to help its neighbours


class Session(Learning):
    """Everything about one volume: what is painted, what was learnt from it, and its export.

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
        self.check_output(path)
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
            empty[list(self.edited)] = False
        if empty.all():
            raise SessionError("there is nothing to export yet: paint a slice, or train first")
        write_mask(path, self.merged(), self.volume.geometry, self.labels)
        return int(empty.sum())

    def check_output(self, path: Path | str) -> None:
        """Refuse an export that would replace the volume's own files; see :func:`check_outputs`."""
        check_outputs([Path(path)], [self.volume.geometry.source])

    def report(self) -> dict[str, Any]:
        """Say how the result was made, as JSON values without name, id or path of anyone."""
        return describe(self, self._seconds)

    def export_report(self, path: Path | str) -> None:
        """Write :meth:`report` as JSON."""
        path = Path(path)
        self.check_output(path)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(json.dumps(self.report(), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
