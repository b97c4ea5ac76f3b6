"""Command line ``napari-diffseg-pretrain``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffseg_training.config import (
    PrepareSettings,
    PretrainError,
    TrainSettings,
    add_options,
    load_recipe,
    overridden,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"napari-diffseg-pretrain: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-diffseg-pretrain", description="Pre-train CT diffusion backbones."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("prepare", help="turn volumes into a store of slices")
    one.add_argument("inputs", nargs="+", type=Path, help="files and folders of CT volumes")
    one.add_argument("--out", type=Path, required=True, help="folder for the store")
    one.add_argument("--config", default="", help="name of a shipped configuration, or a .toml")
    add_options(one, PrepareSettings)
    one.set_defaults(run=_prepare)

    one = commands.add_parser("train", help="train, or resume, a backbone")
    one.add_argument("--config", required=True, help="name of a shipped configuration, or a .toml")
    one.add_argument("--data", type=Path, required=True, help="folder that prepare wrote")
    one.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    add_options(one, TrainSettings, defaults=False)
    one.set_defaults(run=_train)
    return parser


def _prepare(options: argparse.Namespace) -> None:
    from diffseg_training.prepare import prepare
    from diffseg_training.store import SliceStore

    recipe = load_recipe(options.config) if options.config else None
    settings = overridden(recipe.prepare if recipe else PrepareSettings(), options)
    sources = recipe.sources if recipe else ()
    skipped = 0
    for done in prepare(options.inputs, options.out, settings, sources):
        skipped += bool(done.reason)
        what = f"skipped: {done.reason}" if done.reason else f"{done.slices} slices"
        print(f"[{done.done}/{done.total}] {done.name}: {what}", flush=True)
    manifest = SliceStore(options.out).manifest
    numbers = "  ".join(f"{name} {value:g}" for name, value in manifest["statistics"].items())
    for split in ("train", "validation"):
        own = [volume for volume in manifest["volumes"] if volume["split"] == split]
        patients = len({volume["patient"] for volume in own})
        print(f"{split}: {sum(v['slices'] for v in own)} slices of {patients} patients")
    print(f"skipped: {skipped} volumes\nHU over all voxels: {numbers}")
    for pair in manifest["duplicates"]:
        across = " ACROSS THE SPLIT" if pair["across_split"] else ""
        print(f"near-duplicates: {pair['slices']} slices of {pair['second']} are like slices of "
              f"{pair['first']}{across}")


def _train(options: argparse.Namespace) -> None:
    from diffseg_training.train import Trainer, describe

    recipe = load_recipe(options.config)
    recipe = replace(recipe, train=overridden(recipe.train, options))
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, options.data, options.out)
    # A polite end: save after the step that is running, so that nothing is lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: trainer.stop())
    if trainer.leads:
        print(f"{recipe.name} on {trainer.device} from step {trainer.header.step}", flush=True)
    for progress in trainer.run():
        if trainer.leads:
            print(describe(progress), flush=True)


if __name__ == "__main__":
    sys.exit(main())
