"""Planes that were painted after the last training: prediction needs their registration."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress

from napari_diffseg.engine.predict import register_new_planes
from napari_diffseg.engine.progress import Progress
from napari_diffseg.session.session import Session


def register_late_planes(session: Session) -> Generator[Progress, None, None]:
    """Register what was painted on planes since the last training, and keep it.

    Prediction would do it by itself, but on a large CT for many seconds before its first slice.
    Closing the iterator keeps nothing.

    Parameters
    ----------
    session
        With a model, or nothing is done.

    Yields
    ------
    Progress
        See :func:`~napari_diffseg.engine.predict.register_new_planes`.
    """
    segmenter, rounds = session.trainer.segmenter, session.rounds
    if segmenter is None:
        return
    painted = session.paint.planes.painted()
    found = yield from register_new_planes(segmenter, session.volume, painted, rounds.registration)
    with suppress(OSError):  # it is made again when needed, and predictions complain of a full disk
        rounds.keep_registration(found)
