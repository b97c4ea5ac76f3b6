"""Figures of the benchmark: Dice against slices and seconds, and panels of masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffseg_training.benchmark.tables import Row, finished, grouped
from diffseg_training.benchmark.tasks import Mask, Scan
from napari_diffseg.io.labels import Label

_WINDOW = (-135.0, 215.0)  # W350 L40, the papers' abdomen window
_STYLES = ("-", "--", "-.", ":")


def curve(
    rows: Sequence[Row], x: str, path: Path, titles: Callable[[str], str], figure: str = "dice"
) -> None:
    """Plot the mean of a figure against ``slices``, ``budget`` or ``steps``, one line a method.

    Parameters
    ----------
    rows
        Rows of one volume or several, which are averaged.
    x
        Field of the rows on the horizontal axis; methods without it get a level line.
    path
        PNG or SVG to write.
    titles
        Title of a method.
    figure
        Field on the vertical axis.
    """
    plt = pyplot()
    done = [row for row in finished(rows) if row[figure] is not None]
    at = sorted({row[x] for row in done if row[x] is not None})
    canvas, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for n, ((method,), own) in enumerate(grouped(done, "method").items()):
        points = grouped(own, x)
        if (None,) in points:
            xs, heights = at, [np.mean([r[figure] for r in points[(None,)]])] * len(at)
        else:
            xs = [value for value in at if (value,) in points]
            heights = [np.mean([r[figure] for r in points[(value,)]]) for value in xs]
        style = _STYLES[(n // 10) % len(_STYLES)]
        axes.plot(xs, heights, style, marker="o", markersize=3, label=titles(method))
    if len(at) > 1:
        axes.set_xscale("log")
    axes.set_xticks(at, [f"{value:g}" for value in at])
    axes.minorticks_off()
    names = {
        "slices": "painted slices",
        "budget": "nominal seconds of learning",
        "patients": "labelled patients",
    }
    axes.set(xlabel=names.get(x, x), ylabel=figure)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", ncols=2)
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


def cost(rows: Sequence[Row], path: Path, titles: Callable[[str], str]) -> None:
    """Plot the mean Dice against real seconds of learning and prediction, a line a method.

    Parameters
    ----------
    rows
        Rows of one protocol; each budget and number of steps is a point.
    path
        PNG or SVG to write.
    titles
        Title of a method.
    """
    plt = pyplot()
    done = [row for row in finished(rows) if row["dice"] is not None]
    canvas, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for n, ((method,), own) in enumerate(grouped(done, "method").items()):
        points = sorted(
            (
                float(np.mean([r["seconds"] for r in alike])),
                float(np.mean([r["dice"] for r in alike])),
            )
            for alike in grouped(own, "budget", "iterations").values()
        )
        style = _STYLES[(n // 10) % len(_STYLES)]
        marker = "os^D"[(n // 10) % 4]
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, style, marker=marker, markersize=5, label=titles(method))
    axes.set_xscale("log")
    axes.set(xlabel="seconds of learning and prediction", ylabel="dice")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="x-small", ncols=2)
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


def panels(
    scan: Scan,
    labels: Sequence[Label],
    masks: Mapping[str, Mask],
    slices: Sequence[int],
    path: Path,
) -> None:
    """Draw masks over the CT: the reference and each method across, slices down.

    Parameters
    ----------
    scan
        CT and reference.
    labels
        For the colours.
    masks
        Mask ``(z, y, x)`` of each method, by title.
    slices
        Slices to show.
    path
        PNG to write.
    """
    plt = pyplot()
    columns: dict[str, Mask] = {"reference": scan.reference, **masks}
    _, dy, dx = scan.volume.geometry.spacing
    canvas, axes = plt.subplots(
        len(slices),
        len(columns),
        figsize=(2.2 * len(columns), 2.2 * len(slices)),
        layout="constrained",
        squeeze=False,
    )
    for row, z in enumerate(slices):
        for column, (title, mask) in enumerate(columns.items()):
            cell = axes[row][column]
            cell.imshow(overlay(scan.volume.hu[z], mask[z], labels), aspect=dy / dx)
            cell.set_axis_off()
            if row == 0:
                cell.set_title(title, fontsize="small")
    canvas.savefig(path, dpi=120)
    plt.close(canvas)


def overlay(hu: NDArray[Any], mask: Mask, labels: Sequence[Label]) -> NDArray[np.float32]:
    """Colour a slice: grey CT in the abdomen window, labels half transparent; RGB in 0..1."""
    low, high = _WINDOW
    grey = ((hu.astype(np.float32) - low) / (high - low)).clip(0, 1)
    image = np.repeat(grey[..., None], 3, axis=-1)
    for label in labels:
        inside = mask == label.id
        image[inside] = 0.5 * image[inside] + 0.5 * np.array(label.colour, np.float32) / 255
    return image


def pyplot() -> Any:
    """Return matplotlib's pyplot, drawing without a display."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt
