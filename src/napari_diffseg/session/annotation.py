"""What a session knows, kept on disk as it changes: labels, paint, prediction, rounds.

:class:`Annotation` is the half of :class:`Session` that needs no network:
every change goes through it and is journalled, and it can be brought back from its journal.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.io.labels import Label, load_names
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import home
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.journal import (
    Journal,
    Record,
    SessionError,
    SessionFolder,
    decode,
    saving,
    volume_id,
)
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.rounds import Round, Rounds, Stored

_FORMAT = 1


class Annotation:
    """Labels, paint, prediction and rounds of one volume, journalled.

    Parameters
    ----------
    volume
        The CT.
    labels
        The structures to begin with.
    folder
        Where sessions are kept; ``None`` is the user's data folder, ``False`` keeps nothing on
        disk. Each session gets a new folder below it, made when there is something to keep.

    Attributes
    ----------
    volume
        The CT.
    prediction, confidence
        uint8 ``(z, y, x)``: what the models predicted, and its probability in percent. Never
        trained on, and never mixed with paint unless accepted.
    predicted
        uint16 ``(z,)``: the round whose model predicted each slice, 0 where none has.
    edited
        Slices whose prediction the user has corrected by hand and not yet accepted.
    segmenter
        The model in use.
    round
        The round that it came from.
    quality
        Leave-one-painted-slice-out Dice by label id, of the last validation.
    notes
        What could not be recovered.
    """

    def __init__(
        self,
        volume: Volume,
        labels: Iterable[Label] = (),
        folder: Path | Literal[False] | None = None,
    ) -> None:
        shape = volume.hu.shape[0], volume.hu.shape[1], volume.hu.shape[2]
        self.volume = volume
        self.prediction: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.confidence: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.predicted: NDArray[np.uint16] = np.zeros(shape[0], np.uint16)
        self.edited: frozenset[int] = frozenset()
        self.segmenter: Segmenter | None = None
        self.round: Round | None = None
        self.quality: dict[int, float] = {}
        self.notes: tuple[str, ...] = ()
        self._truth = Paint(shape, labels)
        self._rounds = Rounds()
        self._root = None if folder is False else Path(folder or home() / "sessions")
        self._place: SessionFolder | None = None
        self._journal: Journal | None = None
        self._lock = threading.RLock()
        self._revision = 0  # of the paint, to know whether a quality still belongs to it

    @property
    def labels(self) -> tuple[Label, ...]:
        """The structures, sorted by id."""
        return self._truth.labels

    @property
    def paint(self) -> NDArray[np.uint8]:
        """Truth, uint8 ``(z, y, x)``: label ids, 0 unpainted, 255 painted background."""
        return self._truth.mask

    @property
    def states(self) -> NDArray[np.uint8]:
        """State of each slice ``(z,)``, values of :class:`SliceState`."""
        return self._truth.states

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Every training so far, and every model that was loaded."""
        return self._rounds.all

    @property
    def folder(self) -> Path | None:
        """The folder of this session, or ``None`` while nothing has been written."""
        return None if self._place is None else self._place.path

    def state(self, z: int) -> SliceState:
        """State of one slice."""
        return SliceState(int(self.states[self._truth.check(z)]))

    def painted(self) -> tuple[PaintedSlice, ...]:
        """Copies of the painted slices, as training takes them."""
        with self._lock:
            return self._truth.painted()

    # Labels

    def add_label(
        self, name: str | None = None, colour: tuple[int, int, int] | None = None
    ) -> Label:
        """Add a structure with the lowest free id."""
        with self._lock:
            label = self._truth.add_label(name, colour)
            self._log(self._labels_record())
            return label

    def rename_label(self, label_id: int, name: str) -> None:
        """Give a structure another name."""
        with self._lock:
            self._truth.label(label_id)
            self._truth.name_labels({label_id: name})
            self._log(self._labels_record())

    def recolour_label(self, label_id: int, colour: tuple[int, int, int]) -> None:
        """Give a structure another colour: red, green, blue, 0 to 255."""
        with self._lock:
            self._truth.recolour_label(label_id, colour)
            self._log(self._labels_record())

    def import_names(self, path: Path | str) -> None:
        """Name structures from a JSON file; those that are not there yet are added."""
        names = load_names(path)
        with self._lock:
            self._truth.name_labels(names)
            self._log(self._labels_record())

    def remove_label(self, label_id: int) -> None:
        """Remove a structure that is painted nowhere; it goes from the prediction, too."""
        with self._lock:
            self._truth.remove_label(label_id, retire=bool(self.rounds))
            self.prediction[self.prediction == label_id] = 0
            self._log(self._labels_record())

    # Paint

    def set_slice(self, z: int, mask: ArrayLike, state: SliceState | None = None) -> None:
        """Take a whole slice as painted; call it after each stroke.

        Parameters
        ----------
        z
            Slice index.
        mask
            Label ids ``(y, x)``; may be the very memory of :attr:`paint`. Ids that have no label
            get one.
        state
            How the paint is meant. ``None`` keeps the state, and makes a fresh slice painted in
            full. A slice that holds no paint any more (an undone stroke) becomes unpainted,
            unless it is scribbled: a slice on which there is truly nothing needs
            ``SliceState.PAINTED``.

        Raises
        ------
        SessionError
            If slice or mask do not fit the volume.
        """
        with self._lock:
            known = self.labels
            self._truth.set_slice(z, mask, state)
            if self.labels != known:
                self._log(self._labels_record())
            self._changed(z)

    def set_state(self, z: int, state: SliceState) -> None:
        """Say whether a slice is painted in full or scribbled.

        Raises
        ------
        SessionError
            If the slice holds paint and is called unpainted, or was not accepted.
        """
        with self._lock:
            self._truth.set_state(z, state)
            self._changed(z)

    def clear_slice(self, z: int) -> None:
        """Take the paint off a slice."""
        self.set_slice(z, np.zeros(self.paint.shape[1:], np.uint8), SliceState.UNPAINTED)

    def accept(self, z: int) -> None:
        """Take the prediction of a slice as truth, in full.

        Raises
        ------
        SessionError
            If there is no prediction, or the slice holds paint that differs from it.
        """
        with self._lock:
            if not self.predicted[self._truth.check(z)] and z not in self.edited:
                raise SessionError(f"slice {z} has no prediction to accept; train and predict it")
            self._truth.accept(z, self.prediction[z])
            self.edited -= {z}
            self._log(Record({"op": "accepted", "z": z}))
            self._changed(z)

    def edit_prediction(self, z: int, mask: ArrayLike) -> None:
        """Keep a prediction, or a preview of one, that the user has corrected.

        It is not paint until it is accepted, but later predictions leave it alone until then.

        Parameters
        ----------
        z
            Slice index.
        mask
            Label ids ``(y, x)``, uint8; may be the very memory of :attr:`prediction`.

        Raises
        ------
        SessionError
            If the mask does not fit.
        """
        plane = np.asarray(mask, np.uint8)
        with self._lock:
            z = self._truth.check(z)
            if plane.shape != self.prediction.shape[1:]:
                raise SessionError(f"slice {z}: the mask {plane.shape} does not fit the volume")
            self.prediction[z] = plane
            self.edited |= {z}
            self._log(Record({"op": "edit", "z": z}, plane))

    # Journal

    def save(self) -> None:
        """Rewrite the journal without what was painted over, and bring it to the disk."""
        with self._lock:
            if self._journal is not None:
                with saving():
                    self._journal.rewrite(self._records())

    def close(self) -> None:
        """Save, and let others open the session; it cannot be changed on disk afterwards."""
        with self._lock:
            if self._journal is not None and self._place is not None:
                self.save()
                self._journal.close()
                self._place.release()
                self._journal, self._root = None, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _changed(self, z: int) -> None:
        self._revision += 1
        self._log(self._slice_record(int(z)))

    def _log(self, record: Record) -> None:
        with saving():
            # A journal that is opened now holds the change already.
            if not self._open_journal() and self._journal is not None:
                self._journal.append(record)
                if self._journal.long:
                    self._journal.rewrite(self._records())

    def _open_journal(self) -> bool:
        if self._root is None or self._journal is not None:
            return False
        with saving():
            self._place = self._place or SessionFolder.fresh(self._root, self.volume)
            self._rounds.folder = self._place.path
            self._journal = Journal(self._place.journal, self._records())
        return True

    def _labels_record(self) -> Record:
        labels = [asdict(label) for label in self.labels]
        return Record({"op": "labels", "labels": labels, "retired": sorted(self._truth.retired)})

    def _slice_record(self, z: int) -> Record:
        return Record({"op": "slice", "z": z, "state": int(self.states[z])}, self.paint[z])

    def _records(self) -> Iterator[Record]:
        """The whole state, as the shortest journal that leads to it."""
        yield Record({"op": "session", "format": _FORMAT, "volume": volume_id(self.volume)})
        yield self._labels_record()
        for z in np.flatnonzero(self.states):
            yield self._slice_record(int(z))
        if self.round is not None:
            yield Record({"op": "round", "number": self.round.number})
        for number in np.unique(self.predicted[self.predicted > 0]).tolist():
            slices = np.flatnonzero(self.predicted == number).tolist()
            yield Record({"op": "predicted", "round": number, "slices": slices})
        for edited in sorted(self.edited):
            yield Record({"op": "edit", "z": edited}, self.prediction[edited])

    # Recovery

    def _recover(self, place: SessionFolder) -> bool:
        """Read a session's folder; says whether there was anything to read."""
        records = list(decode(place.journal.read_bytes()))
        if not records:
            return False
        version = next((r.header["format"] for r in records if r.header["op"] == "session"), 0)
        if version > _FORMAT:
            raise SessionError("this session was saved by a newer napari-diffseg; update it")
        self._place, self._rounds.folder = place, place.path
        notes = self._rounds.read_folder()
        # Only the last model and the predictions that are still shown are worth reading.
        number, shown = 0, dict[int, int]()
        for record in records:
            header = record.header
            match header["op"]:
                case "labels":
                    self._truth.recover_labels(header["labels"], header["retired"])
                case "slice" if record.mask is not None:
                    self._truth.set_slice(header["z"], record.mask, SliceState(header["state"]))
                case "round":
                    number = header["number"]
                case "restore":
                    shown = {z: r for z, r in shown.items() if z in self.edited}
                case "predicted":
                    shown |= dict.fromkeys(header["slices"], header["round"])
                case "edit" if record.mask is not None:
                    self.prediction[header["z"]] = record.mask
                    self.edited |= {header["z"]}
                case "accepted":
                    self.edited -= {header["z"]}
        for past in sorted(set(shown.values())):
            try:
                stored = self._rounds.prediction(past)
                if stored is not None:
                    self._show(past, stored, {z for z, r in shown.items() if r == past})
            except SessionError as error:
                notes.append(str(error))
        if number:
            try:
                self.segmenter = self._rounds.model(number)
                self.round = self._rounds[number]
                self.quality = dict(self.round.quality)
            except SessionError as error:
                notes.append(str(error))
        self.notes = tuple(notes)
        with saving():
            self._journal = Journal(place.journal, self._records())
        return True

    def _show(self, number: int, stored: Stored, wanted: Container[int] | None = None) -> None:
        """Put a round's stored prediction in place, but for the slices edited since."""
        for z, mask, percent in zip(stored.slices, stored.mask, stored.confidence, strict=True):
            if wanted is None or int(z) in wanted:
                self.predicted[z] = number
                self.confidence[z] = percent
                if int(z) not in self.edited:
                    self.prediction[z] = self.known_ids(mask)

    def known_ids(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a predicted mask without the ids of structures that were removed."""
        table = np.zeros(256, np.uint8)
        for label in self.labels:
            table[label.id] = label.id
        return table[mask]
