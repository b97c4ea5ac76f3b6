"""What a network costs: parameters, floating-point operations, memory, and this machine's best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from napari_diffseg.network.unet import Stage, UNet, UNetConfig
from napari_diffseg.session import report


@dataclass(frozen=True)
class Cost:
    """Computed cost of one slice.

    Attributes
    ----------
    parameters
        Weights of the network.
    forward
        Floating-point operations of a forward pass (a multiply-add is two).
    step
        Floating-point operations of forward and backward.
    activations
        Bytes that autograd keeps between forward and backward, in float32.
    recomputed
        The same when stages are computed again: their inputs, and the largest stage's own.
    """

    parameters: int
    forward: int
    step: int
    activations: int
    recomputed: int

    def memory(self, micro_batch: int, bf16: bool, recompute: bool = False) -> int:
        """Bytes that training needs: weights, gradients, EMA, two Adam moments, activations."""
        kept = (self.recomputed if recompute else self.activations) // (2 if bf16 else 1)
        return self.parameters * 4 * 5 + kept * micro_batch


def network_cost(config: UNetConfig) -> Cost:
    """Count a network's cost on the meta device: no memory and no arithmetic is spent."""
    with torch.device("meta"):
        net = UNet(config)
        x = torch.empty(1, config.channels, config.image_size, config.image_size)
        t = torch.zeros(1, dtype=torch.long)
    own = {parameter.untyped_storage()._cdata for parameter in net.parameters()}
    stages: list[int] = []
    inputs: list[int] = []

    def counted(forward: Callable[[Tensor, Tensor | None], Tensor]) -> Any:
        def count(h: Tensor, embedding: Tensor | None) -> Tensor:
            inputs.append(h.untyped_storage().nbytes())
            with _Kept(own) as kept:
                result = forward(h, embedding)
            stages.append(kept.bytes)
            return result

        return count

    with FlopCounterMode(display=False) as forward, torch.no_grad():
        net(x, t)
    with FlopCounterMode(display=False) as both, _Kept(own) as kept:
        net(x, t).square().mean().backward()
    for stage in (module for module in net.modules() if isinstance(module, Stage)):
        stage.forward = counted(stage.forward)  # type: ignore[method-assign]
    net(x, t)
    return Cost(
        sum(parameter.numel() for parameter in net.parameters()),
        forward.get_total_flops(),
        both.get_total_flops(),
        kept.bytes,
        sum(inputs) + max(stages),
    )


class _Kept:
    """Context that adds up what autograd keeps, each storage once, without the weights."""

    def __init__(self, own: set[int]) -> None:
        self._own = own
        self._storages: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._storages[storage._cdata] = storage.nbytes()
        return tensor

    def __enter__(self) -> _Kept:
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__()

    @property
    def bytes(self) -> int:
        return sum(self._storages.values())


def best_matmul(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a large matrix product: what the machine can do."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    a @ b
    best, spent = float("inf"), 0.0
    while spent < seconds:
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return 2 * n**3 / best


def synchronize(device: torch.device) -> None:
    """Wait for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Peak bytes: of tensors on CUDA, of this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return report.peak_memory()
