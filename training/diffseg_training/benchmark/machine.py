"""Speed of this machine at the moment, and memory that a process has needed."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from napari_diffseg.network.device import native_bf16, pick_device
from napari_diffseg.session import report
from napari_diffseg.session.report import environment

REFERENCE_GFLOPS = 1250.0
"""Matrix-product rate at which a nominal second of budget lasts one second.

Measured by :func:`product_rate` in bfloat16 on two idle cores with AMX tiles (x86-64, torch 2.13):
1,215 to 1,300.
"""
_WINDOW = 1.0  # s


def product_precision(device: torch.device) -> torch.dtype:
    """Return the precision in which networks run here, and so the product that is measured."""
    return torch.bfloat16 if native_bf16(device) else torch.float32


def product_rate(device: torch.device, seconds: float = _WINDOW) -> float:
    """Measure a matrix product, in 10⁹ floating-point operations a second.

    The product has the precision and the threads that the networks have. It is repeated for a
    while and the mean rate taken, so that whatever else runs on the machine counts.

    Parameters
    ----------
    device
        Where.
    seconds
        For how long.
    """
    side = 1024 if device.type == "cpu" else 8192
    a, b = (torch.rand(side, side, device=device).to(product_precision(device)) for _ in range(2))
    float((a @ b)[0, 0])  # the first one is slower
    began, products = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds:
        float((a @ b)[0, 0])  # waits for the device
        products += 1
    return 2 * side**3 * products / spent / 1e9


def real_seconds(nominal: float, gflops: float) -> float:
    """Seconds here and now that do the work of `nominal` seconds at the reference rate."""
    return nominal * REFERENCE_GFLOPS / gflops


def peak_memory() -> int:
    """Largest resident memory of this process or of a finished child of it, in bytes.

    Windows does not report that of a finished child.
    """
    try:
        import resource
    except ImportError:
        return report.peak_memory()
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    return max(report.peak_memory(), children)


def hardware(device: str) -> dict[str, Any]:
    """Describe program and machine for a row."""
    found = environment(device)
    found.pop("peak_memory_bytes")
    if torch.cuda.is_available() and found["device"] == "cuda":
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(pick_device(device))
    return found
