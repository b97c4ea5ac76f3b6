"""Learn one model from several patients, and write it with its card."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from napari_diffseg.engine.cohort import Case, Cohort, joint_labels, label_key, prepare_cohort
from napari_diffseg.engine.cohort_training import train_cohort
from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.labels import Label
from napari_diffseg.network.backbone import Backbone, load_backbone
from napari_diffseg.network.card import ModelCard
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.journal import saving


def matched_labels(sets: Sequence[Sequence[Label]]) -> tuple[tuple[Label, int], ...]:
    """Say which structures a model of these patients will know, and how many patients have each.

    Names are matched, capitals and underscores aside.

    Examples
    --------
    >>> liver, spleen = Label(1, "liver", (230, 159, 0)), Label(1, "Spleen", (0, 158, 115))
    >>> found = matched_labels([[liver], [spleen, Label(4, "Liver", (1, 2, 3))]])
    >>> [(label.name, count) for label, count in found]
    [('liver', 2), ('Spleen', 1)]
    """
    count = Counter(key for labels in sets for key in {label_key(label) for label in labels})
    return tuple((label, count[label_key(label)]) for label in joint_labels(sets))


def cohort_card(
    cohort: Cohort, segmenter: Segmenter, licence: str = "", validation: Mapping[str, float] = {}
) -> ModelCard:
    """Make the card of a model that was learnt from a cohort.

    Parameters
    ----------
    cohort
        What it was learnt from.
    segmenter
        The model.
    licence
        Terms of use.
    validation
        Dice by label name of patients that were left out, where that was measured.
    """
    painted = [len(case.painted) for case in cohort.cases if case.painted]
    return ModelCard(
        cases=len(painted),
        slices=sum(painted),
        validation=validation,
        validation_kind="leave-one-patient-out" if validation else "",
        licence=licence,
        backbone=segmenter.card.backbone,
        single_pieces=tuple(x.name for x in cohort.labels if x.id in cohort.single),
    )


def learn_from(
    cases: Sequence[Callable[[], Case]],
    path: Path,
    settings: TrainSettings,
    backbone: Backbone | None = None,
) -> Generator[Progress, None, ModelCard]:
    """Learn one model from several patients, and write it.

    Closing the iterator gives the training up, and leaves a file that is there as it was.

    Parameters
    ----------
    cases
        Each reads a case when it is called: :class:`~.earlier.EarlierSession` or
        :class:`~.cases.CaseFiles`.
    path
        The model's file.
    settings
        How to train; the seconds include the reading.
    backbone
        What training begins at; ``None`` is the shipped one.

    Returns
    -------
    The model's card.

    Raises
    ------
    TrainError
        If nothing is painted.
    SessionError
        If a session stores no slices, or the model cannot be written.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> list(learn_from([], folder / "model.safetensors", TrainSettings()))
    Traceback (most recent call last):
    napari_diffseg.engine.annotations.TrainError: no slice is painted in any case
    """
    began = time.monotonic()
    start = load_backbone() if backbone is None else backbone
    cohort = yield from prepare_cohort(cases, start, settings)
    if settings.iterations is None and settings.seconds is not None:
        left = settings.seconds - (time.monotonic() - began)
        settings = replace(settings, seconds=max(left, 1.0))
    segmenter = yield from train_cohort(cohort, settings)
    segmenter.card = cohort_card(cohort, segmenter)
    with saving(f"{path}: cannot be written ({{reason}}); free some space"):
        path.parent.mkdir(parents=True, exist_ok=True)
        segmenter.save(path)
    return segmenter.card
