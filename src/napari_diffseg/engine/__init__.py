"""Learning from painted slices and predicting the others, as generators without state.

:func:`finetune` yields progress and at its end a segmenter; :func:`predict` yields slices.
:func:`prepare_cohort` and :func:`train_cohort` learn from several patients; :func:`adapt` lets such
a model learn from one more, without paint.
Registration, label propagation, random walker and metrics are its tools.
"""

from napari_diffseg.engine.adaptation import adapt
from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice, TrainError
from napari_diffseg.engine.cohort import Case, Cohort, prepare_cohort
from napari_diffseg.engine.cohort_training import leave_one_patient_out, train_cohort
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.metrics import dice, evaluate
from napari_diffseg.engine.planes import PaintedPlane
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import Progress, SlicePrediction
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.engine.suggest import Suggestion, suggest

__all__ = [
    "BACKGROUND",
    "Case",
    "Cohort",
    "PaintedPlane",
    "PaintedSlice",
    "Progress",
    "SlicePrediction",
    "Suggestion",
    "TrainError",
    "TrainSettings",
    "adapt",
    "dice",
    "evaluate",
    "finetune",
    "leave_one_patient_out",
    "predict",
    "prepare_cohort",
    "suggest",
    "train_cohort",
]
