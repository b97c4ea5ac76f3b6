"""Atlas prior: labelled patients, registered in 3D to a new one, say where structures are."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_diffseg.engine.grid import SliceGrid, body_box
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.atlas import SPACING, UNSEEN, Atlas

if TYPE_CHECKING:
    import SimpleITK as sitk

_WINDOW = (-200.0, 300.0)  # HU that count
_MIN_OVERLAP = 80.0  # mm along the patient
_OFFSETS = 8.0  # mm between the offsets along the patient that are tried
_MESH = 48.0  # mm between the knots of the B-spline
_LOCAL = 12.0  # mm, over which the likeness of an atlas is averaged
_SHARPNESS = 20.0  # how much the likelier atlas outweighs, per unit of squared difference
_DOUBT = 0.03  # share of the prior that is spread over all classes
_BLUR = 3.0  # mm, standard deviation: outlines of another patient are no better known

Bounds = NDArray[np.float64]


def make_atlas(volume: Volume, classes: NDArray[np.uint8]) -> Atlas:
    """Make an atlas of a labelled volume.

    Parameters
    ----------
    volume
        The CT.
    classes
        Class indices of the model ``(z, y, x)``; ``UNSEEN`` where nobody knows.
    """
    import SimpleITK as sitk

    image, labels = _tissue(volume), _to_itk(classes, volume)
    coarse = sitk.Resample(labels, image, sitk.Transform(), sitk.sitkNearestNeighbor, UNSEEN)
    return Atlas(
        torch.from_numpy(np.rint(sitk.GetArrayFromImage(image) * 255).astype(np.uint8)),
        torch.from_numpy(sitk.GetArrayFromImage(coarse)),
        torch.from_numpy(_body(volume)).float(),
    )


class AtlasPrior:
    """Class probabilities that atlases give to the slices of a volume.

    Parameters
    ----------
    votes
        Of each class ``(classes, z, y, x)`` on a grid of 4 mm; their sum is how sure the atlases
        are, 0 where none reaches.
    spacing
        Of the slices in mm.
    grid
        On which probabilities are wanted.
    pixel
        Side of the native pixels ``(y, x)`` in mm.
    """

    sources: tuple[int, ...] = ()
    """Slices that are painted: none."""

    def __init__(
        self,
        votes: NDArray[np.float32],
        spacing: float,
        grid: SliceGrid,
        pixel: tuple[float, float],
    ) -> None:
        self._votes, self._spacing = torch.from_numpy(votes), spacing
        y0, y1, x0, x1 = grid.box
        rows, columns = grid.size
        y = (y0 + (torch.arange(rows) + 0.5) * (y1 - y0) / rows - 0.5) * pixel[0] / SPACING
        x = (x0 + (torch.arange(columns) + 0.5) * (x1 - x0) / columns - 0.5) * pixel[1] / SPACING
        height, width = votes.shape[2:]
        self._where = torch.stack(
            torch.broadcast_tensors(
                (x / max(width - 1, 1) * 2 - 1)[None, :], (y / max(height - 1, 1) * 2 - 1)[:, None]
            ),
            dim=-1,
        )[None]

    def at(self, z: int) -> Tensor:
        """Class probabilities ``(classes, rows, columns)`` of slice ``z``."""
        place = z * self._spacing / SPACING
        low = min(int(place), self._votes.shape[1] - 1)
        high = min(low + 1, self._votes.shape[1] - 1)
        plane = torch.lerp(self._votes[:, low], self._votes[:, high], place - low)
        found = F.grid_sample(plane[None], self._where, padding_mode="border", align_corners=True)[
            0
        ]
        # What no atlas says is spread evenly, and a little of what they say.
        doubt = (1 - found.sum(dim=0)).clamp(min=0) + _DOUBT
        sure: Tensor = (found + doubt / len(found)) / (1 + _DOUBT)
        return sure / sure.sum(dim=0)

    def completes(self, z: int) -> bool:
        """Whether the answer has the head's opinion in it: never."""
        return False


def atlas_prior(
    volume: Volume, grid: SliceGrid, atlases: Sequence[Atlas], classes: int
) -> Generator[float, None, AtlasPrior]:
    """Register atlases to a volume, and collect their votes.

    Parameters
    ----------
    volume
        The CT.
    grid
        On which its slices are predicted.
    atlases
        One or more.
    classes
        Of the model, background included.

    Yields
    ------
    float
        The share that is done.

    Notes
    -----
    Offset along the patient by normalised correlation, then affine and B-spline registration by
    mutual information (Mattes et al., IEEE Trans. Med. Imaging 22, 2003), as SimpleITK has them;
    votes weighted by local likeness (Artaechevarria et al., IEEE Trans. Med. Imaging 28, 2009).
    """
    import SimpleITK as sitk

    fixed, body = _tissue(volume), _body(volume)
    size = fixed.GetSize()[::-1]
    votes = np.zeros((classes, *size), np.float32)
    total = np.zeros(size, np.float32)
    for done, atlas in enumerate(atlases):
        moving = _coarse(atlas.image.numpy().astype(np.float32) / 255)
        transform = yield from _registered(
            fixed, moving, body, atlas.body.double().numpy(), (done, len(atlases))
        )
        moved = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)
        unlike = sitk.SmoothingRecursiveGaussian((fixed - moved) ** 2, _LOCAL)
        weight = np.exp(-_SHARPNESS * sitk.GetArrayFromImage(unlike))
        labels = sitk.GetArrayFromImage(
            sitk.Resample(
                _coarse(atlas.classes.numpy()), fixed, transform, sitk.sitkNearestNeighbor, UNSEEN
            )
        )
        total += weight * (labels != UNSEEN)
        for n in range(classes):
            votes[n] += weight * (labels == n)
    votes /= np.maximum(total, 1e-6)
    for n in range(classes):
        votes[n] = ndimage.gaussian_filter(votes[n], _BLUR / SPACING)
    dz, dy, dx = volume.geometry.spacing
    return AtlasPrior(votes, float(dz), grid, (float(dy), float(dx)))


def _registered(
    fixed: sitk.Image, moving: sitk.Image, body: Bounds, other: Bounds, place: tuple[int, int]
) -> Generator[float, None, sitk.Transform]:
    """Transform from points of the volume to points of the atlas."""
    import SimpleITK as sitk

    done, count = place
    centre, there = body.mean(axis=0)[::-1], other.mean(axis=0)[::-1]  # x, y, z
    scale = ((other[1] - other[0]) / (body[1] - body[0]))[::-1]
    affine = sitk.AffineTransform(3)
    affine.SetCenter(centre.tolist())
    affine.SetMatrix(np.diag([*scale[:2], 1.0]).ravel().tolist())
    metric = sitk.ImageRegistrationMethod()
    metric.SetMetricAsCorrelation()
    metric.SetInterpolator(sitk.sitkLinear)
    best = (np.inf, 0.0)
    long, reach = fixed.GetSize()[2] * SPACING, moving.GetSize()[2] * SPACING
    least = min(_MIN_OVERLAP, 0.7 * long, 0.7 * reach)
    offsets = np.arange(least - long, reach - least + _OFFSETS, _OFFSETS)
    for offset in offsets:
        affine.SetTranslation([*(there - centre)[:2].tolist(), float(offset)])
        metric.SetInitialTransform(affine, False)
        best = min(best, (metric.MetricEvaluate(fixed, moving), float(offset)))
    affine.SetTranslation([*(there - centre)[:2].tolist(), best[1]])
    yield (done + 0.1) / count
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(torch.get_num_threads())
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([4, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(affine, True)
    method.Execute(fixed, moving)
    yield (done + 0.3) / count
    spline = sitk.BSplineTransformInitializer(
        fixed, [max(1, round(n * SPACING / _MESH)) for n in fixed.GetSize()]
    )
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(1e-5, 40)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    method.SetInitialTransform(spline, True)
    method.Execute(fixed, moving)
    yield (done + 0.9) / count
    return sitk.CompositeTransform([affine, spline])


def _tissue(volume: Volume) -> sitk.Image:
    """Soft tissue of a volume on a grid of 4 mm, in [0, 1]."""
    import SimpleITK as sitk

    low, high = _WINDOW
    hu = np.clip((volume.hu.astype(np.float32) - low) / (high - low), 0, 1)
    image = sitk.SmoothingRecursiveGaussian(_to_itk(hu, volume), SPACING / 2)
    size = [
        max(8, round(n * side / SPACING))
        for n, side in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing([SPACING] * 3)
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)


def _to_itk(array: NDArray[Any], volume: Volume) -> sitk.Image:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(side) for side in reversed(volume.geometry.spacing)])
    return image


def _coarse(array: NDArray[Any]) -> sitk.Image:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing([SPACING] * 3)
    return image


def _body(volume: Volume) -> Bounds:
    """Corners of the body in mm ``(2, 3)``, z, y, x; along z, those of the volume."""
    y0, y1, x0, x1 = body_box(volume.hu)
    corners = np.array([[0, y0, x0], [len(volume.hu), y1, x1]], np.float64)
    return corners * np.array(volume.geometry.spacing, np.float64)
