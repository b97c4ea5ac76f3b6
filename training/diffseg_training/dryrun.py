"""Try a configuration on this machine: what it costs on paper, and a few real steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch

from diffseg_training.cost import best_matmul, network_cost, peak_memory, synchronize
from diffseg_training.diffusion import STEPS, add_noise, signal_levels
from diffseg_training.memory import keep_freed_memory
from diffseg_training.settings import Recipe
from napari_diffseg.network.device import autocast, native_bf16, pick_device
from napari_diffseg.network.unet import UNet


def dry_run(recipe: Recipe, steps: int) -> Iterator[str]:
    """Report a recipe's cost, then take real optimiser steps on random images.

    Yields
    ------
    str
        Lines of the report. Computed figures are called so; the others are measured.
    """
    settings, config = recipe.train, recipe.unet
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = pick_device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    low = native_bf16(device) and settings.precision == "auto"
    micro = settings.batch // settings.accumulate
    cost = network_cost(config)
    flops = cost.step * settings.batch
    need = cost.memory(micro, low, settings.checkpointing)
    yield (
        f"{recipe.name}: {cost.parameters / 1e6:.1f} M parameters, "
        f"{config.image_size}x{config.image_size}"
    )
    yield (
        f"computed: {cost.forward / 1e9:.1f} GFLOP a slice forward, {flops / 1e12:.2f} TFLOP a "
        f"step of {settings.batch} slices, {need / 1e9:.1f} GB in micro-batches of {micro}"
    )
    torch.manual_seed(settings.seed)
    layout = torch.channels_last if low else torch.contiguous_format
    net = UNet(config).to(device)
    net.to(memory_format=layout)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(net.parameters(), settings.learning_rate, fused=True)
    levels = signal_levels(settings.schedule).to(device)
    shape = (micro, config.channels, config.image_size, config.image_size)
    times = []
    for step in range(steps):
        synchronize(device)
        begun = time.perf_counter()
        total = 0.0
        optimiser.zero_grad()
        for _ in range(settings.accumulate):
            image = torch.rand(shape, device=device).mul(2).sub(1).contiguous(memory_format=layout)
            t, noise = torch.randint(STEPS, (micro,), device=device), torch.randn_like(image)
            with autocast(device) if low else nullcontext():
                predicted = net(add_noise(image, noise, t, levels), t)
            loss = (predicted.float() - noise).square().mean() / settings.accumulate
            loss.backward()
            total += loss.item()
        optimiser.step()
        synchronize(device)
        times.append(time.perf_counter() - begun)
        yield f"step {step + 1}: loss {total:.4f}, {times[-1]:.1f} s"
    best = best_matmul(device, torch.bfloat16 if low else torch.float32)
    speed = flops / min(times)
    precision = "bfloat16" if low else "float32"
    yield (
        f"measured: {speed / 1e9:.0f} GFLOP/s in {precision}, {100 * speed / best:.0f} % of the "
        f"best matrix product ({best / 1e9:.0f}); peak memory "
        f"{peak_memory(device) / 1e9:.1f} GB; {settings.iterations:,} steps would take "
        f"{min(times) * settings.iterations / 3600:,.0f} h here"
    )
