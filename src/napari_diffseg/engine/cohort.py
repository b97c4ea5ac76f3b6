"""Learn one model from several patients, each painted in part or in full, with its own labels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice, TrainError, class_maps
from napari_diffseg.engine.grid import SliceGrid, body_box
from napari_diffseg.engine.grid_width import grid_width
from napari_diffseg.engine.pieces import single_pieces
from napari_diffseg.engine.progress import Budget, Progress
from napari_diffseg.engine.recipe import (
    TIMESTEP,
)
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label, default_colour, ids_in
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, Intensity
from napari_diffseg.network.device import pick_device
from napari_diffseg.network.losses import UNKNOWN
from napari_diffseg.network.segmenter import Segmenter, SegmenterConfig

_MAX_PAINTED = 160  # slices of one patient
_MAX_PREDICTED = 40  # slices of one patient
_MAX_CROPPED = 256  # points across the body of a case that is kept for later
_STORED = Intensity((-1024.0, 3071.0), (-1.0, 1.0))  # 12 bits, as scanners write them


@dataclass(frozen=True, eq=False)
class Case:
    """What is known about one patient.

    Attributes
    ----------
    volume
        The CT.
    painted
        Its painted slices.
    labels
        The structures that somebody looked for; all others are unknown there, not background.
    cropped
        Whether the volume is nothing but these slices, cut to the body (:func:`crop_case`): they
        are no neighbours, and there is nothing else to learn from.
    predicted
        Slices that a model of this very patient has labelled where it was sure, as scribbles.
    """

    volume: Volume
    painted: Sequence[PaintedSlice]
    labels: Sequence[Label]
    cropped: bool = False
    predicted: Sequence[PaintedSlice] = ()


def joint_labels(sets: Sequence[Sequence[Label]]) -> tuple[Label, ...]:
    """Join the structures of several patients by name, capitals aside.

    Each keeps its id where it is free; ids decide only between structures of one patient.

    Examples
    --------
    >>> liver, spleen = Label(1, "liver", (230, 159, 0)), Label(1, "Spleen", (0, 158, 115))
    >>> [(label.id, label.name) for label in joint_labels([[liver], [spleen, liver]])]
    [(1, 'liver'), (2, 'Spleen')]
    """
    found: dict[str, Label] = {}
    for labels in sets:
        for label in labels:
            if label_key(label) in found:
                continue
            taken = {other.id for other in found.values()}
            free = next(n for n in (label.id, *range(1, 256)) if n not in taken)
            if free == BACKGROUND:
                raise TrainError("the cases name more than 254 structures")
            colour = label.colour if free == label.id else default_colour(free)
            found[label_key(label)] = Label(free, label.name, colour)
    return tuple(sorted(found.values(), key=lambda label: label.id))


def label_key(label: Label) -> str:
    """By what structures of several patients are matched: the name, capitals aside."""
    return " ".join(label.name.casefold().replace("_", " ").split())


@dataclass(frozen=True, eq=False)
class Cohort:
    """Patients on the grid of the model: a few megabytes each.

    Attributes
    ----------
    cases
        Volumes and paint on the grid.
    labels
        The structures of all patients.
    unknown
        By patient, which classes nobody looked for ``(K,)``.
    grids
        By patient, the grid of the volume on the grid: one to one.
    single
        Ids of the structures that are one piece in every patient who is painted throughout.
    start
        What training begins at.
    config
        Of the segmenter.
    """

    cases: tuple[Case, ...]
    labels: tuple[Label, ...]
    unknown: tuple[Tensor, ...]
    grids: tuple[SliceGrid, ...]
    single: frozenset[int]
    start: Backbone | Segmenter
    config: SegmenterConfig


def prepare_cohort(
    cases: Sequence[Callable[[], Case | None]], start: Backbone | Segmenter, settings: TrainSettings
) -> Generator[Progress, None, Cohort]:
    """Read the cases one by one and bring them to the grid of the model.

    Parameters
    ----------
    cases
        Each reads a case when it is called, so that one volume is in memory at a time; ``None`` is
        left out.
    start
        Backbone, or a trained segmenter to go on from.
    settings
        Device, grid, timestep and strategy are used; the recipe must be the app's.

    Raises
    ------
    TrainError
        If no case holds a painted structure.
    """
    if settings.recipe != "app" or settings.strategy == "scratch":
        raise TrainError("cases are learnt with the app's recipe, strategy linear or decoder")
    device, budget = pick_device(settings.device), Budget(None)
    config = SegmenterConfig(
        strategy=settings.strategy,
        timestep=TIMESTEP if settings.timestep is None else settings.timestep,
        columns=settings.grid or grid_width(start.unet.config, device),
    )
    multiple = 2 ** (len(start.unet.config.widths) - 1)
    small, grids = [], []
    for done, read in enumerate(cases, start=1):
        case = read()
        if case is None:
            continue
        box = (0, case.volume.hu.shape[1], 0, case.volume.hu.shape[2]) if case.cropped else None
        grid = SliceGrid.of(case.volume, config.columns, multiple, start.intensity, box)
        shrunk, own = _on_grid(case, grid)
        small.append(shrunk)
        grids.append(own)
        left = budget.elapsed / done * (len(cases) - done)
        yield Progress("reading cases", done, len(cases), budget.elapsed, left)
    labels = joint_labels([case.labels for case in small])
    if not any(len(case.painted) for case in small):
        raise TrainError("no slice is painted in any case")
    unknown = []
    for case in small:
        there = {label_key(label) for label in case.labels}
        unknown.append(torch.tensor([False, *(label_key(label) not in there for label in labels)]))
    renamed = tuple(_renamed(case, labels) for case in small)
    single = _single_pieces(renamed)
    return Cohort(renamed, labels, tuple(unknown), tuple(grids), single, start, config)


def crop_case(case: Case) -> Case:
    """Keep some slices of a case only, cut to the body, at most 256 points across.

    These are the painted ones (160 at most) and some of the predicted ones (40 at most). A
    structure that is painted nowhere is taken off the labels: nobody may have looked for it.

    Parameters
    ----------
    case
        With its whole volume, from which the extent of the body is taken.
    """
    painted, predicted = _few(case.painted, _MAX_PAINTED), _few(case.predicted, _MAX_PREDICTED)
    y0, y1, x0, x1 = box = body_box(case.volume.hu)
    width = min(max(y1 - y0, x1 - x0), _MAX_CROPPED)
    grid = SliceGrid.of(case.volume, width, 1, _STORED, box)
    there = set(ids_in(np.stack([slice_.mask for slice_ in painted])))
    labels = tuple(label for label in case.labels if label.id in there)
    known = np.zeros(256, np.uint8)
    known[[*there, BACKGROUND]] = [*there, BACKGROUND]
    predicted = [replace(slice_, mask=known[slice_.mask]) for slice_ in predicted]
    chosen = [*painted, *predicted]
    volume = replace(case.volume, hu=case.volume.hu[[slice_.z for slice_ in chosen]])
    alone = [replace(slice_, z=n) for n, slice_ in enumerate(chosen)]
    parts = Case(volume, alone[: len(painted)], labels, True, alone[len(painted) :])
    return _on_grid(parts, grid)[0]


def _few(slices: Sequence[PaintedSlice], most: int) -> list[PaintedSlice]:
    """At most so many of the slices, evenly."""
    if len(slices) <= most:
        return list(slices)
    chosen = np.linspace(0, len(slices) - 1, most).round().astype(int)
    return [slices[n] for n in chosen]


def _on_grid(case: Case, grid: SliceGrid) -> tuple[Case, SliceGrid]:
    """Bring a case to the grid; the network then sees what it would see of the whole volume."""
    rows, columns = grid.size
    hu = np.empty((len(case.volume.hu), rows, columns), np.int16)
    for z, plane in enumerate(case.volume.hu):
        image = grid.image(plane[None])[0, 0].numpy()
        hu[z] = np.rint(grid.intensity.to_hu(image))
    spacing = case.volume.geometry.spacing
    affine = np.diag([1.0, 1.0, spacing[0], 1.0])
    volume = Volume(hu, Geometry.from_affine(affine, (columns, rows, len(hu))), case.volume.name)
    small, predicted = (
        [_mask_on_grid(slice_, case.labels, grid) for slice_ in _few(slices, most)]
        for slices, most in ((case.painted, _MAX_PAINTED), (case.predicted, _MAX_PREDICTED))
    )
    own = SliceGrid((0, rows, 0, columns), (rows, columns), (rows, columns), grid.intensity)
    return Case(volume, small, tuple(case.labels), case.cropped, predicted), own


def _mask_on_grid(slice_: PaintedSlice, labels: Sequence[Label], grid: SliceGrid) -> PaintedSlice:
    classes = grid.target(class_maps([slice_], labels))[0].numpy()
    ids = np.zeros(256, np.uint8)
    ids[1 : len(labels) + 1] = [label.id for label in labels]
    if not slice_.full:
        ids[0], ids[UNKNOWN] = BACKGROUND, 0
    return PaintedSlice(slice_.z, ids[classes], slice_.full)


def _renamed(case: Case, labels: Sequence[Label]) -> Case:
    """Give the paint of a case the ids that its structures have in the cohort."""
    ids = np.arange(256).astype(np.uint8)
    by_key = {label_key(label): label for label in labels}
    own = tuple(by_key[label_key(label)] for label in case.labels)
    for before, after in zip(case.labels, own, strict=True):
        ids[before.id] = after.id
    painted, predicted = (
        [replace(slice_, mask=ids[slice_.mask]) for slice_ in slices]
        for slices in (case.painted, case.predicted)
    )
    return replace(case, painted=painted, labels=own, predicted=predicted)


def _single_pieces(cases: Sequence[Case]) -> frozenset[int]:
    seen: set[int] = set()
    several: set[int] = set()
    for case in cases:
        full = [slice_.mask for slice_ in case.painted if slice_.full]
        if len(full) == len(case.volume.hu) and not case.cropped:
            mask = np.stack(full)
            there = set(ids_in(mask)) - {BACKGROUND}
            seen |= there
            several |= there - single_pieces(mask, there)
    return frozenset(seen - several)
