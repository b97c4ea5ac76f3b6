"""Biomedisa's smart interpolation between painted slices, as its authors ship it."""

from __future__ import annotations

from diffseg_training.benchmark.baselines import Mask, PaintedSlices
from diffseg_training.benchmark.contours import fill_apart
from napari_diffseg.io.volume import Volume

# The package names none of what it needs.
_INSTALL = (
    "pip install biomedisa importlib_metadata medpy mpi4py numba opencv-python-headless pyopencl, "
    "and give the system MPI and OpenCL (Debian: libopenmpi3, pocl-opencl-icd)"
)
# It looks for OpenCL by the vendor's name, and does not know PoCL's, which runs on any processor.
_PROGRAM = """
import sys, numpy, pyopencl
from biomedisa.interpolation import smart_interpolation
device = next(d for p in pyopencl.get_platforms() for d in p.get_devices())
kind = "GPU" if device.type & pyopencl.device_type.GPU else "CPU"
platform = "opencl_" + device.platform.name.split()[0] + "_" + kind
found = smart_interpolation(
    numpy.load(sys.argv[3]), numpy.load(sys.argv[1]), platform=platform
)
numpy.save(sys.argv[2], found["regular"].astype(numpy.uint8))
"""


def biomedisa(volume: Volume, painted: PaintedSlices) -> Mask:
    """Fill the slices between painted ones with random walks that follow the image.

    Parameters and errors are those of :func:`~.contours.contour_interpolation`. It goes on
    beyond the outermost painted slices.

    Notes
    -----
    Lösel et al., Nature Communications 11, 5577 (2020), with the defaults of the package: ten
    walks of 4,000 steps from each painted pixel. It needs a GPU or PoCL (Debian:
    ``pocl-opencl-icd``).
    """
    return fill_apart(_PROGRAM, volume, painted, _INSTALL)
