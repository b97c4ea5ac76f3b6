"""The small commands. Heavy modules are imported when a command runs."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_diffseg.cli.console import table


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
    if path is not None:
        from napari_diffseg.io.ahead import read_ahead

        read_ahead(path)
    # Half a second of the start would go into looking for garbage among all that is imported, of
    # which there is none; the panel allows it again once there is a picture.
    gc.disable()
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
