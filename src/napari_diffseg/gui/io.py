"""What the npe2 manifest points to: reading volumes, writing masks, the sample CT.

Thin covers over :mod:`napari_diffseg.io.volume`. A volume is in its layer's metadata, so that
the panel and the writer know the source grid exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_diffseg.io.ahead import volume_at
from napari_diffseg.io.geometry import Geometry, GridError, VolumeError
from napari_diffseg.io.labels import LabelMap
from napari_diffseg.io.sample import sample_volume_path
from napari_diffseg.io.volume import Volume, read_labels, read_volume, write_mask

VOLUME = "napari-diffseg volume"  # key of a CT layer's metadata: the Volume
GEOMETRY = "napari-diffseg geometry"  # key of a mask layer's metadata: the source Geometry
LABELS = "napari-diffseg labels"  # key of a mask layer's metadata: a tuple of Label
INCOMING = "napari-diffseg labels from a file"  # key of a mask layer's metadata: how they came
AXES = ("z", "y", "x")  # names of a canonical volume's axes, which napari shows beside its sliders
SOFT_TISSUE = (-160.0, 240.0)  # contrast limits in HU that a CT opens with (W400 L40)

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Offer to read files or DICOM folders, each as a volume of its own, as npe2 asks for."""
    paths = [path] if isinstance(path, str) else path
    return _read if all(Path(p).exists() for p in paths) else None


def _read(path: str | list[str]) -> list[LayerData]:
    paths = [path] if isinstance(path, str) else path
    volume = _open_volume()
    layers = []
    for one in map(Path, paths):
        labels = None if volume is None else _labels_of(one, volume)
        layers.append(volume_layer(volume_at(one)) if labels is None else labels)
    return layers


def _open_volume() -> Volume | None:
    """Volume of the uppermost CT of the current viewer."""
    import napari

    viewer = napari.current_viewer()
    layers = [] if viewer is None else list(viewer.layers)
    volumes = [layer.metadata[VOLUME] for layer in layers if VOLUME in layer.metadata]
    return volumes[-1] if volumes else None


def _labels_of(path: Path, volume: Volume) -> LayerData | None:
    """Labels layer of a file that holds labels of an open CT; None of another file.

    A file that could be either is taken for labels if it holds whole numbers from 0 to 254 only: a
    CT has air below 0.
    """
    if path.is_dir():
        return None
    try:
        found, how = read_for(path, volume)
    except VolumeError:
        return None
    return labels_layer(found, volume, path.name, how)


def read_for(path: Path, volume: Volume) -> tuple[LabelMap, str]:
    """Read labels for a volume; also says what was done to bring them onto its grid.

    Raises
    ------
    VolumeError
        If there are no usable labels at the path.
    """
    try:
        return read_labels(path, volume.geometry, part=True), ""
    except GridError:
        found = read_labels(path, volume.geometry, resample=True)
        return found, "They lie on another grid, and were resampled to the nearest voxel."


def labels_layer(labels: LabelMap, volume: Volume, name: str, how: str = "") -> LayerData:
    """Describe the layer of labels that lie on the grid of a volume."""
    metadata = {GEOMETRY: volume.geometry, LABELS: labels.labels, INCOMING: how}
    return (
        labels.mask,
        {
            "name": name,
            "scale": volume.geometry.spacing,
            "axis_labels": AXES,
            "units": "mm",
            "metadata": metadata,
        },
        "labels",
    )


def volume_layer(volume: Volume) -> LayerData:
    """Describe the image layer of a CT: diagonal scale in mm, soft-tissue window."""
    return (
        volume.hu,
        {
            "name": volume.name,
            "scale": volume.geometry.spacing,
            "axis_labels": AXES,
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
