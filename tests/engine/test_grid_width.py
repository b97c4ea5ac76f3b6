"""The model grid follows what the machine is measured to do."""

from __future__ import annotations

import pytest
import torch

from napari_diffseg.engine import grid_width as module
from napari_diffseg.engine.grid_width import grid_width, seconds_per_slice
from napari_diffseg.network.device import native_bf16
from napari_diffseg.network.unet import UNetConfig

CPU = torch.device("cpu")
SMALL = UNetConfig(image_size=16, widths=(8, 8), blocks=1, attention=(), head_channels=8)
LARGE = UNetConfig(image_size=64, widths=(64, 64, 64), blocks=2, attention=(), head_channels=32)


def test_a_fast_network_gets_the_wide_grid_and_a_slow_one_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert grid_width(SMALL, CPU) == 24
    # Half as many points again take the same network twice as long, whatever the machine.
    monkeypatch.setattr(module, "MAX_SECONDS", seconds_per_slice(LARGE, 96, CPU) / 2)
    assert grid_width(LARGE, CPU) == 64
    assert grid_width(SMALL, CPU) == 24


def test_measuring_leaves_the_random_numbers_of_a_training_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    seconds_per_slice.cache_clear()
    assert seconds_per_slice(SMALL, 24, CPU) > 0
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("limit", ["AVX2", "avx512_core_bf16"])
def test_a_limit_on_the_instructions_also_means_float32(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert native_bf16(CPU)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert not native_bf16(CPU)
