"""One annotation session: what is painted, what was learnt from it, kept on disk as it changes.

A :class:`Session` has paint, a prediction, tools, rounds and a trainer, which share one log, and
can be recovered after a crash. :func:`predict_cohort` applies a saved model to many volumes. All is
headless; command line and window both drive it.
"""

from napari_diffseg.session.cases import CaseFiles, read_cases
from napari_diffseg.session.cohort_prediction import CohortProgress, predict_cohort
from napari_diffseg.session.cohort_table import CaseResult
from napari_diffseg.session.journal import ReadOnlyError, SessionError, SessionInUseError
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.prediction import Prediction
from napari_diffseg.session.rounds import Round, Rounds
from napari_diffseg.session.session import Session
from napari_diffseg.session.tools import Changes, Proposal, Tools
from napari_diffseg.session.trainer import Trainer

__all__ = [
    "CaseFiles",
    "CaseResult",
    "Changes",
    "CohortProgress",
    "Paint",
    "Prediction",
    "Proposal",
    "ReadOnlyError",
    "Round",
    "Rounds",
    "Session",
    "SessionError",
    "SessionInUseError",
    "SliceState",
    "Tools",
    "Trainer",
    "predict_cohort",
    "read_cases",
]
