"""``make demo``: the main job on the sample CT, headless, beside the baselines.

Four slices that hold every organ count as painted; the rest of the labelled range is the test.
Ours runs through the very command ``napari-diffseg segment``.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffseg_training.benchmark.baselines import nearest_copy, random_walker, shape_interpolation
from diffseg_training.benchmark.figures import pyplot
from diffseg_training.benchmark.protocols import in_volume, presence
from diffseg_training.extra import missing_extra
from napari_diffseg.cli import main as napari_diffseg
from napari_diffseg.cli.console import duration, figure, table
from napari_diffseg.engine.metrics import dice, mean_of
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.labels import Label, labels_for, load_names
from napari_diffseg.io.sample import sample_labels_path, sample_names_path, sample_volume_path
from napari_diffseg.io.volume import Volume, read_labels, read_volume

Mask = NDArray[np.uint8]
OURS = "ours"
_PAINTED = 4
_SHOWN = 6
_WINDOW = (-135.0, 215.0)  # W350 L40


@dataclass(frozen=True)
class Sample:
    """Files of a labelled CT: image, labels and their names."""

    volume: Path
    labels: Path
    names: Path


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A labelled CT, and which of its slices are painted and which tested.

    Attributes
    ----------
    volume
        The CT.
    truth
        uint8 ``(z, y, x)``.
    labels
        What is in it.
    painted, test
        Slice indices.
    """

    volume: Volume
    truth: Mask
    labels: tuple[Label, ...]
    painted: tuple[int, ...]
    test: tuple[int, ...]

    @classmethod
    def read(cls, sample: Sample) -> LabelledScan:
        """Read the files and choose the slices."""
        volume = read_volume(sample.volume)
        found = read_labels(sample.labels, volume.geometry)
        ids = [label.id for label in found.labels]
        labels = labels_for(ids, found.labels, load_names(sample.names))
        split = in_volume(volume.name, presence(found.mask, ids), _PAINTED)
        return cls(volume, found.mask, labels, split.train[0].slices, split.test[0].slices)

    def scores(self, mask: Mask) -> dict[int, float]:
        """Dice of each label on the tested slices."""
        test = list(self.test)
        return dice(mask[test], self.truth[test], [label.id for label in self.labels])


def demonstrate(sample: Sample, folder: Path, options: Sequence[str]) -> dict[str, float]:
    """Run the main job and the baselines; print the table; write mask, report and picture.

    Parameters
    ----------
    sample
        A labelled CT.
    folder
        Gets ``mask.nii.gz``, ``report.json`` and ``overlay.png``.
    options
        More options of ``napari-diffseg segment``, such as ``("--seconds", "60")``.

    Returns
    -------
    Mean Dice of each method on the tested slices.

    Raises
    ------
    VolumeError
        If the files are unusable, or a training failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scan = LabelledScan.read(sample)
    print(
        f"{len(scan.volume.hu)} slices, {len(scan.labels)} organs; painted: slices "
        f"{', '.join(map(str, scan.painted))}; tested: the other {len(scan.test)} of the "
        "labelled range",
        flush=True,
    )
    painted = {z: scan.truth[z] for z in scan.painted}
    report = ("--report", str(folder / "report.json"))
    methods: dict[str, Callable[[], Mask]] = {
        OURS: lambda: _segment(sample, scan, folder / "mask.nii.gz", (*options, *report)),
        "nearest copy": lambda: nearest_copy(scan.volume, painted),
        "interpolation": lambda: shape_interpolation(scan.volume, painted),
        "random walker": lambda: random_walker(scan.volume, painted),
        "scratch": lambda: _scratch(sample, scan, options),
    }
    scores: dict[str, dict[int, float]] = {}
    seconds: dict[str, float] = {}
    for number, (name, method) in enumerate(methods.items(), start=1):
        print(f"[{number}/{len(methods)}] {name}", file=sys.stderr, flush=True)
        began = time.perf_counter()
        mask = method()
        seconds[name] = time.perf_counter() - began
        scores[name] = scan.scores(mask)
        if name == OURS:
            draw(scan, mask, folder / "overlay.png")
    means = {name: mean_of(values.values()) for name, values in scores.items()}
    rows = [
        (label.name, *(figure(scores[name][label.id]) for name in methods)) for label in scan.labels
    ]
    rows.append(("mean", *(figure(means[name]) for name in methods)))
    rows.append(("time", *(duration(seconds[name]) for name in methods)))
    print("\nDice on the slices that were not painted (automatic labels as the reference)")
    print(table(("", *methods), rows))
    print(f"\nwritten: {', '.join(str(folder / name) for name in OUTPUTS)}")
    return means


OUTPUTS = ("mask.nii.gz", "report.json", "overlay.png")


def _segment(sample: Sample, scan: LabelledScan, output: Path, options: Sequence[str]) -> Mask:
    """Run ``napari-diffseg segment`` and read what it wrote."""
    code = napari_diffseg(
        [
            *("segment", str(sample.volume), "--labels", str(sample.labels), "-o", str(output)),
            *("--slices", ",".join(map(str, scan.painted)), "--names", str(sample.names)),
            *options,
        ]
    )
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise VolumeError("the demo stopped: napari-diffseg segment failed, see above")
    return read_labels(output, scan.volume.geometry).mask


def _scratch(sample: Sample, scan: LabelledScan, options: Sequence[str]) -> Mask:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "mask.nii.gz"
        return _segment(sample, scan, output, (*options, "--strategy", "scratch"))


def draw(scan: LabelledScan, mask: Mask, path: Path) -> None:
    """Draw tested slices with the outlines of the mask (solid) and the reference (dotted).

    Parameters
    ----------
    scan
        CT and reference.
    mask
        uint8 ``(z, y, x)``.
    path
        PNG to write.
    """
    from matplotlib.lines import Line2D

    plt = pyplot()

    columns = 3
    at = np.linspace(0, len(scan.test) - 1, min(_SHOWN, len(scan.test)) + 2)[1:-1]
    shown = sorted({scan.test[round(i)] for i in at})
    rows = math.ceil(len(shown) / columns)
    inside = scan.volume.hu > -500
    ys, xs = (np.flatnonzero(inside.any(axis=other)) for other in ((0, 2), (0, 1)))
    _, dy, dx = scan.volume.geometry.spacing
    height = 4 * (ys[-1] - ys[0]) * dy / ((xs[-1] - xs[0]) * dx)
    canvas, axes = plt.subplots(
        rows,
        columns,
        figsize=(4 * columns, (height + 0.3) * rows + 0.6),
        layout="constrained",
        squeeze=False,
    )
    for cell in axes.flat:
        cell.set_axis_off()
    for cell, z in zip(axes.flat, shown, strict=False):
        low, high = _WINDOW
        cell.imshow(scan.volume.hu[z], cmap="gray", vmin=low, vmax=high, aspect=dy / dx)
        for label in scan.labels:
            colour = [_hex(label)]
            for plane, style in ((mask[z], "solid"), (scan.truth[z], "dotted")):
                if (plane == label.id).any():
                    cell.contour(
                        plane == label.id, [0.5], colors=colour, linestyles=style, linewidths=1.3
                    )
        cell.set_xlim(xs[0], xs[-1])
        cell.set_ylim(ys[-1], ys[0])
        cell.set_title(f"slice {z}", fontsize="small")
    keys = [Line2D([], [], color=_hex(label), label=label.name) for label in scan.labels]
    keys.append(Line2D([], [], color="grey", linestyle="solid", label="predicted"))
    keys.append(Line2D([], [], color="grey", linestyle="dotted", label="reference"))
    canvas.legend(handles=keys, loc="outside lower center", ncols=7, fontsize="small")
    canvas.savefig(path, dpi=110)
    plt.close(canvas)


def _hex(label: Label) -> str:
    red, green, blue = label.colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo on the sample CT that ships in the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder to write")
    parser.add_argument("--seconds", default="60", help="seconds of training, for ours and scratch")
    args = parser.parse_args(argv)
    if lacking := missing_extra():
        print(f"demo: error: {lacking}", file=sys.stderr)
        return 1
    sample = Sample(sample_volume_path(), sample_labels_path(), sample_names_path())
    try:
        demonstrate(sample, args.output, ("--seconds", args.seconds))
    except KeyboardInterrupt:
        return 130
    except ValueError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
