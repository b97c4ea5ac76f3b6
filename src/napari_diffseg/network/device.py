"""Where the network runs, and in which precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from napari_diffseg.io.errors import UserError


class DeviceError(UserError):
    """The wanted device is not there, or its memory is too small."""


def pick_device(name: str = "auto") -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``mps`` into a device that exists.

    Raises
    ------
    DeviceError
        If the device is named but absent.
    """
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        # MPS lacks some operators that training needs; it is used only when asked for.
        name = "cuda" if found["cuda"] else "cpu"
    if not found.get(name, False):
        raise DeviceError(f"no {name} device on this machine: use --device auto or cpu")
    if name == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    return torch.device(name)


def native_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 here: recent CUDA cards, CPUs with AMX.

    The environment variable ``ONEDNN_MAX_CPU_ISA`` makes a CPU one of those that lack it.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    amx = limit in ("ALL", "DEFAULT") or "AMX" in limit
    return device.type == "cpu" and amx and bool(torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Mixed precision where the device has it, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device))


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to ``device``; to CUDA from pinned memory, without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn what torch raises when memory runs out into one line that says what helps.

    Raises
    ------
    DeviceError
        If it is the memory of a GPU.
    MemoryError
        If it is the main memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            "the GPU ran out of memory, even with one slice at a time: close other programs that "
            "use it, or compute on the CPU (--device cpu)"
        ) from error
    except RuntimeError as error:  # torch has no class of its own for it
        if "can't allocate memory" not in str(error):
            raise
        raise MemoryError(str(error).splitlines()[0]) from error
