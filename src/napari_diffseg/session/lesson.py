"""What one training learns from, and what it begins at."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from napari_diffseg.io.labels import Label
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.corrections import Corrections
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.paint import Paint, Snapshot
from napari_diffseg.session.rounds import Round, Rounds, StoredPrediction
from napari_diffseg.session.validation import taught_ids


@dataclass(frozen=True, eq=False)
class Lesson:
    """The paint of a session as it was when a training began.

    Attributes
    ----------
    taken
        Copies of what is painted.
    labels
        The structures that the model will know.
    start, base
        The model that training goes on from, and its round; ``None`` is the backbone.
    note
        What the user should know.
    cases, slices
        How many patients and painted slices are behind the model then; 0 where nobody knows.
    corrections
        Which of the slices an earlier model had got wrong; they count more.
    """

    taken: Snapshot
    labels: tuple[Label, ...]
    start: Segmenter | None
    base: Round | None
    note: str
    cases: int
    slices: int
    corrections: Corrections

    @classmethod
    def of(
        cls,
        paint: Paint,
        start: Segmenter | None,
        base: Round | None,
        last: Round | None = None,
        stored: StoredPrediction | None = None,
    ) -> Lesson:
        """Take the paint as it is now, and what was corrected in the prediction of a last round.

        Raises
        ------
        SessionError
            If there is nothing to learn from.
        """
        taken = paint.snapshot()
        cases, slices = _learnt(start, base, len(taken.slices))
        shown = start is not None and cases != 1 and start.config.head == "levels"
        on = taught_ids(taken.slices, taken.planes, known=shown)
        wanted, kept = tuple(label for label in paint.labels if label.id in on), set[int]()
        if start is not None:
            rename(start, paint)
            known = {label.id for label in start.labels}
            wanted = (*start.labels, *(label for label in wanted if label.id not in known))
            kept = known if cases != 1 else kept  # other patients have shown them
        missing = ", ".join(label.name for label in paint.labels if label.id not in on | kept)
        note = f"No painted pixel yet: {missing}." if missing else ""
        found = Corrections.since(last, stored, taken.slices)
        taken = taken._replace(slices=found.weighted(taken.slices))
        return cls(taken, wanted, start, base, note, cases, slices, found)


def start_of(
    from_model: bool | Literal["loaded"],
    segmenter: Segmenter | None,
    made: Round | None,
    rounds: Rounds,
) -> tuple[Segmenter, Round] | tuple[None, None]:
    """Find what a training begins at: a model and its round, or nothing for the backbone.

    Parameters
    ----------
    from_model
        As for :meth:`Trainer.train <napari_diffseg.session.trainer.Trainer.train>`.
    segmenter, made
        The model in use and its round.
    rounds
        All rounds.

    Raises
    ------
    SessionError
        If there is no model in use to go on from.
    """
    if from_model == "loaded":
        for loaded in [one for one in rounds.all if one.settings is None][-1:]:
            with suppress(SessionError):  # it was deleted to make room: begin at the backbone
                return rounds.model(loaded.number), loaded
    elif from_model:
        if segmenter is None or made is None:
            raise SessionError("there is no model to continue from; train from the base first")
        return segmenter, made
    return None, None


def stored_prediction(made: Round | None, rounds: Rounds) -> StoredPrediction | None:
    """Read what a round's model predicted; ``None`` where it cannot be read or there is none."""
    with suppress(SessionError):  # damaged: nobody knows then what was corrected
        return None if made is None else rounds.prediction(made.number)
    return None


def of_other_patients(segmenter: Segmenter | None, made: Round | None) -> bool:
    """Whether patients other than this one are behind the model of a round, or may be."""
    return _learnt(segmenter, made, 0)[0] != 1


def _learnt(start: Segmenter | None, base: Round | None, painted: int) -> tuple[int, int]:
    if start is None or base is None:
        return 1, painted
    card = start.card
    if not card.cases:  # of an earlier version of this program: nobody knows
        return 0, 0
    if base.settings is None:  # it was loaded, so this volume is another case
        return card.cases + 1, card.slices + painted
    return card.cases, card.slices - len(base.slices) + painted


def match_names(segmenter: Segmenter, paint: Paint) -> None:
    """Give a model's structures the ids and names of their namesakes here; adds what is missing."""
    ids = paint.adopt_by_name(segmenter.labels)
    labels = tuple(paint.label(int(ids[label.id])) for label in segmenter.labels)
    now = {old.name: new.name for old, new in zip(segmenter.labels, labels, strict=True)}
    single = tuple(now.get(name, name) for name in segmenter.card.single_pieces)
    segmenter.labels, segmenter.card = labels, replace(segmenter.card, single_pieces=single)


def rename(segmenter: Segmenter, paint: Paint) -> None:
    """Give a model's structures the names that they have now, after it was trained."""
    now = {label.id: label for label in paint.labels}
    segmenter.labels = tuple(now.get(label.id, label) for label in segmenter.labels)
