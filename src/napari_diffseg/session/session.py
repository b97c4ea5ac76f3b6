"""One annotation session, headless: paint, train, predict, correct, export.

Threads
-------
Of the trainer ``train``, ``predict``, ``validate``, ``restore``, ``load_model`` and ``save_model``,
of the session ``export_*``, ``suggest`` and ``recover``, and of the tools
``edited``, ``copied`` and ``filled`` take long and may run in a worker thread, one trainer's method
at a time. Everything else is quick and belongs to the thread that owns the session (the GUI's),
also while one of those runs, as ``trainer.finish`` does: training works on a copy of the paint,
made when ``train`` is called. ``predict`` writes ``prediction.mask`` in place, one whole slice
before each yield. ``trainer.current`` is a plain int that the owner sets and the worker reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.measure_report import write_measurements
from napari_diffseg.engine.suggest import Suggestion
from napari_diffseg.engine.suggest_plane import PlaneSuggestion
from napari_diffseg.io.files import atomic_write, check_outputs
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.labels import Label, LabelMap
from napari_diffseg.io.volume import Volume, write_mask
from napari_diffseg.io.voxels import check_memory, check_regular
from napari_diffseg.network.backbone import Backbone, home
from napari_diffseg.session.journal import Record, SessionError, decode, saving
from napari_diffseg.session.log import SessionFolder, SessionLog, volume_id
from napari_diffseg.session.next_slice import next_plane, next_slices
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.prediction import Prediction
from napari_diffseg.session.report import describe
from napari_diffseg.session.rounds import Rounds
from napari_diffseg.session.tools import Tools
from napari_diffseg.session.trainer import Trainer

Access = Literal["alone", "read-only", "take over"]

_FORMAT = 2  # 2 has planes


@dataclass
class _Past:
    """What a journal says of rounds: the last one in use, and whose prediction slices show."""

    number: int = 0
    shown: dict[int, int] = field(default_factory=dict)


class Session:
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
    volume
        The CT.
    paint
        What is known for certain: labels, painted slices and their states.
    prediction
        What the models predicted, with the user's corrections.
    rounds
        Every training so far, and every model that was loaded.
    trainer
        The model in use, and the engine: train, predict, validate.
    tools
        What changes paint and prediction without a stroke.
    notes
        What could not be recovered.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_diffseg.io.geometry import Geometry
    >>> geometry = Geometry.from_affine(np.diag([2.0, 2.0, 5.0, 1.0]), (32, 32, 4))
    >>> volume = Volume(np.zeros((4, 32, 32), np.int16), geometry, "phantom")
    >>> session = Session(volume, [Label(1, "liver", (230, 159, 0))], folder=False)
    >>> session.paint.set_slice(2, np.ones((32, 32), np.uint8))
    >>> session.paint.state(2)
    <SliceState.PAINTED: 2>
    """

    def __init__(
        self,
        volume: Volume,
        labels: Iterable[Label] = (),
        backbone: str | Path | Backbone | None = None,
        folder: Path | Literal[False] | None = None,
    ) -> None:
        root = None if folder is False else Path(folder or home() / "sessions")
        self.volume = volume
        self.notes: tuple[str, ...] = ()
        self._log = log = SessionLog(volume, root, self._records)
        self.paint = Paint(volume.hu.shape, labels, log)
        self.prediction = Prediction(self.paint, log)
        self.rounds = Rounds(log)
        self.tools = Tools(volume, self.paint, self.prediction, self.rounds, log)
        self.trainer = Trainer(volume, backbone, self.paint, self.prediction, self.rounds, log)

    @classmethod
    def recover(
        cls,
        volume: Volume,
        folder: Path | None = None,
        backbone: str | Path | Backbone | None = None,
        access: Access = "alone",
    ) -> Session | None:
        """Open the newest session of this very volume (same voxels, affine and shape).

        Parameters
        ----------
        volume, folder, backbone
            As for :class:`Session`.
        access
            What to do where another window or process has it open: ``"alone"`` refuses;
            ``"read-only"`` shows what has been saved so far, also where nobody has it, and refuses
            each change; ``"take over"`` goes on with a copy of it, and refuses each further change
            of the other one.

        Returns
        -------
        The session, or ``None`` when there is none; ``notes`` names what could not be read.

        Raises
        ------
        SessionInUseError
            If it is open in another window or process, and ``access`` is ``"alone"``.
        """
        root = Path(folder or home() / "sessions")
        if access == "take over":
            place = SessionFolder.taken_over(root, volume)
        else:
            place = SessionFolder.latest(root, volume, lock=access == "alone")
        if place is None:
            return None
        session = cls(volume, backbone=backbone, folder=False)
        found = False
        try:
            found = session._read(place)
            if found:
                session._log.resume(root)
        finally:
            if not found:
                place.release()
        return session if found else None

    @property
    def folder(self) -> Path | None:
        """The folder of this session, or ``None`` while nothing has been written."""
        return self._log.folder

    @property
    def refusal(self) -> str:
        """Why the session cannot be changed any more (read-only, taken over), or nothing."""
        return self._log.refusal

    # Paint and prediction

    def accept(self, z: int) -> None:
        """Take the prediction of a slice as paint, in full.

        Raises
        ------
        SessionError
            If there is no prediction, or the slice holds paint that differs from it.
        """
        with self._log.changing():
            if not self.prediction.there[self.paint.check(z)]:
                raise SessionError(f"slice {z} has no prediction to accept; train and predict it")
            self.paint.accept(z, self.prediction.mask[z])
            self.prediction.accepted(z)

    def remove_label(self, label_id: int) -> None:
        """Remove a structure that is painted nowhere; it goes from the prediction, too."""
        with self._log.changing():
            try:
                self.paint.drop_label(label_id, retire=bool(self.rounds.all))
            finally:  # it is removed even where that could not be journalled
                if label_id not in {label.id for label in self.paint.labels}:
                    self.prediction.forget([label_id])

    def suggest(self, n: int = 1) -> list[Suggestion]:
        """Name the slices that are most worth painting next, the best first."""
        with self._log.lock:
            return next_slices(self.volume, self.paint, self.prediction, self.trainer, n)

    def suggest_plane(self) -> PlaneSuggestion | None:
        """Name the coronal or sagittal plane that is most worth painting next.

        Returns
        -------
        ``None`` where a slice is worth more, and before every slice is predicted.
        """
        with self._log.lock:
            return next_plane(self.volume, self.paint, self.prediction)

    # Export

    def merged(self) -> NDArray[np.uint8]:
        """Paint over prediction ``(z, y, x)``: whole slices, or scribbles only where painted."""
        return self.paint.over(self.prediction.mask)

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
        with self._log.lock:
            empty = (self.paint.states == SliceState.UNPAINTED) & ~self.prediction.there
        if empty.all():
            raise SessionError("there is nothing to export yet: paint a slice, or train first")
        write_mask(path, self.merged(), self.volume.geometry, self.paint.labels)
        return int(empty.sum())

    def report(self) -> dict[str, Any]:
        """Say how the result was made, as JSON values without name, id or path of anyone."""
        return describe(self.paint, self.rounds, self.trainer)

    def export_report(self, path: Path | str) -> None:
        """Write :meth:`report` as JSON."""
        check_outputs([Path(path)], [self.volume.geometry.source])
        failed = f"{path}: cannot be written ({{reason}}); choose another place"
        with saving(failed), atomic_write(Path(path)) as part:
            part.write_text(json.dumps(self.report(), indent=1) + "\n", encoding="utf-8")

    def export_numbers(self, path: Path | str) -> None:
        """Measure :meth:`merged`, and write a table (``.csv``) or a page with pictures (``.html``).

        Raises
        ------
        VolumeError
            If there is no label, or it cannot be written.
        """
        write_measurements(Path(path), self.volume, LabelMap(self.merged(), self.paint.labels))

    # On disk

    def save(self) -> None:
        """Rewrite the journal without what was painted over, and bring it to the disk."""
        self._log.save()

    def close(self) -> None:
        """Save, and let others open the session; it cannot be changed on disk afterwards."""
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _records(self) -> Iterator[Record]:
        """The whole state, as the shortest journal that leads to it."""
        yield Record({"op": "session", "format": _FORMAT, "volume": volume_id(self.volume)})
        yield from self.paint.records()
        yield from self.trainer.records()
        yield from self.prediction.records()

    def _read(self, place: SessionFolder) -> bool:
        """Read a session's folder; says whether there was anything to read."""
        try:
            check_regular(place.journal)
            check_memory(place.journal, place.journal.stat().st_size)
            records = list(decode(place.journal.read_bytes()))
        except (OSError, VolumeError) as error:
            raise SessionError(f"the session cannot be read ({error}); start fresh") from error
        if not records:
            return False
        version = next((r.header.get("format") for r in records if r.header["op"] == "session"), 0)
        if not isinstance(version, int) or version > _FORMAT:
            raise SessionError("this session was saved by a newer napari-diffseg; update it")
        self._log.read(place)
        notes = self.rounds.read_folder()
        # Only the last model and the predictions that are still shown are worth reading.
        past, lost = _Past(), 0
        for record in records:
            try:
                self._replay(record, past)
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
                lost += 1
        if lost:
            notes.append(f"{lost} entries of the journal could not be read and are left out")
        number, shown = past.number, past.shown
        for made in sorted(set(shown.values())):
            try:
                stored = self.rounds.prediction(made)
                if stored is not None:
                    self.prediction.show(made, stored, {z for z, r in shown.items() if r == made})
            except SessionError as error:
                notes.append(str(error))
        if number:
            try:
                self.trainer.recover(number)
            except SessionError as error:
                notes.append(str(error))
        self.notes = tuple(notes)
        return True

    def _replay(self, record: Record, past: _Past) -> None:
        """Make a change that a journal tells of."""
        header = record.header
        match header["op"]:
            case "labels":
                before = {label.id for label in self.paint.labels}
                self.paint.recover_labels(header["labels"], header["retired"])
                # A later structure may have the id, so they go at this point of the history.
                self.prediction.forget(before - {label.id for label in self.paint.labels})
            case "slice" if record.mask is not None:
                z = self.paint.check(int(header["z"]))
                self.paint.set_slice(z, record.mask, SliceState(header["state"]))
            case "plane" if record.mask is not None:
                self.paint.planes.recover(record)
            case "round":
                past.number = int(header["number"])
            case "restore":
                kept = self.prediction.edited
                past.shown = {z: r for z, r in past.shown.items() if z in kept}
                # Sessions from before have a record of its own for the slices.
                slices = [self.paint.check(int(z)) for z in header.get("slices", ())]
                past.shown |= dict.fromkeys(slices, int(header.get("round", 0)))
            case "predicted":
                slices = [self.paint.check(int(z)) for z in header["slices"]]
                past.shown |= dict.fromkeys(slices, int(header["round"]))
            case "edit" if record.mask is not None:
                self.prediction.edit(int(header["z"]), record.mask)
            case "reverted":  # what the model predicted comes with its round
                self.prediction.revert(
                    self.paint.check(int(header["z"])),
                    np.zeros(self.paint.mask.shape[1:], np.uint8),
                )
            case "accepted":
                self.prediction.accepted(self.paint.check(int(header["z"])))
