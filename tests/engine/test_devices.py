"""Devices that are not here: what can be seen of them on a CPU."""

from __future__ import annotations

import traceback

import numpy as np
import pytest
import torch
from session_tools import LIVER, QUICK, tiny_backbone, tiny_volume
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from napari_diffseg.network.device import DeviceError, autocast, native_bf16, pick_device
from napari_diffseg.session import Session


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with MPS and without CUDA."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_mps_is_taken_when_asked_for_only(apple: None) -> None:
    assert pick_device("mps").type == "mps"
    assert pick_device("auto").type == "cpu"


def test_mps_computes_in_float32(apple: None) -> None:
    device = pick_device("mps")
    assert not native_bf16(device)
    with autocast(device):
        assert not torch.is_autocast_enabled("mps")


def test_mps_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no mps device"):
        pick_device("mps")


class _NoFloat64(TorchDispatchMode):
    """Notes every operation with a result that MPS cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        wide = (torch.float64, torch.complex64, torch.complex128)
        if any(isinstance(x, torch.Tensor) and x.dtype in wide for x in tree_leaves(result)):
            ours = [f for f in traceback.extract_stack() if "napari_diffseg" in f.filename]
            self.seen.add(f"{func} in {ours[-1].filename}:{ours[-1].lineno}" if ours else str(func))
        return result


def test_no_tensor_of_a_training_is_wider_than_mps_can_hold() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 8:16] = 1
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=False)
    for z in (0, 4):
        session.paint.set_slice(z, mask)
    with _NoFloat64() as mode:
        for _ in session.trainer.train(QUICK):
            pass
        assert len(list(session.trainer.predict())) == 6
    assert not mode.seen
