"""An outline that follows edges: the cheapest path along the image's gradient between two clicks.

Mortensen & Barrett, Intelligent scissors for image composition, SIGGRAPH 1995; the paths are found
by scikit-image's ``MCP_Geometric``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import line, polygon
from skimage.graph import MCP_Geometric

_SIGMA = 1.0  # px of the Gaussian whose gradient is taken
_STRONG = 98.0  # percentile of the gradient that counts as a full edge
_FLOOR = 0.02  # cost of a pixel on a full edge, where one on none costs 1
_REACH = 160  # px around a click in which edges are followed; further away the path is straight


def edge_cost(plane: NDArray[np.generic], low: float, high: float) -> NDArray[np.float32]:
    """Cost of a path through each pixel of a slice, low on edges.

    Parameters
    ----------
    plane
        HU ``(y, x)``.
    low, high
        Window in HU: only edges that can be seen are followed.

    Returns
    -------
    float32 ``(y, x)``, 0.02 to 1.
    """
    seen = np.clip(plane.astype(np.float32), low, high)
    gradient = ndimage.gaussian_gradient_magnitude(seen, _SIGMA)
    full = float(np.percentile(gradient, _STRONG)) or 1.0
    weak = 1.0 - np.minimum(gradient / full, 1.0)
    return np.asarray(_FLOOR + (1.0 - _FLOOR) * weak**2, np.float32)


class EdgePaths:
    """Cheapest paths from one pixel ``(y, x)``, found once for all ends."""

    def __init__(self, cost: NDArray[np.float32], start: tuple[int, int]) -> None:
        self.start = start
        self._low = np.maximum(np.array(start) - _REACH, 0)
        self._high = np.minimum(np.array(start) + _REACH + 1, cost.shape)
        rows, columns = (slice(a, b) for a, b in zip(self._low, self._high, strict=True))
        self._paths = MCP_Geometric(cost[rows, columns])
        self._paths.find_costs([tuple(np.array(start) - self._low)])

    def to(self, end: tuple[int, int]) -> list[tuple[int, int]]:
        """Pixels from the start to ``end``, both included."""
        point = np.array(end)
        if ((point < self._low) | (point >= self._high)).any():
            rows, columns = line(*self.start, *end)
            return list(zip(rows.tolist(), columns.tolist(), strict=True))
        found = self._paths.traceback(tuple(point - self._low))
        return [(int(y + self._low[0]), int(x + self._low[1])) for y, x in found]


def filled(
    pixels: list[tuple[int, int]], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels on and inside a closed outline."""
    outline = np.array(pixels)
    mask = np.zeros(shape, bool)
    mask[polygon(outline[:, 0], outline[:, 1], shape)] = True
    mask[outline[:, 0], outline[:, 1]] = True
    rows, columns = np.nonzero(mask)
    return rows, columns
