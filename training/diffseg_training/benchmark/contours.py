"""Morphological contour interpolation, as ITK and ITK-SNAP do it between painted slices."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from diffseg_training.benchmark.baselines import Mask, PaintedSlices, full_slices
from diffseg_training.benchmark.networks import NetworkError
from napari_diffseg.io.volume import Volume

_INSTALL = (
    "itk-morphologicalcontourinterpolation comes with make benchmark-env, or pip install "
    "'napari-diffseg[benchmarks]'"
)
# In a process of its own: ITK and PyTorch in one end it with a broken heap.
_PROGRAM = """
import sys, itk, numpy
image = itk.image_from_array(numpy.load(sys.argv[1]))
filled = itk.MorphologicalContourInterpolator(image, axis=2)
numpy.save(sys.argv[2], itk.array_from_image(filled))
"""


def contour_interpolation(volume: Volume, painted: PaintedSlices) -> Mask:
    """Interpolate the contours of every label between the painted slices that show it.

    Parameters and errors are those of :func:`~.baselines.nearest_copy`; nothing is painted
    beyond the outermost slices of a label, for it is no extrapolation.

    Raises
    ------
    NetworkError
        If the package is not installed, or fails.

    Notes
    -----
    Zukić et al., Insight Journal 2016 (contour interpolation in any dimension), in its authors'
    implementation. It looks at labels alone, not at the image. A painted slice without a label
    does not end that label there: an empty slice is an unpainted one to it.
    """
    return fill_apart(_PROGRAM, volume, painted, _INSTALL)


def fill_apart(program: str, volume: Volume, painted: PaintedSlices, install: str) -> Mask:
    """Let a package fill the slices between painted ones in a process of its own.

    Parameters
    ----------
    program
        Python that reads painted labels (uint8, 0 elsewhere) from the file ``argv[1]``, writes all
        labels to ``argv[2]``, and may read the CT, uint8 of -160 to 240 HU, from ``argv[3]``.
    volume, painted
        See :func:`~.baselines.nearest_copy`.
    install
        How to install it, for the error.

    Raises
    ------
    NetworkError
        If the package is not installed, or fails.
    """
    slices = full_slices(volume, painted)
    sparse = np.zeros(volume.hu.shape, np.uint8)
    for z, mask in slices.items():
        sparse[z] = mask
    with tempfile.TemporaryDirectory() as folder:
        given, found, seen = (Path(folder, f"{name}.npy") for name in ("given", "found", "seen"))
        np.save(given, sparse)
        np.save(seen, np.clip((volume.hu + 160) * (255 / 400), 0, 255).astype(np.uint8))
        done = subprocess.run(
            [sys.executable, "-c", program, given, found, seen], capture_output=True, text=True
        )
        if not found.exists():
            said = (done.stderr.strip() or done.stdout.strip() or "no result").splitlines()[-1]
            raise NetworkError(f"{said}; {install}")
        filled: Mask = np.load(found)
    for z, mask in slices.items():
        filled[z] = mask
    return filled
