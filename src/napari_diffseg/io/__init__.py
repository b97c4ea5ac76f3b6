"""Files to volumes and masks, and exactly back.

Every format is read into one canonical orientation and written on the grid of its source. Geometry
is never guessed: what has none is refused. Nothing here knows of networks or of napari.
"""

from napari_diffseg.io.dicom import Series, list_series
from napari_diffseg.io.files import atomic_write, check_outputs
from napari_diffseg.io.finding import FoundVolume, find_volumes
from napari_diffseg.io.geometry import Geometry, GridError, VolumeError
from napari_diffseg.io.labels import (
    MAX_LABEL,
    Label,
    LabelMap,
    class_indices,
    default_colour,
    labels_for,
    load_names,
)
from napari_diffseg.io.sample import sample_labels_path, sample_names_path, sample_volume_path
from napari_diffseg.io.volume import (
    Volume,
    read_labels,
    read_volume,
    stem,
    write_mask,
    write_volume,
)

__all__ = [
    "MAX_LABEL",
    "FoundVolume",
    "Geometry",
    "GridError",
    "Label",
    "LabelMap",
    "Series",
    "Volume",
    "VolumeError",
    "atomic_write",
    "check_outputs",
    "class_indices",
    "default_colour",
    "find_volumes",
    "labels_for",
    "list_series",
    "load_names",
    "read_labels",
    "read_volume",
    "sample_labels_path",
    "sample_names_path",
    "sample_volume_path",
    "stem",
    "write_mask",
    "write_volume",
]
