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
    slices = full_slices(volume, painted)
    sparse = np.zeros(volume.hu.shape, np.uint8)
    for z, mask in slices.items():
        sparse[z] = mask
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "given.npy"), Path(folder, "found.npy")
        np.save(given, sparse)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, given, found], capture_output=True, text=True
        )
        if "Error" in done.stderr:
            raise NetworkError(
                f"{done.stderr.strip().splitlines()[-1]}; itk-morphologicalcontourinterpolation "
                "comes with make benchmark-env, or pip install 'napari-diffseg[benchmarks]'"
            )
        filled: Mask = np.load(found)
    for z, mask in slices.items():
        filled[z] = mask
    return filled
