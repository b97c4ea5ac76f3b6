"""Labels propagated from painted coronal and sagittal planes to every transverse slice.

``docs/decisions/0005-planes.md`` has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_diffseg.engine.annotations import PaintedSlice, class_maps
from napari_diffseg.engine.grid import SliceGrid
from napari_diffseg.engine.planes import ARRAY_AXIS, Axis, PaintedPlane, crossed
from napari_diffseg.engine.progress import mapped
from napari_diffseg.engine.propagation import PropagatedLabels
from napari_diffseg.engine.registration import Registration, register
from napari_diffseg.io.labels import Label, class_indices
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Intensity
from napari_diffseg.network.losses import UNKNOWN

REACH_MM = 60.0
"""Points farther from a plane get nothing from it."""
FADE_MM = 15.0
"""Distance at which the weight of what a plane or a slice says has fallen to 1/e."""

_WEIGHT = 0.1  # of a plane against a slice that is as near

_PLAIN = Intensity((-2048.0, 4096.0), (-2048.0, 4096.0))  # HU as they are


@dataclass(frozen=True, eq=False)
class CrossRegistration:
    """Registration of neighbouring planes along one axis, near the painted ones.

    Attributes
    ----------
    first, last
        Grid rows or columns that it covers, half-open.
    registration
        Of these planes ``(levels, columns or rows)``, on pixels that are square in mm.
    """

    first: int
    last: int
    registration: Registration


@dataclass(frozen=True, eq=False)
class RegistrationAcross(Registration):
    """Registration of neighbouring slices, and of neighbouring planes along other axes."""

    across: Mapping[Axis, CrossRegistration]


def on_grid(grid: SliceGrid, axis: Axis, index: int) -> int | None:
    """Grid row or column of a plane; ``None`` outside the body's box."""
    low, high = grid.box[:2] if axis == "coronal" else grid.box[2:]
    if not low <= index < high:
        return None
    return int((index - low + 0.5) * grid.size[ARRAY_AXIS[axis] - 1] / (high - low))


def sources_on_grid(
    grid: SliceGrid, planes: Sequence[PaintedPlane], labels: Sequence[Label]
) -> dict[Axis, dict[int, Tensor]]:
    """Class maps of planes painted in full ``(z, columns or rows)``, by axis and place on the grid.

    Pixels outside the volume are background.
    """
    found: dict[Axis, dict[int, Tensor]] = {}
    table = class_indices(labels)
    for plane in planes:
        place = on_grid(grid, plane.axis, plane.index) if plane.full else None
        if place is None:
            continue
        low, high = grid.box[2:] if plane.axis == "coronal" else grid.box[:2]
        count = grid.size[2 - ARRAY_AXIS[plane.axis]]
        at = low + ((np.arange(count) + 0.5) * (high - low) / count).astype(int)
        inside = (at >= 0) & (at < plane.mask.shape[1])
        classes = table[plane.mask[:, at.clip(0, plane.mask.shape[1] - 1)]] * inside
        found.setdefault(plane.axis, {})[place] = torch.from_numpy(classes.astype(np.int64))
    return found


def seeds_on_grid(
    grid: SliceGrid, planes: Sequence[PaintedPlane], labels: Sequence[Label], shape: Sequence[int]
) -> Tensor:
    """Painted pixels of planes ``(z, rows, columns)``, uint8 class indices or ``UNKNOWN``."""
    seeds = torch.full((shape[0], *grid.size), UNKNOWN, dtype=torch.uint8)
    scribbled = [plane for plane in planes if not plane.full]
    for z in range(shape[0] if scribbled else 0):
        strokes = PaintedSlice(z, crossed(scribbled, z, shape), full=False)
        seeds[z] = grid.target(class_maps([strokes], labels))[0].byte()
    for axis, sources in sorted(sources_on_grid(grid, planes, labels).items()):
        for place, source in sources.items():
            line = seeds[:, place] if axis == "coronal" else seeds[:, :, place]
            line.copy_(source)
    return seeds


def register_planes(
    volume: Volume, grid: SliceGrid, planes: Sequence[PaintedPlane], known: Registration
) -> Generator[tuple[int, int], None, Registration]:
    """Register the neighbours of planes painted in full; ``known`` may hold some already.

    Yields
    ------
    done, count
        Pairs done so far, and how many there are.

    Returns
    -------
    Registration
        ``known`` itself where it holds all that is needed, or else with it added.
    """
    across = dict(known.across) if isinstance(known, RegistrationAcross) else {}
    places: dict[Axis, list[int]] = {}
    for plane in planes:
        place = on_grid(grid, plane.axis, plane.index) if plane.full else None
        if place is not None:
            places.setdefault(plane.axis, []).append(place)
    reach = math.ceil(REACH_MM / _pixel_mm(volume, grid))
    missing: list[tuple[Axis, int, int]] = []
    for axis, at in places.items():
        first = max(min(at) - reach, 0)
        last = min(max(at) + reach + 1, grid.size[ARRAY_AXIS[axis] - 1])
        old = across.get(axis)
        if old is None or first < old.first or last > old.last:
            missing.append((axis, first, last))
    if not missing:
        return known
    count, before = sum(last - first - 1 for _, first, last in missing), 0
    for axis, first, last in missing:

        def of_all(done: int, before: int = before) -> tuple[int, int]:
            return before + done, count

        pairs = register(*_turned(volume, grid, axis, first, last))
        across[axis] = CrossRegistration(first, last, (yield from mapped(pairs, of_all)))
        before += last - first - 1
    return RegistrationAcross(known.up, known.down, across)


def _pixel_mm(volume: Volume, grid: SliceGrid) -> float:
    """Side of a grid pixel in mm."""
    y0, y1, _, _ = grid.box
    return float((y1 - y0) * volume.geometry.spacing[1] / grid.size[0])


def _turned(
    volume: Volume, grid: SliceGrid, axis: Axis, first: int, last: int
) -> tuple[Volume, SliceGrid]:
    """Planes ``first`` to ``last`` of a volume as the slices of another one, and their grid."""
    plain = replace(grid, intensity=_PLAIN)
    planes = []
    for plane in volume.hu:
        hu = plain.image(plane[None])[0, 0]  # (rows, columns)
        planes.append(hu[first:last] if axis == "coronal" else hu[:, first:last].T)
    hu = torch.stack(planes, dim=1)  # (planes, z, columns or rows)
    height = len(volume.hu) * float(volume.geometry.spacing[0])
    size = max(1, round(height / _pixel_mm(volume, grid))), hu.shape[-1]
    hu = F.interpolate(hu[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    turned = replace(volume, hu=hu.round().numpy().astype(np.int16))
    return turned, SliceGrid((0, size[0], 0, size[1]), size, size, grid.intensity)


class CrossLabels:
    """Class probabilities that the planes of one axis give the points around them.

    Parameters
    ----------
    axis
        Of the planes.
    sources
        Class maps ``(z, columns or rows)``, int64, by grid row or column.
    across
        Covers all of them.
    pixel
        Side of a grid pixel in mm.
    classes
        Number of classes, background included.
    """

    def __init__(
        self,
        axis: Axis,
        sources: Mapping[int, Tensor],
        across: CrossRegistration,
        pixel: float,
        classes: int,
    ) -> None:
        self._axis, self._first, self._last = axis, across.first, across.last
        self._levels = int(across.registration.up.shape[2])
        self._slices = len(next(iter(sources.values())))
        at_level = ((torch.arange(self._levels) + 0.5) * self._slices / self._levels).long()
        propagated = PropagatedLabels(
            across.registration,
            {place - across.first: source[at_level] for place, source in sources.items()},
            classes,
        )
        planes = range(across.last - across.first)
        # (planes, classes, levels, columns or rows)
        self._planes = torch.stack([(propagated.at(n) * 255).round().byte() for n in planes])
        self._weights = torch.zeros(classes, len(planes))
        for place, source in sources.items():
            distance = (torch.arange(across.first, across.last) - place).abs() * pixel
            near = torch.where(distance <= REACH_MM, _WEIGHT * torch.exp(-distance / FADE_MM), 0.0)
            for shown in source.unique().tolist():
                self._weights[shown] = self._weights[shown].maximum(near)

    def at(self, z: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Class probabilities of slice ``z`` and their weights, ``(classes, rows, columns)``."""
        level = (z + 0.5) * self._levels / self._slices - 0.5
        level = min(max(level, 0.0), self._levels - 1.0)
        low = int(level)
        high = min(low + 1, self._levels - 1)
        below, above = (self._planes[:, :, n].float() / 255 for n in (low, high))
        p = torch.lerp(below, above, level - low).movedim(1, 0)  # (classes, planes, across)
        weights = self._weights[:, :, None].expand_as(p)
        found = torch.zeros(2, len(p), *size)
        if self._axis == "coronal":
            found[:, :, self._first : self._last] = torch.stack([p, weights])
        else:
            found[..., self._first : self._last] = torch.stack([p, weights]).mT
        return found[0], found[1]


@dataclass(frozen=True, eq=False)
class Crossing:
    """What painted planes say of the transverse slices.

    Attributes
    ----------
    propagated
        Labels of the planes painted in full, for each axis that has one.
    seeds
        Painted pixels ``(z, rows, columns)``, uint8 class indices or ``UNKNOWN``.
    spacing
        From slice to slice in mm.
    """

    propagated: tuple[CrossLabels, ...]
    seeds: Tensor
    spacing: float


def crossing_of(
    volume: Volume,
    grid: SliceGrid,
    planes: Sequence[PaintedPlane],
    labels: Sequence[Label],
    registration: Registration,
) -> Crossing | None:
    """Propagate planes; ``None`` without any. ``registration`` is of :func:`register_planes`."""
    if not planes:
        return None
    across = registration.across if isinstance(registration, RegistrationAcross) else {}
    pixel, classes = _pixel_mm(volume, grid), len(labels) + 1
    propagated = tuple(
        CrossLabels(axis, sources, across[axis], pixel, classes)
        for axis, sources in sources_on_grid(grid, planes, labels).items()
        if axis in across
    )
    seeds = seeds_on_grid(grid, planes, labels, volume.hu.shape)
    return Crossing(propagated, seeds, float(volume.geometry.spacing[0]))
