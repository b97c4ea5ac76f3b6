"""``napari-diffseg evaluate``: a mask against a reference."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_diffseg.cli.console import figure, table
from napari_diffseg.cli.options import slice_indices

if TYPE_CHECKING:
    from napari_diffseg.io.geometry import Geometry


class EvaluateError(ValueError):
    """Masks cannot be compared."""


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    parser.add_argument("mask", metavar="MASK", type=Path, help="mask to judge")
    parser.add_argument("reference", metavar="REFERENCE", type=Path, help="mask that is right")
    parser.add_argument(
        "--exclude-slices",
        metavar="Z,Z,...",
        type=slice_indices,
        default=(),
        help="slices that do not count, as in 'segment --slices' (the painted ones)",
    )
    parser.add_argument("--names", metavar="FILE", type=Path, help='JSON such as {"liver": 1}')
    parser.add_argument(
        "--absent",
        choices=("leave-out", "papers"),
        default="leave-out",
        help="a label absent from both masks is left out of the mean, or counts 0 as in the papers",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from napari_diffseg.engine.metrics import evaluate
    from napari_diffseg.io.labels import labels_for, load_names, unnamed
    from napari_diffseg.io.volume import read_labels

    names = load_names(args.names) if args.names else {}
    geometry = _common_grid(args.reference, args.mask)
    reference = read_labels(args.reference, geometry)
    mask = read_labels(args.mask, geometry)
    known = {label.id: label for label in mask.labels}
    for label in reference.labels:
        if label.name != unnamed(label.id) or label.id not in known:
            known[label.id] = label
    labels = labels_for([*known, *names], known.values(), names)
    if not labels:
        raise EvaluateError(f"{args.reference}: neither mask holds a label; nothing to compare")
    result = evaluate(
        mask.mask,
        reference.mask,
        geometry.spacing,
        labels,
        exclude_slices=args.exclude_slices,
        absent=args.absent,
    )
    if args.json:
        print(json.dumps(result.to_json(), indent=2, allow_nan=False))
        return 0
    rows = [
        (name, figure(s.dice), figure(s.jaccard), figure(s.hd95, 2), figure(s.surface_dice))
        for name, s in [*((s.label.name, s) for s in result.scores), ("mean", result.mean)]
    ]
    near = f"surface Dice {result.tolerance_mm:g} mm"
    print(table(("label", "Dice", "Jaccard", "HD95 mm", near), rows))
    print(f"{result.slices} slices evaluated; {result.rule}.")
    return 0


def _common_grid(*paths: Path) -> Geometry:
    """Return the grid of the first file that is a whole volume (DICOM-SEG, for one, is not)."""
    from napari_diffseg.io.geometry import VolumeError
    from napari_diffseg.io.volume import read_volume

    errors = []
    for path in paths:
        try:
            return read_volume(path).geometry
        except VolumeError as error:
            errors.append(error)
    raise errors[0]
