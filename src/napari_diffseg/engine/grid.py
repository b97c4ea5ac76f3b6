"""Native transverse slice <-> model grid: body box, resampling, intensity, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Intensity
from napari_diffseg.network.losses import UNKNOWN

_AIR_HU = -1024.0
_MIN_BODY_HU = (
    -300.0
)  # HU; fat is -100, so this keeps skin and drops air and most of a foam mattress


@dataclass(frozen=True)
class SliceGrid:
    """The part of every slice that the network sees, and the grid on which it sees it.

    Attributes
    ----------
    box
        ``(y0, y1, x0, x1)`` in native pixels, half-open; may reach beyond the slice.
    shape
        Native slice shape ``(y, x)``.
    size
        Model grid ``(rows, columns)``.
    intensity
        HU to network values.
    """

    box: tuple[int, int, int, int]
    shape: tuple[int, int]
    size: tuple[int, int]
    intensity: Intensity

    @classmethod
    def of(
        cls,
        volume: Volume,
        width: int,
        multiple: int,
        intensity: Intensity,
        box: tuple[int, int, int, int] | None = None,
    ) -> SliceGrid:
        """Fit a grid to the body in ``volume``.

        Parameters
        ----------
        volume
            The CT.
        width
            Grid points along the wider side of the body box.
        multiple
            Both sides of the grid are multiples of this (two to the power of the network's
            halvings).
        intensity
            HU to network values.
        box
            ``(y0, y1, x0, x1)`` of the body, where it is known.
        """
        _, dy, dx = volume.geometry.spacing
        y0, y1, x0, x1 = body_box(volume.hu) if box is None else box
        pixel = max((y1 - y0) * dy, (x1 - x0) * dx) / width
        rows_cols = []
        for low, high, step in ((y0, y1, dy), (x0, x1, dx)):
            wanted = (high - low) * step / pixel
            rows_cols.append(max(multiple, int(np.ceil(wanted / multiple - 0.1)) * multiple))
        # Grow the box so that grid pixels are square in mm.
        grown = []
        for low, high, step, n in ((y0, y1, dy, rows_cols[0]), (x0, x1, dx, rows_cols[1])):
            side = max(high - low, round(n * pixel / step))
            start = (low + high - side) // 2
            grown += [start, start + side]
        shape = volume.hu.shape[1], volume.hu.shape[2]
        return cls(
            (grown[0], grown[1], grown[2], grown[3]), shape, (rows_cols[0], rows_cols[1]), intensity
        )

    def _crop(self, plane: NDArray[Any], fill: float) -> NDArray[Any]:
        y0, y1, x0, x1 = self.box
        height, width = self.shape
        inside = plane[..., max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
        pad = (
            *(((0, 0),) * (plane.ndim - 2)),
            (max(-y0, 0), max(y1 - height, 0)),
            (max(-x0, 0), max(x1 - width, 0)),
        )
        return np.pad(inside, pad, constant_values=fill)

    def image(self, hu: NDArray[Any]) -> Tensor:
        """Slices ``(n, y, x)`` in HU as network input ``(n, 1, rows, columns)`` in [-1, 1]."""
        cropped = self.intensity.to_model(self._crop(hu, _AIR_HU))
        return F.interpolate(
            torch.from_numpy(cropped)[:, None],
            size=self.size,
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )

    def target(self, classes: NDArray[np.uint8]) -> Tensor:
        """Class indices ``(n, y, x)`` on the grid, nearest neighbour, int64.

        A grid pixel that would be ``UNKNOWN`` takes a known class
        that falls into it, so that no thin stroke is lost.
        """
        cropped = torch.from_numpy(self._crop(classes, 0))
        resampled = F.interpolate(cropped[:, None].float(), size=self.size, mode="nearest-exact")
        on_grid = resampled[:, 0].long()
        if not (on_grid == UNKNOWN).any():
            return on_grid
        n, y, x = (cropped != UNKNOWN).nonzero(as_tuple=True)
        at = (
            n,
            y * self.size[0] // cropped.shape[1],
            x * self.size[1] // cropped.shape[2],
        )
        missed = on_grid[at] == UNKNOWN
        on_grid[tuple(index[missed] for index in at)] = cropped[n, y, x][missed].long()
        return on_grid

    def native(self, scores: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Class probabilities on the grid, back on the native slice.

        Parameters
        ----------
        scores
            Probabilities ``(classes, rows, columns)``.

        Returns
        -------
        winner, probability
            The most probable class ``(y, x)`` (0 outside the box) and its probability.
        """
        y0, y1, x0, x1 = self.box
        height, width = self.shape
        # The most probable of K classes has 1 / K at least; most are far below that on the slice.
        likely = scores.amax(dim=(1, 2)) * len(scores) >= 1
        likely[0] = True
        probability = scores.new_zeros((y1 - y0, x1 - x0), dtype=torch.float32)
        winner = torch.zeros_like(probability, dtype=torch.uint8)
        for index in likely.nonzero()[:, 0].tolist():
            fine = F.interpolate(
                scores[None, index : index + 1].float(),
                size=(y1 - y0, x1 - x0),
                mode="bilinear",
                align_corners=False,
            )[0, 0]
            winner.masked_fill_(fine > probability, index)
            torch.maximum(probability, fine, out=probability)
        inside = (slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width)))
        part = (
            slice(max(-y0, 0), max(-y0, 0) + inside[0].stop - inside[0].start),
            slice(max(-x0, 0), max(-x0, 0) + inside[1].stop - inside[1].start),
        )
        classes = np.zeros(self.shape, np.uint8)
        certain = np.ones(self.shape, np.float32)
        classes[inside] = winner[part].cpu().numpy()
        certain[inside] = probability[part].cpu().numpy()
        return classes, certain

    def nearest(self, maps: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Maps ``(n, rows, columns)`` on the native slice ``(n, y, x)``; 0 outside the box."""
        y0, y1, x0, x1 = self.box
        (height, width), (rows, columns) = self.shape, self.size
        found = np.zeros((len(maps), height, width), maps.dtype)
        y, x = np.arange(max(y0, 0), min(y1, height)), np.arange(max(x0, 0), min(x1, width))
        row = ((y - y0 + 0.5) * rows / (y1 - y0)).astype(int)
        column = ((x - x0 + 0.5) * columns / (x1 - x0)).astype(int)
        for native, one in zip(found, maps, strict=True):  # each by itself, for they are many
            native[y[0] : y[-1] + 1, x[0] : x[-1] + 1] = one[row[:, None], column]
        return found


def body_box(hu: NDArray[Any]) -> tuple[int, int, int, int]:
    """Bounding box ``(y0, y1, x0, x1)`` of the largest body-dense object in ``hu`` (z, y, x)."""
    step = max(1, hu.shape[1] // 128), max(1, hu.shape[2] // 128)
    coarse = hu[:: max(1, hu.shape[0] // 64), :: step[0], :: step[1]] > _MIN_BODY_HU
    opened = ndimage.binary_opening(coarse, np.ones((1, 3, 3)))
    parts, count = ndimage.label(opened)
    if count == 0:
        return 0, hu.shape[1], 0, hu.shape[2]
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    _, rows, columns = ndimage.find_objects(parts)[largest - 1]
    return (
        max(0, (rows.start - 1) * step[0]),
        min(hu.shape[1], (rows.stop + 1) * step[0]),
        max(0, (columns.start - 1) * step[1]),
        min(hu.shape[2], (columns.stop + 1) * step[1]),
    )
