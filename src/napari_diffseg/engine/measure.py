"""Numbers of each label: volume, density, surface, axes and extent."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_diffseg.io.labels import Label, LabelMap
from napari_diffseg.io.volume import Volume


@dataclass(frozen=True)
class Measurement:
    """Numbers of one label.

    Attributes
    ----------
    label
        Which one.
    voxels
        How many.
    volume_ml
        Voxels times the volume of one.
    mean_hu, sd_hu
        Mean and standard deviation of the CT's values in it.
    surface_cm2
        By Crofton's formula, so that the steps of the voxels do not count as surface.
    axes_mm
        Lengths of the axes of the ellipsoid with the same second moments, the longest first.
    extent_mm
        Of its bounding box, along (z, y, x).
    slices
        First and last slice.
    """

    label: Label
    voxels: int
    volume_ml: float
    mean_hu: float
    sd_hu: float
    surface_cm2: float
    axes_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    slices: tuple[int, int]


COLUMNS = {
    "id": "",
    "label": "",
    "voxels": "",
    "volume": "ml",
    "mean": "HU",
    "SD": "HU",
    "surface": "cm²",
    "axis 1": "mm",
    "axis 2": "mm",
    "axis 3": "mm",
    "extent z": "mm",
    "extent y": "mm",
    "extent x": "mm",
    "first slice": "",
    "last slice": "",
}
"""Columns of a table of measurements, with their units."""


def measure(volume: Volume, labels: LabelMap) -> tuple[Measurement, ...]:
    """Measure every label that has a voxel.

    Parameters
    ----------
    volume
        The CT.
    labels
        A mask on its grid.

    Returns
    -------
    In the order of the labels.

    Notes
    -----
    Lengths and surface are those of the grid's spacing: a tilted gantry's shear is left out of
    them, but not of the volume. The surface is estimated as in Lehmann and Legland, "Efficient
    N-dimensional surface estimation using Crofton formula and run-length encoding", Insight Journal
    (2012), as implemented by SimpleITK. The axes are those of PyRadiomics: four times the root of
    the variance along each.
    """
    import SimpleITK as sitk  # 50 MB that other commands can do without

    spacing = volume.geometry.spacing
    voxel_ml = abs(float(np.linalg.det(volume.geometry.affine[:3, :3]))) / 1000
    boxes = ndimage.find_objects(labels.mask)
    found = []
    for label in labels.labels:
        box = boxes[label.id - 1] if label.id <= len(boxes) else None
        if box is None:
            continue
        inside = labels.mask[box] == label.id
        hu = volume.hu[box][inside].astype(np.float64)
        image = sitk.GetImageFromArray(np.pad(inside, 1).astype(np.uint8))
        image.SetSpacing(spacing[::-1])
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.ComputePerimeterOn()
        shape.Execute(image)
        z, y, x = (float(n * step) for n, step in zip(inside.shape, spacing, strict=True))
        found.append(
            Measurement(
                label,
                int(inside.sum()),
                float(inside.sum()) * voxel_ml,
                float(hu.mean()),
                float(hu.std()),
                float(shape.GetPerimeter(1)) / 100,
                _axes(inside, spacing),
                (z, y, x),
                (int(box[0].start), int(box[0].stop) - 1),
            )
        )
    return tuple(found)


def _axes(inside: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[float, float, float]:
    points = np.argwhere(inside) * np.asarray(spacing)
    # A voxel is no point: it has an extent of its own.
    spread = np.cov(points.T, bias=True) + np.diag(np.square(spacing)) / 12
    long, middle, short = (4 * np.sqrt(np.linalg.eigvalsh(spread)[::-1])).tolist()
    return long, middle, short


def values(found: Measurement) -> tuple[Any, ...]:
    """Return the numbers of a measurement in the order of :data:`COLUMNS`."""
    return (
        *(found.label.id, found.label.name, found.voxels, found.volume_ml),
        *(found.mean_hu, found.sd_hu, found.surface_cm2, *found.axes_mm, *found.extent_mm),
        *found.slices,
    )


def to_csv(measurements: Sequence[Measurement]) -> str:
    """Write measurements as CSV, a row for each label, with a decimal point.

    Examples
    --------
    >>> print(to_csv([]).splitlines()[0][:26])
    id,label,voxels,volume ml,
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(f"{name} {unit}".strip() for name, unit in COLUMNS.items())
    for found in measurements:
        table.writerow(
            round(value, 4) if isinstance(value, float) else value for value in values(found)
        )
    return text.getvalue()
