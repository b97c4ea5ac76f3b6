"""Jobs of ``gpu.py`` that segment: the app from Train to the whole volume, and the rivals."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

_SIDE = 512  # pixels of a slice, as scanners make them
_BUDGETS = (10.0, 30.0, 90.0, 180.0)  # s of training, until more of them bring nothing
_STALL = 0.005  # Dice that the next budget has to bring


def tell(**values: Any) -> None:
    """Write one line of results."""
    sys.stdout.write(json.dumps(values) + "\n")  # at once: several processes may write
    sys.stdout.flush()


def app(options: argparse.Namespace) -> None:
    """Seconds from Train to the whole volume, for each recipe and strategy."""
    import numpy as np

    from diffseg_training.benchmark.protocols import covering_slices, presence
    from napari_diffseg.engine.annotations import PaintedSlice
    from napari_diffseg.engine.settings import TrainSettings
    from napari_diffseg.io import sample_names_path
    from napari_diffseg.io.labels import labels_for, load_names
    from napari_diffseg.network.backbone import load_backbone

    volume, truth = _sample(options.rehearse)
    ids = sorted(int(i) for i in np.unique(truth) if i)
    labels = labels_for(ids, names=load_names(sample_names_path()))
    zs = covering_slices(presence(truth, ids), 4)
    painted = [PaintedSlice(z, truth[z], True) for z in zs]
    backbone = load_backbone()
    steps = 15 if options.rehearse else 1000
    runs: tuple[tuple[Any, Any, int | None, float | None], ...] = (
        ("app", "linear", None, 3.0), ("app", "linear", None, 3.0), ("app", "linear", 1200, None),
        ("app", "decoder", steps, None), ("paper", "linear", steps, None),
        ("paper", "decoder", steps, None),
    )  # fmt: skip
    for number, (recipe, strategy, iterations, seconds) in enumerate(runs):
        if options.rehearse and iterations:
            iterations = steps
        settings = TrainSettings(
            strategy=strategy, recipe=recipe, iterations=iterations, seconds=seconds
        )
        found = _train_and_predict(volume, painted, labels, backbone, settings)
        mask = found.pop("mask")
        tested = [z for z in range(len(mask)) if z not in zs and truth[z].any()]
        dice = [_dice(mask[tested] == i, truth[tested] == i) for i in ids]
        tell(
            status="running", recipe=recipe, strategy=strategy, steps=iterations, budget=seconds,
            first_of_the_process=number == 0, shape=list(volume.hu.shape),
            dice=float(np.mean(dice)), **found,
        )  # fmt: skip
    tell(status="done", painted=list(zs), backbone=backbone.name)


def _sample(small: bool) -> tuple[Any, Any]:
    """The sample CT at a scanner's resolution, and its labels."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from napari_diffseg.io import read_labels, read_volume, sample_labels_path, sample_volume_path
    from napari_diffseg.io.geometry import Geometry

    volume = read_volume(sample_volume_path())
    truth = read_labels(sample_labels_path(), volume.geometry).mask
    hu = volume.hu
    side = 64 if small else _SIDE
    if small:
        hu, truth = hu[60:84], truth[60:84]
    image = torch.from_numpy(hu.astype(np.float32))[:, None]
    big = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True)
    scale = hu.shape[-1] / side
    z, y, x = volume.geometry.spacing
    affine = np.diag([-x * scale, -y * scale, z, 1.0])
    geometry = Geometry.from_affine(affine, (side, side, len(hu)))
    mask = F.interpolate(torch.from_numpy(truth)[:, None], size=(side, side), mode="nearest-exact")
    return (
        replace(volume, hu=big[:, 0].round().numpy().astype(np.int16), geometry=geometry),
        mask[:, 0].numpy(),
    )


def _train_and_predict(
    volume: Any, painted: Any, labels: Any, backbone: Any, settings: Any
) -> dict[str, Any]:
    import numpy as np
    import torch

    from diffseg_training.cost import peak_memory, synchronize
    from napari_diffseg.engine.finetune import finetune
    from napari_diffseg.engine.predict import predict
    from napari_diffseg.network.device import pick_device

    device = pick_device()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    current = painted[0].z + 5
    began, shown, stages, last = time.perf_counter(), None, dict[str, float](), time.perf_counter()
    progress: Any = None
    for progress in finetune(volume, painted, labels, backbone, settings, current=lambda: current):
        now = time.perf_counter()
        stages[progress.stage] = stages.get(progress.stage, 0.0) + now - last
        last = now
        if progress.preview is not None and shown is None:
            shown = now - began
    trained = time.perf_counter() - began
    mask = np.zeros(volume.hu.shape, np.uint8)
    first = None
    found = predict(
        progress.segmenter, volume, painted, current, registration=progress.registration
    )
    for one in found:
        mask[one.z] = one.mask
        first = first or time.perf_counter() - began
    synchronize(device)
    return {
        "mask": mask,
        "first_preview": shown and round(shown, 2),
        "trained": round(trained, 2),
        "first_predicted": round(first or 0.0, 2),
        "whole_volume": round(time.perf_counter() - began, 2),
        "stages": {name: round(value, 2) for name, value in stages.items()},
        "gigabytes": round(peak_memory(device) / 1e9, 2),
    }


def _dice(found: Any, wanted: Any) -> float:
    both = found.sum() + wanted.sum()
    return float(2 * (found & wanted).sum() / both) if both else 1.0


def rivals(options: argparse.Namespace) -> None:
    """The rivals of the papers' table side by side, a process each: none of them fills a card."""
    plan = _plan(options.rehearse)
    command = [sys.executable, str(Path(__file__).with_name("gpu_jobs.py")), "rival"]
    command += ["--seconds", str(options.seconds - 10)]
    command += ["--labelled", str(options.labelled)] if options.labelled else []
    command += ["--rehearse"] if options.rehearse else []
    threads = str(max(1, (os.cpu_count() or 1) // len(plan)))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    running = {
        name: subprocess.Popen([*command, "--method", name], env=environment) for name in plan
    }
    codes = {name: process.wait() for name, process in running.items()}
    tell(status="done", side_by_side=len(plan), failed=[name for name, c in codes.items() if c])


def _plan(rehearse: bool) -> dict[str, Any]:
    """Methods and their options: the papers' grid and the authors' sizes for the rivals."""
    from diffseg_training.benchmark.methods import Options
    from diffseg_training.benchmark.profiles import RIVALS

    if rehearse:
        return {"attention-unet": Options(side=64), "deeplabv3plus": Options(side=64)}
    full, own = Options(side=256, small=False), Options()  # ours at the grid of its backbone
    plan = {name: own if name == "ddpm-seg" else full for name in RIVALS if name != "nnunet"}
    return plan | dict.fromkeys(("scratch", "linear", "decoder"), own)


def rival(options: argparse.Namespace) -> None:
    """One method, with more seconds until more bring nothing."""
    from diffseg_training.benchmark.methods import find_method
    from diffseg_training.benchmark.tasks import LearningBudget, make_task

    name, chosen = options.method, _plan(options.rehearse)[options.method]
    budgets = (0.5, 1.0) if options.rehearse else _BUDGETS
    until = time.perf_counter() + options.seconds - 5
    splits = list(_splits(options.labelled))
    best: dict[str, float] = {}
    stalled: set[str] = set()
    # A small budget of all splits first, so that a list that is cut off has all of them.
    for budget in budgets:
        for key, split, scans, labels in splits:
            if key in stalled or time.perf_counter() + budget > until:
                continue
            what = {"status": "running", "method": name, "split": key, "budget": budget}
            try:
                task = make_task(split, scans, labels, LearningBudget(seconds=budget), 0)
                outcome = find_method(name).run(task, chosen)
            except Exception as error:
                stalled.add(key)
                tell(**what, failed=f"{type(error).__name__}: {error}"[:300])
                continue
            dice = _tested_dice(split, scans, labels, outcome.masks)
            if key in best and dice - best[key] < _STALL:
                stalled.add(key)
            best[key] = max(dice, best.get(key, 0.0))
            tell(
                **what, dice=round(dice, 4), steps=outcome.steps, note=outcome.note,
                fit_seconds=round(outcome.fit_seconds, 1), stalled=key in stalled,
            )  # fmt: skip


def _tested_dice(split: Any, scans: Any, labels: Any, masks: Any) -> float:
    """Mean over the labels that the tested slices show; surface distances would take longer."""
    import numpy as np

    found = []
    for label in labels:
        each = []
        for one, mask in zip(split.test, masks, strict=True):
            tested = list(one.slices)
            wanted = scans[one.scan].reference[tested] == label.id
            if wanted.any():
                each.append(_dice(mask[tested] == label.id, wanted))
        if each:
            found.append(np.mean(each))
    return float(np.mean(found))


def _splits(labelled: Path | None) -> Iterator[tuple[str, Any, Any, Any]]:
    """Four slices within each volume, and of one patient to segment the other."""
    from diffseg_training.benchmark.datasets import find_scans, labels_of
    from diffseg_training.benchmark.protocols import cross_patient, in_volume, presence
    from napari_diffseg.io import sample_names_path, sample_volume_path
    from napari_diffseg.io.labels import load_names

    places = [sample_volume_path(), *([labelled] if labelled else [])]
    scans = {files.name: files.read() for files in find_scans(places)}
    labels = labels_of(scans.values(), load_names(sample_names_path()))
    present = {n: presence(scan.reference, [one.id for one in labels]) for n, scan in scans.items()}
    for name in scans:
        yield f"within {name}", in_volume(name, present[name], 4), scans, labels
    for name in scans:
        for other in scans:
            if other != name:
                split = cross_patient(present, [other], [name], 4)
                yield f"{other} to {name}", split, scans, labels
