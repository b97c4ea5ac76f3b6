"""What the kinds of faults share: their figures, and how they are counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    """Outcome of some tries of one kind of fault.

    Attributes
    ----------
    tried, survived, lost
        Tries; those after which everything was as promised; those after which it was not.
    note
        What was lost, or what was measured; one line, without paths.
    """

    tried: int
    survived: int
    lost: int
    note: str = ""

    def __add__(self, other: Figures) -> Figures:
        notes = dict.fromkeys(note for note in (self.note, other.note) if note)
        return Figures(
            self.tried + other.tried,
            self.survived + other.survived,
            self.lost + other.lost,
            "; ".join(notes),
        )


@dataclass(frozen=True)
class Kind:
    """One kind of fault, and how to try it.

    Attributes
    ----------
    name
        On the command line.
    promise
        What must hold after each try: a sentence for the documentation.
    run
        ``run(count, seed, folder)`` makes ``count`` tries in an empty folder. The same seed makes
        the same tries.
    count
        Tries of a full run.
    chunk
        Tries that one call makes at most: a run can be stopped and resumed between two calls.
    """

    name: str
    promise: str
    run: Callable[[int, int, Path], Figures]
    count: int
    chunk: int = 10
