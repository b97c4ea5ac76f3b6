"""Command line ``napari-diffseg-pretrain``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from diffseg_training import checkpoint
from diffseg_training.config import load_recipe
from diffseg_training.extra import missing_extra
from diffseg_training.settings import (
    ConvertSettings,
    EvaluateSettings,
    PackSettings,
    PrepareSettings,
    PretrainError,
    PretrainSettings,
    ReleaseSettings,
    SampleSettings,
)
from napari_diffseg.cli.options import add_settings, settings_from
from napari_diffseg.network.backbone import Backbone, Intensity, load_backbone, save_backbone

PROGRAM = "napari-diffseg-pretrain"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    if lacking := missing_extra():
        print(f"{PROGRAM}: error: {lacking}", file=sys.stderr)
        return 1
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Pre-train CT diffusion backbones.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("prepare", help="turn volumes into a store of slices")
    one.add_argument("inputs", nargs="+", type=Path, help="files and folders of CT volumes")
    one.add_argument("--out", type=Path, required=True, help="folder for the store")
    one.add_argument("--config", default="", help="name of a shipped configuration, or a .toml")
    add_settings(one, PrepareSettings)
    one.set_defaults(run=_prepare)

    one = commands.add_parser("pack", help="put a store into a few files that are easy to copy")
    one.add_argument("store", type=Path, help="folder that prepare wrote")
    one.add_argument("--out", type=Path, required=True, help="folder for the packs")
    one.add_argument("--config", required=True, help="name of a shipped configuration, or a .toml")
    add_settings(one, PackSettings)
    one.set_defaults(run=_pack)

    one = commands.add_parser("train", help="train, or resume, a backbone")
    one.add_argument("--config", required=True, help="name of a shipped configuration, or a .toml")
    one.add_argument("--data", type=Path, help="folder that prepare or pack wrote, or one pack")
    one.add_argument("--out", type=Path, help="folder for checkpoints and logs")
    one.add_argument(
        "--dry-run", type=int, metavar="STEPS",
        help="report cost and memory, take STEPS real steps on random images, and write nothing",
    )  # fmt: skip
    add_settings(one, PretrainSettings, show_defaults=False)
    one.set_defaults(run=_train)

    one = commands.add_parser("split", help="cut a checkpoint into small files")
    one.add_argument("checkpoint", type=Path, help="file that train wrote")
    one.add_argument("--out", type=Path, required=True, help="folder for the pieces")
    one.add_argument("--megabytes", type=float, default=16.0, help="largest size of one, in MiB")
    one.set_defaults(run=_split)

    one = commands.add_parser("join", help="put a checkpoint together from its pieces")
    one.add_argument("pieces", nargs="+", type=Path, help="the files that split wrote")
    one.add_argument("--out", type=Path, required=True, help="the checkpoint.safetensors to write")
    one.add_argument(
        "--averaged", action="store_true",
        help="write the averaged network alone, for which the first pieces are enough",
    )  # fmt: skip
    one.set_defaults(run=_join)

    one = commands.add_parser("sample", help="generate slices with a backbone")
    one.add_argument("backbone", help="name or file of a backbone, or a checkpoint")
    one.add_argument("--out", type=Path, required=True, help="folder for PNG grids and NIfTI")
    add_settings(one, SampleSettings)
    one.set_defaults(run=_sample)

    one = commands.add_parser("evaluate", help="FID, sFID, precision, recall and F1 of slices")
    one.add_argument("real", type=Path, help="folder that prepare wrote, or a volume")
    one.add_argument("generated", type=Path, help="volume that sample wrote")
    add_settings(one, EvaluateSettings)
    one.set_defaults(run=_evaluate)

    one = commands.add_parser("release", help="make a shipped backbone of a checkpoint")
    one.add_argument("checkpoint", type=Path, help="folder or file that train wrote")
    one.add_argument("--out", type=Path, required=True, help="folder of the registry")
    add_settings(one, ReleaseSettings)
    one.set_defaults(run=_release)

    one = commands.add_parser("convert", help="read guided-diffusion weights into a backbone")
    one.add_argument("weights", type=Path, help="its state dict, .pt or .safetensors")
    one.add_argument("--config", required=True, help="configuration with the network's shape")
    one.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    add_settings(one, ConvertSettings)
    one.set_defaults(run=_convert)
    return parser


def _prepare(options: argparse.Namespace) -> None:
    from diffseg_training.prepare import prepare
    from diffseg_training.store import SliceStore

    recipe = load_recipe(options.config) if options.config else None
    settings = settings_from(options, recipe.prepare if recipe else PrepareSettings())
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
        print(
            f"near-duplicates: {pair['slices']} slices of {pair['second']} are like slices of "
            f"{pair['first']}{across}"
        )


def _pack(options: argparse.Namespace) -> None:
    from diffseg_training.pack import SOFT_TISSUE, pack
    from diffseg_training.start import intensity_of
    from diffseg_training.store import SliceStore

    settings = settings_from(options, PackSettings())
    store = SliceStore(options.store)
    intensity = intensity_of(load_recipe(options.config).train, store, None)
    last = None
    for last in pack(store, options.out, intensity, settings):
        print(f"[{last.done}/{last.total}] volumes", flush=True)
    if last is None:
        raise PretrainError(f"{options.store}: holds no volumes")
    for path in last.files:
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    error = last.errors
    low, high = SOFT_TISSUE
    print(
        f"{last.bytes / 2**20:.1f} MiB in all; error in HU: largest {error['max']:.1f}, "
        f"root mean square {error['rms']:.2f}; from {low} to {high} HU "
        f"{error['max_soft_tissue']:.1f} and {error['rms_soft_tissue']:.2f}"
    )


def _train(options: argparse.Namespace) -> None:
    recipe = load_recipe(options.config)
    recipe = replace(recipe, train=settings_from(options, recipe.train))
    if options.dry_run is not None:
        from diffseg_training.dryrun import dry_run

        for line in dry_run(recipe, max(1, options.dry_run)):
            print(line, flush=True)
        return
    if options.data is None or options.out is None:
        raise PretrainError("train needs --data and --out")
    from diffseg_training.progress import describe
    from diffseg_training.train import Pretrainer

    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Pretrainer(recipe, options.data, options.out)
    # On a signal, save after the step that is running, so that nothing is lost.
    before = {
        number: signal.signal(number, lambda *_: trainer.stop())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        if trainer.leads:
            print(f"{recipe.name} on {trainer.device} from step {trainer.header.step}", flush=True)
        for progress in trainer.run():
            if trainer.leads:
                print(describe(progress), flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _split(options: argparse.Namespace) -> None:
    from diffseg_training.pieces import split

    for path in split(options.checkpoint, options.out, options.megabytes):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def _join(options: argparse.Namespace) -> None:
    from diffseg_training.pieces import join

    join(options.pieces, options.out, options.averaged)
    print(options.out)


def _sample(options: argparse.Namespace) -> None:
    import numpy as np

    from diffseg_training.generate import generate, write_figures

    settings = settings_from(options, SampleSettings())
    backbone = _backbone(options.backbone)
    finished = []
    for state in generate(backbone, settings):
        if state.hu is not None:
            finished.append(state.hu)
            print(f"[{state.done}/{state.count}] slices", flush=True)
    for path in write_figures(options.out, np.concatenate(finished)):
        print(path)


def _backbone(which: str) -> Backbone:
    """A backbone by name or file, or the averaged network of a checkpoint."""
    from diffseg_training.release import load_trained

    path = Path(which)
    if path.exists() and (path.is_dir() or path.name == checkpoint.NAME):
        return load_trained(path)[0]
    return load_backbone(which)


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from diffseg_training.features import features, load_slices, make_extractor
    from diffseg_training.quality import evaluate

    settings = settings_from(options, EvaluateSettings())
    extractor = make_extractor(settings)
    sets = []
    for place in (options.real, options.generated):
        pooled, spatial = [], []
        for done, first, second in features(load_slices(place), extractor, settings):
            pooled.append(first)
            spatial.append(second)
            print(f"{place.name}: {done} slices", file=sys.stderr)
        sets.append((torch.cat(pooled), torch.cat(spatial)))
    (real, real_spatial), (generated, generated_spatial) = sets
    quality = evaluate(real, generated, real_spatial, generated_spatial)
    print(json.dumps({"extractor": Path(settings.extractor).name, **asdict(quality)}, indent=1))


def _release(options: argparse.Namespace) -> None:
    from diffseg_training.release import release

    settings = settings_from(options, ReleaseSettings())
    path = release(options.checkpoint, options.out, settings)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _convert(options: argparse.Namespace) -> None:
    from diffseg_training.convert import convert, read_state_dict

    settings = settings_from(options, ConvertSettings())
    recipe = load_recipe(options.config)
    unet = convert(read_state_dict(options.weights), recipe.unet)
    try:
        intensity = Intensity(settings.hu, settings.value)
    except ValueError as error:
        raise PretrainError(f"hu, value: {error}") from error
    card = {"converted": "guided-diffusion layout"}
    name = options.out.stem
    save_backbone(options.out, Backbone(name, unet, intensity, settings.schedule, card))
    print(options.out)


if __name__ == "__main__":
    sys.exit(main())
