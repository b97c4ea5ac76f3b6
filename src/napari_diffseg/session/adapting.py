"""Adapt the model in use to a session's CT, before anybody has painted it."""

from __future__ import annotations

import time
from collections.abc import Generator

from napari_diffseg.engine.adaptation import adapt
from napari_diffseg.engine.progress import Progress
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.rounds import Round
from napari_diffseg.session.session import Session


def adapt_model(session: Session) -> Generator[Progress, None, None]:
    """Adapt the model in use to the CT without paint; it becomes a round of its own.

    Closing the iterator leaves the model as it was.

    Parameters
    ----------
    session
        With a model of other patients.

    Yields
    ------
    Progress
        See :func:`~napari_diffseg.engine.adaptation.adapt`.

    Raises
    ------
    SessionError
        If there is no model, or the adapted one, which is in use then, cannot be kept.
    """
    trainer, began = session.trainer, time.perf_counter()
    if trainer.segmenter is None or trainer.round is None:
        raise SessionError("there is no model yet; train, or load one")
    segmenter, base = trainer.segmenter, trainer.round
    adapted = yield from adapt(segmenter, session.volume)
    if adapted is segmenter:
        return
    seconds = {"total": round(time.perf_counter() - began, 3)}
    made = Round(session.rounds.next_number, parent=base.number, seconds=seconds)
    problem = trainer.take(made, adapted)
    if problem:
        raise SessionError(problem)
