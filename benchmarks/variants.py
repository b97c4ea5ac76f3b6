"""Pre-train variants of a configuration for the same processor time, and see what each is worth.

A variant changes a few settings of ``[train]`` or ``[unet]``. Each is trained for so many processor
seconds, then a pixel head learns on its frozen features from a few painted slices, as in
``gain.py``; its mean Dice within volumes and across patients is printed as a JSON line. Short runs
choose between ideas; they do not tell how good a backbone will be.

    python benchmarks/variants.py STORE LABELLED -o variants --seconds 300
    python benchmarks/variants.py STORE LABELLED -o variants --only starter even-noise
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import gain
import torch

from diffseg_training.checkpoint import NAME
from diffseg_training.config import load_recipe
from diffseg_training.cost import network_cost
from diffseg_training.release import load_trained
from diffseg_training.settings import Recipe
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
    card = {"steps": header.step}
    save_backbone(run / "averaged.safetensors", replace(backbone, card=card), torch.float32)
    return run / "averaged.safetensors", header.step


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder that prepare wrote")
    parser.add_argument("labelled", type=Path, help="folder of labelled volumes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--config", default="starter")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seconds", type=float, default=300, help="processor seconds of each")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--every", type=int, default=4, help="test every n-th slice")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    base = load_recipe(options.config)
    for name in options.only:
        change = VARIANTS[name]
        recipe = replace(
            base,
            name=name,
            unet=replace(base.unet, **change.get("unet", {})),
            train=replace(base.train, **change.get("train", {})),
        )
        file, steps = pretrain(recipe, options.store, options.output / name, options.seconds)
        measured = argparse.Namespace(
            **vars(options) | {
                "output": options.output / name / "gain.jsonl",
                "backbones": [str(file)],
                "strategies": ("linear",),
            }
        )  # fmt: skip
        scores: dict[str, list[float]] = defaultdict(list)
        for row in gain.measure(measured):
            where = "within" if row["train"] == row["test"] else "across"
            scores[f"{where}, {'random' if row['steps'] == 0 else 'pre-trained'}"].append(
                row["dice"]
            )
        cost = network_cost(recipe.unet)
        line = {
            "variant": name, "seconds": options.seconds, "steps": steps,
            "slices": steps * recipe.train.batch, "weights": cost.parameters,
            **{where: round(statistics.mean(found), 4) for where, found in scores.items()},
        }  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
