"""One annotation session: what is painted, what was learnt from it, kept on disk as it changes.

A :class:`Session` has paint, a prediction, tools, rounds and a trainer, which share one log, and
can be recovered after a crash. :func:`learn_from` makes one model of :func:`earlier_sessions`, a
:class:`Queue` says which patient comes next, and :func:`predict_cohort` applies a saved model to
many volumes. All is headless; command line and window both drive it.
"""

from napari_diffseg.session.adapting import adapt_model
from napari_diffseg.session.cases import CaseFiles, read_cases
from napari_diffseg.session.cohort_prediction import CohortProgress, predict_cohort
from napari_diffseg.session.cohort_table import CaseResult
from napari_diffseg.session.earlier import EarlierSession, earlier_sessions
from napari_diffseg.session.journal import ReadOnlyError, SessionError, SessionInUseError
from napari_diffseg.session.late_planes import register_late_planes
from napari_diffseg.session.learning import learn_from, matched_labels
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.prediction import Prediction
from napari_diffseg.session.queue import CaseRow, Queue, QueuedCase
from napari_diffseg.session.readers import agreement_csv, read_as, readers_of
from napari_diffseg.session.review import RoundReview, review_round
from napari_diffseg.session.rounds import Round, Rounds
from napari_diffseg.session.session import Session
from napari_diffseg.session.tools import Changes, Proposal, Tools
from napari_diffseg.session.trainer import Trainer

__all__ = [
    "CaseFiles",
    "CaseResult",
    "CaseRow",
    "Changes",
    "CohortProgress",
    "EarlierSession",
    "Paint",
    "Prediction",
    "Proposal",
    "Queue",
    "QueuedCase",
    "ReadOnlyError",
    "Round",
    "RoundReview",
    "Rounds",
    "Session",
    "SessionError",
    "SessionInUseError",
    "SliceState",
    "Tools",
    "Trainer",
    "adapt_model",
    "agreement_csv",
    "earlier_sessions",
    "learn_from",
    "matched_labels",
    "predict_cohort",
    "read_as",
    "read_cases",
    "readers_of",
    "register_late_planes",
    "review_round",
]
