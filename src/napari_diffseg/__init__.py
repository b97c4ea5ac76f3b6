"""Segment every slice of a CT from a few painted ones, in napari or without a screen."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read when torch loads OpenMP. By default its threads spin while they wait for each other, which
# on a machine with other work (a viewer, a training) made steps seven times slower; see
# docs/decisions/0501-openmp-waits-passively.md. Whoever sets it otherwise is obeyed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from napari_diffseg.backbone import Backbone, load_backbone
    from napari_diffseg.finetune import TrainSettings
    from napari_diffseg.segmenter import Segmenter
    from napari_diffseg.session import Session
    from napari_diffseg.volume import Geometry, Label, Volume, read_labels, read_volume, write_mask

# The functions `finetune` and `predict` are not among these: Python binds these names to the
# modules as soon as anything imports them, so what the names meant would depend on the order.
_HOME = {
    "Backbone": "backbone",
    "Geometry": "volume",
    "Label": "volume",
    "Segmenter": "segmenter",
    "Session": "session",
    "TrainSettings": "finetune",
    "Volume": "volume",
    "load_backbone": "backbone",
    "read_labels": "volume",
    "read_volume": "volume",
    "write_mask": "volume",
}
__all__ = [
    "Backbone",
    "Geometry",
    "Label",
    "Segmenter",
    "Session",
    "TrainSettings",
    "Volume",
    "load_backbone",
    "read_labels",
    "read_volume",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    # Lazy: importing the package must not cost a second of torch, nor need Qt.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
