"""Multi-atlas label fusion: labelled patients are registered in 3D to the new one, and vote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from diffseg_training.benchmark.tasks import BenchmarkTask, Example, Mask, Outcome
from napari_diffseg.engine.annotations import class_maps
from napari_diffseg.engine.grid import body_box
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.losses import UNKNOWN

_SPACING = 4.0  # mm, of the images that are registered
_WINDOW = (-200.0, 300.0)  # HU that count
_MIN_OVERLAP = 80.0  # mm along the patient
_STEP = 8.0  # mm between the offsets along the patient that are tried
_MESH = 48.0  # mm between the knots of the B-spline
_LOCAL = 12.0  # mm, over which the likeness of an atlas is averaged
_SHARPNESS = 20.0  # how much the likelier atlas outweighs, per unit of squared difference


def multi_atlas(task: BenchmarkTask) -> Outcome:
    """Register every labelled volume to each tested one, and fuse their warped labels.

    Notes
    -----
    Offset along the patient by normalised correlation, then affine and B-spline registration by
    mutual information (Mattes et al., IEEE Trans. Med. Imaging 22, 2003), as SimpleITK has them;
    voting weighted by local likeness (Artaechevarria et al., IEEE Trans. Med. Imaging 28, 2009).
    Slices without paint, and what lies outside an atlas, have no vote.
    """
    atlases = [_Atlas(example, task.labels) for example in task.train if example.painted]
    ids = np.array([0, *(label.id for label in task.labels)], np.uint8)
    return Outcome(tuple(_segment(volume, atlases, ids) for volume in task.test))


class _Atlas:
    """A labelled volume: its image and its classes."""

    def __init__(self, example: Example, labels: Sequence[Label]) -> None:
        volume = example.volume
        self.image = _image(volume)
        self.centre, self.size = _body(volume)
        classes = np.full(volume.hu.shape, UNKNOWN, np.uint8)
        for slice_, drawn in zip(example.painted, class_maps(example.painted, labels), strict=True):
            classes[slice_.z] = drawn
        self.classes = _to_itk(classes, volume)


def _segment(volume: Volume, atlases: Sequence[_Atlas], ids: Mask) -> Mask:
    fixed, native = _image(volume), _to_itk(volume.hu.astype(np.float32), volume)
    votes = np.zeros((len(ids), *volume.hu.shape), np.float32)
    for atlas in atlases:
        transform = _register(fixed, _body(volume), atlas)
        moved = sitk.Resample(atlas.image, fixed, transform, sitk.sitkLinear, 0.0)
        unlike = sitk.SmoothingRecursiveGaussian((fixed - moved) ** 2, _LOCAL)
        weight = sitk.GetArrayFromImage(
            sitk.Resample(sitk.Exp(unlike * -_SHARPNESS), native, sitk.Transform())
        )
        classes = sitk.GetArrayFromImage(
            sitk.Resample(atlas.classes, native, transform, sitk.sitkNearestNeighbor, UNKNOWN)
        )
        for n in range(len(ids)):
            votes[n] += weight * (classes == n)
    winner: Mask = ids[votes.argmax(axis=0)]
    return winner


def _register(
    fixed: sitk.Image, body: tuple[NDArray[np.float64], NDArray[np.float64]], atlas: _Atlas
) -> sitk.Transform:
    """Transform from points of the new patient to points of the atlas."""
    affine = sitk.AffineTransform(3)
    centre, size = body
    scale = atlas.size / size
    affine.SetCenter([float(c) for c in centre])
    affine.SetMatrix(np.diag([*scale[:2], 1.0]).ravel().tolist())
    best = (np.inf, 0.0)
    metric = sitk.ImageRegistrationMethod()
    metric.SetMetricAsCorrelation()
    metric.SetInterpolator(sitk.sitkLinear)
    long, other = (image.GetSize()[2] * _SPACING for image in (fixed, atlas.image))
    for offset in np.arange(_MIN_OVERLAP - long, other - _MIN_OVERLAP + _STEP, _STEP):
        affine.SetTranslation([*(atlas.centre - centre)[:2].tolist(), float(offset)])
        metric.SetInitialTransform(affine, False)
        best = min(best, (metric.MetricEvaluate(fixed, atlas.image), float(offset)))
    affine.SetTranslation([*(atlas.centre - centre)[:2].tolist(), best[1]])
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(os.cpu_count() or 1)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([4, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(affine, True)
    method.Execute(fixed, atlas.image)
    mesh = [max(1, round(n * _SPACING / _MESH)) for n in fixed.GetSize()]
    spline = sitk.BSplineTransformInitializer(fixed, mesh)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(1e-5, 40)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    method.SetInitialTransform(spline, True)
    method.Execute(fixed, atlas.image)
    field = sitk.TransformToDisplacementField(
        sitk.CompositeTransform([affine, spline]),
        sitk.sitkVectorFloat64,
        fixed.GetSize(),
        fixed.GetOrigin(),
        fixed.GetSpacing(),
    )
    return sitk.DisplacementFieldTransform(field)


def _image(volume: Volume) -> sitk.Image:
    """The soft tissue of a volume on a grid of equal sides, in [0, 1]."""
    low, high = _WINDOW
    hu = np.clip((volume.hu.astype(np.float32) - low) / (high - low), 0, 1)
    image = sitk.SmoothingRecursiveGaussian(_to_itk(hu, volume), _SPACING / 2)
    size = [
        max(8, round(n * s / _SPACING))
        for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing([_SPACING] * 3)
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)


def _to_itk(array: NDArray[Any], volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(volume.geometry.spacing)])
    return image


def _body(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and size of the body in mm (x, y, z); along z, those of the volume."""
    y0, y1, x0, x1 = body_box(volume.hu)
    dz, dy, dx = volume.geometry.spacing
    low = np.array([x0 * dx, y0 * dy, 0.0])
    high = np.array([x1 * dx, y1 * dy, len(volume.hu) * dz])
    return (low + high) / 2, high - low
