"""PyTorch's compiler, which its optimisers load although nothing here is compiled."""

from __future__ import annotations

import importlib
import sys

from torch.utils import _triton


def load_compiler() -> None:
    """Load ``torch._dynamo`` without Triton, before the first optimiser does it with Triton.

    Triton comes with PyTorch's default build for Linux and brings an LLVM of its own. Loaded after
    the LLVM with which Mesa draws napari's canvas (in software, or on AMD's GPUs), it ends the
    process with a segmentation fault. Whoever compiles something later still finds Triton.
    """
    if "triton" in sys.modules or "torch._dynamo" in sys.modules:
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        importlib.import_module("torch._dynamo")
    finally:
        del sys.modules["triton"]
        _triton.has_triton_package.cache_clear()
