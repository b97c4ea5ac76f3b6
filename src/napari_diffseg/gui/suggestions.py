"""Which slice or plane to paint next, in the window."""

from __future__ import annotations

from collections.abc import Callable

from napari_diffseg.engine.suggest import Suggestion
from napari_diffseg.engine.suggest_plane import PlaneSuggestion
from napari_diffseg.session.session import Session

Found = list[Suggestion | PlaneSuggestion]

_SLICES = 3  # to ask for: who skips one gets the next at once


class Suggestions:
    """What the session of one volume suggests to paint next, the best first.

    Parameters
    ----------
    call
        Runs a function in the background, and another one with what it returned.
    changed
        Called when another one is marked.
    """

    def __init__(
        self,
        call: Callable[[Callable[[], Found], Callable[[Found], None]], None],
        changed: Callable[[], None],
    ) -> None:
        self._call, self._changed = call, changed
        self._found: Found = []

    @property
    def best(self) -> Suggestion | PlaneSuggestion | None:
        """The one that is marked."""
        return self._found[0] if self._found else None

    def on_axis(self, axis: str) -> dict[int, str]:
        """Place and reason of the one that is marked, if it is of ``transverse`` or this axis."""
        best = self.best
        if isinstance(best, PlaneSuggestion):
            return {best.index: best.reason} if best.axis == axis else {}
        return {best.z: best.reason} if best is not None and axis == "transverse" else {}

    def clear(self) -> None:
        """Forget them."""
        self._found = []

    def drop(self, z: int) -> None:
        """Suggest a slice no more, for it is painted."""
        self._found = [s for s in self._found if isinstance(s, PlaneSuggestion) or s.z != z]

    def ask(self, session: Session | None) -> None:
        """Ask the session; comparing all slices takes a while."""
        if session is not None and session.prediction.round_of.any():
            self._call(lambda: _of(session), self._take)
        self._changed()

    def skip(self) -> None:
        """Mark the next best one; the first comes again after the last."""
        self._found = self._found[1:] + self._found[:1]
        self._changed()

    def _take(self, found: Found) -> None:
        self._found = found
        self._changed()


def _of(session: Session) -> Found:
    plane = session.suggest_plane()
    return [*([plane] if plane is not None else []), *session.suggest(_SLICES)]
