"""Segment every slice of a CT from a few painted ones, in napari or headless."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read when torch loads OpenMP. By default its threads spin while they wait for each other, which
# on a machine with other work (a viewer, a training) made steps seven times slower; see
# docs/decisions/0501-openmp-waits-passively.md. Whoever sets it otherwise is obeyed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from napari_diffseg.engine.finetune import finetune
    from napari_diffseg.engine.predict import predict
    from napari_diffseg.engine.settings import TrainSettings
    from napari_diffseg.io.geometry import Geometry
    from napari_diffseg.io.labels import Label
    from napari_diffseg.io.volume import Volume, read_labels, read_volume, write_mask
    from napari_diffseg.network.backbone import Backbone, load_backbone
    from napari_diffseg.network.segmenter import Segmenter
    from napari_diffseg.session.session import Session

_HOME = {
    "Backbone": "network.backbone",
    "Geometry": "io.geometry",
    "Label": "io.labels",
    "Segmenter": "network.segmenter",
    "Session": "session.session",
    "TrainSettings": "engine.settings",
    "Volume": "io.volume",
    "finetune": "engine.finetune",
    "load_backbone": "network.backbone",
    "predict": "engine.predict",
    "read_labels": "io.volume",
    "read_volume": "io.volume",
    "write_mask": "io.volume",
}
__all__ = [
    "Backbone",
    "Geometry",
    "Label",
    "Segmenter",
    "Session",
    "TrainSettings",
    "Volume",
    "finetune",
    "load_backbone",
    "predict",
    "read_labels",
    "read_volume",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    # Lazy: importing the package must not cost a second of torch, nor need Qt.
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-diffseg")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
