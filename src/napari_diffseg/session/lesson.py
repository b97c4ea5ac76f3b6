"""What one training learns from, and what it begins at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_diffseg.io.labels import Label
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.paint import Paint, Snapshot
from napari_diffseg.session.rounds import Round
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
    """

    taken: Snapshot
    labels: tuple[Label, ...]
    start: Segmenter | None
    base: Round | None
    note: str
    cases: int
    slices: int

    @classmethod
    def of(cls, paint: Paint, start: Segmenter | None, base: Round | None) -> Lesson:
        """Take the paint as it is now.

        Raises
        ------
        SessionError
            If there is nothing to learn from.
        """
        taken = paint.snapshot()
        on = taught_ids(taken.slices, taken.planes)
        missing = ", ".join(label.name for label in paint.labels if label.id not in on)
        note = f"No painted pixel yet: {missing}." if missing else ""
        wanted = tuple(label for label in paint.labels if label.id in on)
        if start is not None:
            rename(start, paint)
            known = {label.id for label in start.labels}
            wanted = (*start.labels, *(label for label in wanted if label.id not in known))
        cases, slices = _learnt(start, base, len(taken.slices))
        return cls(taken, wanted, start, base, note, cases, slices)


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
