"""How fast this machine is right now, and how much memory a process has needed."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from napari_diffseg.device import pick_device
from napari_diffseg.report import environment

REFERENCE_GFLOPS = 100.0
"""Matrix-product rate at which a nominal second of budget lasts one second."""


def matmul_gflops(device: torch.device, side: int = 1024, repeats: int = 9) -> float:
    """Measure a float32 matrix product: the median rate in 10⁹ floating-point operations a second.

    Parameters
    ----------
    device
        Where.
    side
        Rows and columns of both factors.
    repeats
        Products that are timed, after one that is not.
    """
    a, b = (torch.rand(side, side, device=device) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(seconds[1:]) / 1e9


def real_seconds(nominal: float, gflops: float) -> float:
    """Seconds here and now that do the work of `nominal` seconds at the reference rate."""
    return nominal * REFERENCE_GFLOPS / gflops


def peak_memory() -> int:
    """Largest resident memory of this process or of a finished child of it, in bytes."""
    # The kernel hands the parent's ru_maxrss down to a new program; VmHWM starts afresh.
    status = Path("/proc/self/status")
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        own = int(line.split()[1]) * 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return max(own, children)


def hardware(device: str) -> dict[str, Any]:
    """Describe program and machine for a row."""
    found = environment(device)
    found.pop("peak_memory_bytes")
    if torch.cuda.is_available() and found["device"] == "cuda":
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(pick_device(device))
    return found
