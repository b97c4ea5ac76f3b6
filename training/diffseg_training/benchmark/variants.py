"""Pre-train variants of a configuration for the same processor time, and see what each is worth.

A variant changes a few settings of ``[train]`` or ``[unet]``. Each is trained for so many processor
seconds, then a pixel head learns on its frozen features from a few painted slices, as in
:mod:`gain`; its mean Dice within volumes and across patients is printed as a JSON line. Short runs
choose between ideas; they do not say how good a backbone will be.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diffseg_training.benchmark import gain
from diffseg_training.checkpoint import NAME
from diffseg_training.config import load_recipe
from diffseg_training.cost import network_cost
from diffseg_training.release import load_trained
from diffseg_training.settings import Recipe
from diffseg_training.start import slices_seen
from diffseg_training.train import Pretrainer
from napari_diffseg.network.backbone import save_backbone

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "starter": {},
    "narrow": {"unet": {"widths": (16, 32, 48, 64, 96)}},
    "wide": {"unet": {"widths": (48, 96, 144, 192, 288)}},
    "even-noise": {"train": {"timestep_power": 1.0}},
    "high-noise": {"train": {"timestep_power": 0.5}},
    "whole-slices": {"train": {"crop": (1.0, 1.0)}},
    "zooms": {"train": {"crop": (0.25, 1.055)}},
    "grid-192": {"unet": {"image_size": 192, "attention": (24, 12)}},
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("store", type=Path, help="folder that prepare wrote")
    parser.add_argument("labelled", type=Path, help="folder of labelled volumes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--config", default="starter")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seconds", type=float, default=300, help="processor seconds of each")
    gain.add_trial(parser, gain.Trial(seeds=(0,), every=4))
    parser.set_defaults(run=_run)


def varied(base: Recipe, name: str) -> Recipe:
    """Return the recipe of a variant."""
    change = VARIANTS[name]
    return replace(
        base,
        name=name,
        unet=replace(base.unet, **change.get("unet", {})),
        train=replace(base.train, **change.get("train", {})),
    )


def pretrain(recipe: Recipe, store: Path, run: Path, seconds: float) -> tuple[Path, int]:
    """Train for `seconds` of processor time; return the averaged network's file and its steps."""
    run.mkdir(parents=True, exist_ok=True)
    settings = replace(recipe.train, log_every=1, threads=1, validate_every=10**9, keep_every=0)
    trainer = Pretrainer(replace(recipe, train=settings), store, run)
    began = time.process_time()
    for _ in trainer.run():
        if time.process_time() - began > seconds:
            trainer.stop()
    backbone, header = load_trained(run / NAME)
    card = {"slices_seen": slices_seen({"training": header.to_json()})}
    save_backbone(run / "averaged.safetensors", replace(backbone, card=card), torch.float32)
    return run / "averaged.safetensors", header.step


def gained(labelled: Path, backbone: Path, trial: gain.Trial, rows: Path) -> dict[str, float]:
    """Mean Dice within and across volumes, of random weights and of a backbone."""
    scores: dict[str, list[float]] = defaultdict(list)
    with rows.open("a") as stream:
        for row in gain.measure(labelled, [str(backbone)], ("linear",), trial):
            stream.write(json.dumps(row) + "\n")
            where = "within" if row["train"] == row["test"] else "across"
            start = "random" if row["seen"] == 0 else "pre-trained"
            scores[f"{where}, {start}"].append(row["dice"])
    return {where: round(statistics.mean(found), 4) for where, found in scores.items()}


def _run(arguments: argparse.Namespace) -> int:
    base = load_recipe(arguments.config)
    names: Sequence[str] = arguments.only
    for name in names:
        recipe, folder = varied(base, name), arguments.output / name
        file, steps = pretrain(recipe, arguments.store, folder, arguments.seconds)
        line = {
            "variant": name, "seconds": arguments.seconds, "steps": steps,
            "slices": steps * recipe.train.batch, "weights": network_cost(recipe.unet).parameters,
            **gained(arguments.labelled, file, gain.trial_of(arguments), folder / "gain.jsonl"),
        }  # fmt: skip
        print(json.dumps(line), flush=True)
    return 0
