"""What the models predicted, slice by slice, and what the user has corrected in it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.pieces import largest_pieces
from napari_diffseg.engine.progress import SlicePrediction
from napari_diffseg.engine.pseudo_labels import MIN_CONFIDENCE
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.journal import Record, SessionError
from napari_diffseg.session.log import SessionLog
from napari_diffseg.session.paint import Paint
from napari_diffseg.session.rounds import StoredPrediction


class Prediction:
    """The prediction of one session; never trained on, and no paint unless accepted.

    Parameters
    ----------
    paint
        The session's paint; its labels are the ones that may be predicted.
    log
        Where changes are journalled.

    Attributes
    ----------
    mask
        uint8 ``(z, y, x)``: label ids.
    confidence
        uint8 ``(z, y, x)``: the probability of the label in percent.
    round_of
        uint16 ``(z,)``: the round whose model predicted each slice, 0 where none has.
    edited
        Slices whose prediction the user has corrected by hand and not yet accepted.
    """

    def __init__(self, paint: Paint, log: SessionLog) -> None:
        self._paint, self._log = paint, log
        self.mask: NDArray[np.uint8] = np.zeros(paint.mask.shape, np.uint8)
        self.confidence: NDArray[np.uint8] = np.zeros(paint.mask.shape, np.uint8)
        self.round_of: NDArray[np.uint16] = np.zeros(len(paint.mask), np.uint16)
        self.edited: frozenset[int] = frozenset()

    @property
    def there(self) -> NDArray[np.bool_]:
        """Slices ``(z,)`` that a model has predicted, or the user has corrected."""
        there = self.round_of > 0
        there[list(self.edited)] = True
        return there

    def edit(self, z: int, mask: ArrayLike) -> None:
        """Keep a prediction, or a preview of one, that the user has corrected.

        It is not paint until it is accepted, but later predictions leave it alone until then.

        Parameters
        ----------
        z
            Slice index.
        mask
            Label ids ``(y, x)``, uint8; may be the very memory of :attr:`mask`.

        Raises
        ------
        SessionError
            If the mask does not fit.
        """
        plane = np.asarray(mask, np.uint8)
        with self._log.changing():
            z = self._paint.check(z)
            if plane.shape != self.mask.shape[1:]:
                raise SessionError(f"slice {z}: the mask {plane.shape} does not fit the volume")
            self.mask[z] = plane
            self.edited |= {z}
            self._log.append(Record({"op": "edit", "z": z}, plane))

    def revert(self, z: int, mask: NDArray[np.uint8]) -> None:
        """Show what the model predicted for a slice, ``mask`` ``(y, x)``, in place of a correction.

        :meth:`Tools.modelled <napari_diffseg.session.tools.Tools.modelled>` finds the mask.
        """
        with self._log.changing():
            self.mask[z] = self._known(mask)
            self.edited -= {z}
            self._log.append(Record({"op": "reverted", "z": z}))

    def put(self, found: SlicePrediction, number: int) -> bool:
        """Take a slice that the model of round ``number`` predicted, unless it was edited.

        Returns
        -------
        Whether it was taken. It is journalled with the other slices, by :meth:`log_round`.
        """
        with self._log.lock:
            if found.z in self.edited:
                return False
            self.mask[found.z] = self._known(found.mask)
            self.confidence[found.z] = found.confidence
            self.round_of[found.z] = number
            return True

    def sure_slices(self, number: int) -> list[PaintedSlice]:
        """Slices that a round's model predicted and nobody has painted, where it is sure.

        They are scribbles: pixels of a class that is less likely than 70 % are unknown.
        """
        with self._log.lock:
            chosen = (self.round_of == number) & (self._paint.states == 0)
            found = []
            for z in np.flatnonzero(chosen).tolist():
                plane = np.where(self.mask[z] == 0, BACKGROUND, self.mask[z])
                plane[self.confidence[z] < 100 * MIN_CONFIDENCE] = 0
                found.append(PaintedSlice(z, plane.astype(np.uint8), full=False))
        return found

    def keep_largest(self, segmenter: Segmenter) -> tuple[int, ...]:
        """Keep the largest piece of the structures that a model's card calls one piece.

        Slices that the user has corrected stay as they are.

        Returns
        -------
        The slices that it changed.
        """
        single = segmenter.card.single_pieces
        ids = [label.id for label in segmenter.labels if label.name in single]
        if not ids:
            return ()
        kept = largest_pieces(self.mask, ids)
        return self.take_off(kept != self.mask)

    def take_off(self, stray: NDArray[np.bool_]) -> tuple[int, ...]:
        """Make background of stray pieces ``(z, y, x)``, but on slices that the user has corrected.

        Returns
        -------
        The slices that it changed.
        """
        with self._log.lock:
            changed = []
            for z, there in enumerate(stray):  # slice by slice, for volumes are large
                if z not in self.edited and self.mask[z][there].any():
                    self.mask[z][there] = 0
                    changed.append(z)
        return tuple(changed)

    def show(
        self, number: int, stored: StoredPrediction, wanted: Container[int] | None = None
    ) -> None:
        """Put a round's stored prediction in place, but for the slices edited since.

        Raises
        ------
        SessionError
            If it is not one of this volume; nothing is changed then.
        """
        shape = (len(stored.slices), *self.mask.shape[1:])
        inside = (stored.slices >= 0) & (stored.slices < len(self.mask))
        if stored.mask.shape != shape or stored.confidence.shape != shape or not inside.all():
            raise SessionError(f"the stored prediction of round {number} is damaged; predict again")
        for z, mask, percent in zip(stored.slices, stored.mask, stored.confidence, strict=True):
            if wanted is None or int(z) in wanted:
                self.round_of[z] = number
                self.confidence[z] = percent
                if int(z) not in self.edited:
                    self.mask[z] = self._known(mask)

    def log_round(self, number: int, slices: list[int]) -> None:
        """Journal which slices a round has predicted, once they are stored with it."""
        with self._log.lock:
            self._log.append(Record({"op": "predicted", "round": number, "slices": slices}))

    def restore(self, number: int, stored: StoredPrediction | None) -> None:
        """Show what a round predicted in the place of all that was not edited."""
        with self._log.changing():
            gone = np.ones(len(self.mask), bool)
            gone[list(self.edited)] = False
            self.round_of[gone], self.mask[gone], self.confidence[gone] = 0, 0, 0
            if stored is not None:
                self.show(number, stored)
            # One record: a kill between two of them would leave nothing to show.
            slices = [] if stored is None else stored.slices.tolist()
            self._log.append(Record({"op": "restore", "round": number, "slices": slices}))

    def accepted(self, z: int) -> None:
        """Note that a slice is paint now, so that later predictions need not spare it."""
        self.edited -= {z}
        self._log.append(Record({"op": "accepted", "z": z}))

    def forget(self, label_ids: Iterable[int]) -> None:
        """Take structures that were removed out of the prediction and its corrections."""
        for label_id in label_ids:
            self.mask[self.mask == label_id] = 0

    def records(self) -> Iterator[Record]:
        """The whole state, as the shortest journal that leads to it."""
        for number in np.unique(self.round_of[self.round_of > 0]).tolist():
            slices = np.flatnonzero(self.round_of == number).tolist()
            yield Record({"op": "predicted", "round": number, "slices": slices})
        for z in sorted(self.edited):
            yield Record({"op": "edit", "z": z}, self.mask[z])

    def _known(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a mask without the ids of structures that were removed."""
        table = np.zeros(256, np.uint8)
        for label in self._paint.labels:
            table[label.id] = label.id
        return table[mask]
