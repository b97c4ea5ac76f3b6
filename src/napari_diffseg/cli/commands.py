"""All commands except ``segment``. Heavy modules are imported when a command runs."""

from __future__ import annotations

import argparse
import importlib.util
import json
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_diffseg.cli.console import ProgressLine, figure, table, uninterrupted
from napari_diffseg.cli.options import slice_indices

if TYPE_CHECKING:
    from napari_diffseg.io.geometry import Geometry

_DEVICES = ("auto", "cpu", "cuda", "mps")


class CommandError(ValueError):
    """A command cannot do what was asked."""


class Version(argparse.Action):
    """``--version`` without importing anything before it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print("napari-diffseg", version("napari-diffseg"))
        parser.exit()


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``predict``."""
    parser.add_argument("volumes", metavar="VOLUME", nargs="+", type=Path, help="CT file or folder")
    parser.add_argument("--model", metavar="FILE", type=Path, required=True, help="saved model")
    parser.add_argument(
        "-o", "--output", metavar="FOLDER", type=Path, required=True, help="folder for the masks"
    )
    parser.add_argument("--device", choices=_DEVICES, default="auto", help="where to run")
    parser.set_defaults(run=_predict, fail=parser.error)


def _predict(args: argparse.Namespace) -> int:
    from napari_diffseg.io.files import check_outputs
    from napari_diffseg.io.volume import stem
    from napari_diffseg.network.device import pick_device
    from napari_diffseg.network.segmenter import Segmenter

    outputs = [args.output / f"{stem(path.resolve())}.nii.gz" for path in args.volumes]
    twice = next((name for name in outputs if outputs.count(name) > 1), None)
    if twice is not None:
        args.fail(f"two volumes would both be written to {twice}: rename one")
    pick_device(args.device)
    if args.output.is_dir():
        check_outputs(outputs, [*args.volumes, args.model])
        for output in outputs:
            # The name is ours, not the user's, so it may replace nothing that lies beside a CT.
            if output.exists() and any(args.output.samefile(v.parent) for v in args.volumes):
                raise CommandError(f"{output}: exists beside a volume; choose another folder")
    elif args.output.exists():
        args.fail(f"{args.output}: is not a folder; the masks of all volumes go into one")
    args.output.mkdir(parents=True, exist_ok=True)
    segmenter = Segmenter.load(args.model)
    failed = 0
    for path, output in zip(args.volumes, outputs, strict=True):
        try:
            _predict_one(segmenter, path, output, args.device)
        except (ValueError, OSError) as error:
            failed += 1
            text = " ".join(str(error).split())
            named = text if str(path) in text else f"{path}: {text}"
            print(f"napari-diffseg: error: {named}", file=sys.stderr)
    return 1 if failed else 0


def _predict_one(segmenter: Any, path: Path, output: Path, device: str) -> None:
    import numpy as np

    from napari_diffseg.engine.predict import predict
    from napari_diffseg.io.volume import read_volume, write_mask

    volume = read_volume(path)
    mask = np.zeros(volume.hu.shape, np.uint8)
    with ProgressLine() as line:
        for note in volume.geometry.notes:
            line.say(f"napari-diffseg: warning: {path}: {note}")
        began = time.monotonic()
        for done, prediction in enumerate(predict(segmenter, volume, device=device), start=1):
            mask[prediction.z] = prediction.mask
            remaining = (time.monotonic() - began) / done * (len(mask) - done)
            line.update(f"predicting {path.name}", done, len(mask), remaining)
    with uninterrupted():
        write_mask(output, mask, volume.geometry, segmenter.labels)
    print(f"{output}: {len(mask)} slices, {len(segmenter.labels)} labels")


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
    geometry = common_grid(args.reference, args.mask)
    reference = read_labels(args.reference, geometry)
    mask = read_labels(args.mask, geometry)
    known = {label.id: label for label in mask.labels}
    for label in reference.labels:
        if label.name != unnamed(label.id) or label.id not in known:
            known[label.id] = label
    labels = labels_for([*known, *names], known.values(), names)
    if not labels:
        raise CommandError(f"{args.reference}: neither mask holds a label; nothing to compare")
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


def common_grid(*paths: Path) -> Geometry:
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


def add_open(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``open``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("volume", metavar="VOLUME", nargs="?", type=Path, help="CT file or folder")
    what.add_argument("--sample", action="store_true", help="open the sample CT")
    parser.set_defaults(run=_open)


def _open(args: argparse.Namespace) -> int:
    """Become napari: one process, so that closing the terminal closes the window."""
    for needed in ("napari", "qtpy"):
        if importlib.util.find_spec(needed) is None:
            raise CommandError(f'{needed} is not installed; run: pip install "napari-diffseg[gui]"')
    path: Path | None = args.volume
    if args.sample:
        from napari_diffseg.io.sample import sample_volume_path

        path = sample_volume_path()
    if path is not None and not path.exists():
        raise CommandError(f"{path}: no such file; check the path")
    words = [] if path is None else [str(path), "--plugin", "napari-diffseg"]
    sys.argv = ["napari", *words, "--with", "napari-diffseg"]
    # As `python -m napari` does: napari and Qt are imported by their own command only.
    runpy.run_module("napari", run_name="__main__")
    return 0


def add_backbones(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the sub-commands of ``backbones``."""
    subparsers = parser.add_subparsers(metavar="list|verify|import", required=True)
    for name, run, text in (
        ("list", _list_backbones, "list the backbones that can be used by name"),
        ("verify", _verify_backbones, "compare weights with their SHA-256"),
        ("import", _import_backbone, "copy a backbone into the user's folder"),
    ):
        command = subparsers.add_parser(name, parents=[common], help=text, description=text)
        command.set_defaults(run=run)
        if name == "verify":
            command.add_argument("names", metavar="NAME", nargs="*", help="default: all")
        if name == "import":
            command.add_argument("path", metavar="FILE|FOLDER", type=Path, help="the weights")


def _list_backbones(args: argparse.Namespace) -> int:
    from napari_diffseg.network.backbone import list_backbones

    entries = list_backbones()
    if not entries:
        raise CommandError("no backbone is installed: run napari-diffseg backbones import FILE")
    rows = [(e.name, e.source, (e.sha256 or "-")[:12], str(e.path)) for e in entries]
    print(table(("name", "source", "sha256", "file"), rows))
    return 0


def _verify_backbones(args: argparse.Namespace) -> int:
    from napari_diffseg.network.backbone import BackboneError, list_backbones, verify

    entries = {entry.name: entry for entry in list_backbones()}
    unknown = [name for name in args.names if name not in entries]
    if unknown:
        there = ", ".join(entries) or "none"
        raise CommandError(f"{unknown[0]}: no such backbone (installed: {there})")
    if not entries:
        raise CommandError("no backbone is installed: run napari-diffseg backbones import FILE")
    damaged = 0
    for name in args.names or entries:
        entry = entries[name]
        try:
            verify(entry)
        except BackboneError as error:
            damaged += 1
            print(f"napari-diffseg: error: {error}", file=sys.stderr)
        else:
            print(f"{name}: {'verified' if entry.sha256 else 'in no registry, not verified'}")
    return 1 if damaged else 0


def _import_backbone(args: argparse.Namespace) -> int:
    from napari_diffseg.network.backbone import import_backbone, load_backbone

    entry = import_backbone(args.path)
    load_backbone(entry.name)
    print(f"{entry.name}: imported to {entry.path}")
    return 0


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add ``doctor``, which has no options of its own."""
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from napari_diffseg.cli.doctor import examine

    well = True
    for finding in examine():
        mark = {True: "ok", False: "PROBLEM", None: "--"}[finding.ok]
        print(f"{mark:8}{finding.topic}: {finding.text}", flush=True)
        well = well and finding.ok is not False
    print("the engine works" if well else "the engine does not work here: see PROBLEM above")
    return 0 if well else 1
