"""``napari-diffseg measure`` and ``compare``: numbers of one mask, and of two."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_diffseg.cli.commands import CommandError
from napari_diffseg.cli.console import figure, table

if TYPE_CHECKING:
    from napari_diffseg.io.labels import LabelMap

_SHOWN = 10  # slices that differ most, on the screen


def add_measure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``measure``."""
    parser.add_argument("volume", metavar="IMAGE", type=Path, help="CT file or DICOM folder")
    parser.add_argument("labels", metavar="LABELS", type=Path, help="mask on its grid")
    parser.add_argument("--series", metavar="UID", help="which series of a DICOM folder")
    parser.add_argument("--names", metavar="FILE", type=Path, help='JSON such as {"liver": 1}')
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="table.csv, or report.html with pictures; default: a table on the screen",
    )
    parser.set_defaults(run=_measure, fail=parser.error)


def _measure(args: argparse.Namespace) -> int:
    from napari_diffseg.engine.measure import measure
    from napari_diffseg.engine.measure_report import write_measurements
    from napari_diffseg.io.files import check_outputs
    from napari_diffseg.io.volume import read_labels, read_volume

    output: Path | None = args.output
    if output is not None:
        if output.suffix.lower() not in (".csv", ".html"):
            args.fail(f"{output}: unknown ending; use .csv or .html")
        check_outputs([output], [args.volume, args.labels, args.names])
    volume = read_volume(args.volume, series=args.series)
    labels = _named(read_labels(args.labels, volume.geometry, part=True), args.names)
    if not labels.labels:
        raise CommandError(f"{args.labels}: holds no label; nothing to measure")
    if output is None:
        head = ("label", "ml", "mean HU", "SD HU", "surface cm²", "axes mm", "slices")
        rows = [
            (
                one.label.name,
                figure(one.volume_ml, 1),
                figure(one.mean_hu, 1),
                figure(one.sd_hu, 1),
                figure(one.surface_cm2, 1),
                " × ".join(figure(axis, 0) for axis in one.axes_mm),
                f"{one.slices[0]}–{one.slices[1]}",
            )
            for one in measure(volume, labels)
        ]
        print(table(head, rows))
        return 0
    print(f"{output}: {write_measurements(output, volume, labels)} labels")
    return 0


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``compare``."""
    parser.add_argument("a", metavar="A", type=Path, help="one mask")
    parser.add_argument("b", metavar="B", type=Path, help="another mask of the same CT")
    parser.add_argument(
        "--volume", metavar="IMAGE", type=Path, help="the CT, where neither mask holds its grid"
    )
    parser.add_argument("--names", metavar="FILE", type=Path, help='JSON such as {"liver": 1}')
    parser.add_argument(
        "-o", "--output", metavar="FILE.csv", type=Path, help="a row for each label"
    )
    parser.add_argument(
        "--slices",
        metavar="FILE.csv",
        type=Path,
        help="a row for each slice that differs, the most different first",
    )
    parser.set_defaults(run=_compare, fail=parser.error)


def _compare(args: argparse.Namespace) -> int:
    from napari_diffseg.engine.agreement import compare, matched
    from napari_diffseg.io.files import check_outputs
    from napari_diffseg.io.volume import read_labels
    from napari_diffseg.session.cohort_evaluation import common_grid

    outputs = [path for path in (args.output, args.slices) if path is not None]
    for path in outputs:
        if path.suffix.lower() != ".csv":
            args.fail(f"{path}: unknown ending; use .csv")
    check_outputs(outputs, [args.a, args.b, args.volume, args.names])
    geometry = common_grid(*((args.volume,) if args.volume else (args.a, args.b)))
    a = _named(read_labels(args.a, geometry, part=True), args.names)
    b = _named(read_labels(args.b, geometry, part=True), args.names)
    mask, labels = matched(a, b)
    if not labels:
        raise CommandError(f"{args.a}: neither mask holds a label; nothing to compare")
    found = compare(a.mask, mask, geometry.spacing, labels)
    if args.output:
        _write(args.output, found.labels_csv())
    if args.slices:
        _write(args.slices, found.slices_csv())
    rows = [
        (
            one.scores.label.name,
            figure(one.scores.dice),
            figure(one.scores.hd95, 2),
            figure(one.scores.surface_dice),
            figure(one.kappa),
        )
        for one in found.labels
    ]
    print(table(("label", "Dice", "HD95 mm", "surface Dice 2 mm", "kappa"), rows))
    if found.slices:
        shown = [
            (str(one.z), figure(one.differing_mm2, 0), figure(one.dice))
            for one in found.slices[:_SHOWN]
        ]
        print(f"{len(found.slices)} slices differ; those that differ most:")
        print(table(("slice", "mm²", "Dice"), shown))
    else:
        print("The masks are equal.")
    return 0


def _named(labels: LabelMap, names: Path | None) -> LabelMap:
    from dataclasses import replace

    from napari_diffseg.io.labels import labels_for, load_names

    if names is None:
        return labels
    ids = [label.id for label in labels.labels]
    return replace(labels, labels=labels_for(ids, labels.labels, load_names(names)))


def _write(path: Path, text: str) -> None:
    from napari_diffseg.io.files import atomic_write

    try:
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written ({error.strerror})") from error
