"""What the npe2 manifest points to: reading volumes, writing masks, the sample CT.

Thin covers over :mod:`napari_diffseg.io.volume`. A volume is in its layer's metadata, so that
the panel and the writer know the source grid exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.sample import sample_volume_path
from napari_diffseg.io.volume import Volume, read_volume, write_mask

VOLUME = "napari-diffseg volume"  # key of a CT layer's metadata: the Volume
GEOMETRY = "napari-diffseg geometry"  # key of a mask layer's metadata: the source Geometry
LABELS = "napari-diffseg labels"  # key of a mask layer's metadata: a tuple of Label
SOFT_TISSUE = (-160.0, 240.0)  # contrast limits in HU that a CT opens with (W400 L40)

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Offer to read files or DICOM folders, each as a volume of its own, as npe2 asks for."""
    paths = [path] if isinstance(path, str) else path
    return _read if all(Path(p).exists() for p in paths) else None


def _read(path: str | list[str]) -> list[LayerData]:
    paths = [path] if isinstance(path, str) else path
    return [volume_layer(read_volume(p)) for p in paths]


def volume_layer(volume: Volume) -> LayerData:
    """Describe the image layer of a CT: diagonal scale in mm, soft-tissue window."""
    return (
        volume.hu,
        {
            "name": volume.name,
            "scale": volume.geometry.spacing,
            "contrast_limits": SOFT_TISSUE,
            "colormap": "gray",
            "interpolation2d": "linear",
            "units": "mm",
            "metadata": {VOLUME: volume},
        },
        "image",
    )


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer on the source grid of its volume, as npe2 asks for.

    Raises
    ------
    VolumeError
        If the layer is not one of ours, so that its grid is not known.
    """
    metadata = meta.get("metadata", {})
    geometry = metadata.get(GEOMETRY)
    if not isinstance(geometry, Geometry):
        raise VolumeError(
            f"{path}: the layer {meta.get('name', '')!r} has no source grid; "
            "export masks of volumes that napari-diffseg has opened"
        )
    write_mask(path, np.asarray(data), geometry, metadata.get(LABELS, ()))
    return [path]


def open_sample() -> list[LayerData]:
    """Read the sample CT and, where a viewer is open, show the panel beside it."""
    from qtpy.QtCore import QTimer

    # The layer is added after this function returns; the panel comes once it is there.
    QTimer.singleShot(0, show_panel)
    return [volume_layer(read_volume(sample_volume_path()))]


def show_panel() -> None:
    """Dock the panel in the current viewer, or raise the one that is there."""
    import napari

    viewer = napari.current_viewer()
    if viewer is not None:
        viewer.window.add_plugin_dock_widget("napari-diffseg")
