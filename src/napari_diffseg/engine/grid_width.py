"""How fine a model grid the machine has time for."""

from __future__ import annotations

import time
from functools import lru_cache

import torch

from napari_diffseg.network.device import autocast, native_bf16
from napari_diffseg.network.unet import UNet, UNetConfig

MAX_SECONDS = 0.07
"""Seconds for a slice on the wide grid, at most: a training passes some 200 slices through the
network, which shall leave most of the usual minute for other work."""

_REPEATS = 3


def grid_width(config: UNetConfig, device: torch.device) -> int:
    """Model grid points across the body that the app's recipe takes.

    Half as many again as the backbone was trained on, which draws finer outlines
    (``docs/decisions/0002-app-recipe.md``); as many as it was where that takes too long here.

    Parameters
    ----------
    config
        Shape of the backbone's network.
    device
        Where it runs.
    """
    wide = config.image_size * 3 // 2
    return wide if seconds_per_slice(config, wide, device) <= MAX_SECONDS else config.image_size


@lru_cache
def seconds_per_slice(config: UNetConfig, width: int, device: torch.device) -> float:
    """Seconds that the network takes for a slice of ``width`` x ``width``, measured once.

    On a CPU processor time over the number of threads, which other programs do not change: the
    grid of a training shall not depend on what else runs.
    """
    layout = torch.contiguous_format
    if device.type == "cpu" and native_bf16(device):
        layout = torch.channels_last
    with torch.random.fork_rng(devices=[]):  # a training's seed stands already
        net = UNet(config).to(device, memory_format=layout)  # type: ignore[call-overload]
    image = torch.zeros(1, config.channels, width, width, device=device)
    found = []
    with torch.inference_mode(), autocast(device):
        net.decode_levels(net.encode(image))  # the first time something is allocated and tuned
        for _ in range(_REPEATS):
            began = _clock(device)
            net.decode_levels(net.encode(image))
            found.append(_clock(device) - began)
            if found[-1] > 2 * MAX_SECONDS:
                break  # whatever the others say, it is too slow
    return min(found)


def _clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    else:
        torch.mps.synchronize()
    return time.perf_counter()
