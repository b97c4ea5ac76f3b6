"""Segment every slice of a CT from a few painted ones, in napari or without a screen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_diffseg.backbone import Backbone, load_backbone
    from napari_diffseg.finetune import TrainSettings, finetune
    from napari_diffseg.predict import predict
    from napari_diffseg.segmenter import Segmenter
    from napari_diffseg.session import Session
    from napari_diffseg.volume import Geometry, Label, Volume, read_labels, read_volume, write_mask

_HOME = {
    "Backbone": "backbone",
    "Geometry": "volume",
    "Label": "volume",
    "Segmenter": "segmenter",
    "Session": "session",
    "TrainSettings": "finetune",
    "Volume": "volume",
    "finetune": "finetune",
    "load_backbone": "backbone",
    "predict": "predict",
    "read_labels": "volume",
    "read_volume": "volume",
    "write_mask": "volume",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # Lazy: importing the package must not cost a second of torch, nor need Qt.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
