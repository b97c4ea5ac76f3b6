"""A page with numbers and pictures of each label, in one HTML file without links."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_diffseg.engine.measure import COLUMNS, Measurement, measure, to_csv, values
from napari_diffseg.io.files import atomic_write, check_outputs
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.labels import LabelMap
from napari_diffseg.io.volume import Volume

_WINDOW = (-160.0, 240.0)  # HU; soft tissue, W400 L40
_WIDTH = 420  # px of a picture
_STYLE = """
body { font: 14px sans-serif; max-width: 1100px; margin: 2em auto; color: #222; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 3px 8px; border-bottom: 1px solid #ddd; text-align: right; }
th { font-weight: 600; } th small { font-weight: 400; color: #777; }
td:nth-child(2), th:nth-child(2) { text-align: left; }
.chip { display: inline-block; width: 11px; height: 11px; margin-right: 6px; }
figure { display: inline-block; margin: 1em 1em 0 0; } figcaption { color: #555; }
img { width: 420px; background: black; }
"""


def to_html(volume: Volume, labels: LabelMap, measurements: Sequence[Measurement]) -> str:
    """Write a page with the table, and for each label the slice where it is largest.

    Parameters
    ----------
    volume
        The CT.
    labels
        The mask that was measured.
    measurements
        As :func:`~napari_diffseg.engine.measure.measure` gives them.
    """
    heads = "".join(
        f"<th>{html.escape(name)} <small>{unit}</small></th>" for name, unit in COLUMNS.items()
    )
    rows = "".join(_row(found) for found in measurements)
    figures = "".join(_figure(volume, labels, found) for found in measurements)
    z, y, x = volume.hu.shape
    dz, dy, dx = volume.geometry.spacing
    notes = "".join(f"<p>Note: {html.escape(note)}.</p>" for note in volume.geometry.notes)
    name = html.escape(volume.name)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{name}</h1>"
        f"<p>{z} slices of {y} × {x} voxels of {dz:.3g} × {dy:.3g} × {dx:.3g} mm. "
        "For research. Not a medical device.</p>"
        f"{notes}<table><tr>{heads}</tr>{rows}</table>{figures}</body></html>\n"
    )


def write_measurements(path: Path, volume: Volume, labels: LabelMap) -> int:
    """Measure the labels of a CT, and write a table (``.csv``) or a page (``.html``).

    Returns
    -------
    Number of labels.

    Raises
    ------
    VolumeError
        If there is no label, or the file is called something else, or cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in (".csv", ".html"):
        raise VolumeError(f"{path}: unknown ending; use .csv or .html")
    check_outputs([path], [volume.geometry.source])
    found = measure(volume, labels)
    if not found:
        raise VolumeError(f"{path}: there is no label to measure; paint or predict one")
    text = to_csv(found) if ending == ".csv" else to_html(volume, labels, found)
    try:
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise VolumeError(f"{path}: cannot be written ({error.strerror})") from error
    return len(found)


def _row(found: Measurement) -> str:
    cells = []
    for column, value in zip(COLUMNS, values(found), strict=True):
        text = f"{value:.1f}" if isinstance(value, float) else html.escape(str(value))
        if column == "label":
            red, green, blue = found.label.colour
            text = f'<span class="chip" style="background: rgb({red},{green},{blue})"></span>{text}'
        cells.append(f"<td>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _figure(volume: Volume, labels: LabelMap, found: Measurement) -> str:
    first, last = found.slices
    areas = (labels.mask[first : last + 1] == found.label.id).sum(axis=(1, 2))
    z = first + int(areas.argmax())
    picture = base64.b64encode(_png(picture_of(volume, labels, z), volume)).decode()
    name = html.escape(found.label.name)
    return (
        f'<figure><img src="data:image/png;base64,{picture}" alt="{name} on slice {z}">'
        f"<figcaption>{name}, slice {z}</figcaption></figure>"
    )


def picture_of(volume: Volume, labels: LabelMap, z: int) -> NDArray[np.uint8]:
    """Draw a slice in the soft-tissue window, with the outline of every label; (y, x, 3)."""
    low, high = _WINDOW
    grey = np.clip((volume.hu[z].astype(np.float32) - low) / (high - low), 0, 1) * 255
    picture = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    for label in labels.labels:
        inside = labels.mask[z] == label.id
        picture[inside & ~ndimage.binary_erosion(inside)] = label.colour
    return picture


def _png(picture: NDArray[np.uint8], volume: Volume) -> bytes:
    """Encode a slice with square pixels."""
    _, dy, dx = volume.geometry.spacing
    rows, columns = picture.shape[:2]
    height = max(1, round(_WIDTH * rows * dy / (columns * dx)))
    stream = io.BytesIO()
    image = Image.fromarray(picture).resize((_WIDTH, height), Image.Resampling.NEAREST)
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
