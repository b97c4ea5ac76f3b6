"""Where and how a result was made: version, commit, machine, memory, rounds."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from napari_diffseg.network.card import package_version
from napari_diffseg.network.device import pick_device
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.rounds import Round, Rounds
from napari_diffseg.session.trainer import Trainer


def commit() -> str | None:
    """Return the git commit of a source checkout, or ``None`` for an installed package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin with the peak of whatever started this program
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)


def environment(device: str = "auto") -> dict[str, Any]:
    """Describe program and machine, as JSON values without any name of a person or a path."""
    chosen = pick_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine()
    return {
        "version": package_version(),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
        "device": chosen.type,
        "hardware": name,
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "peak_memory_bytes": peak_memory(),
    }


def describe(paint: Paint, rounds: Rounds, trainer: Trainer) -> dict[str, Any]:
    """Say how a session's result was made, as JSON values."""
    made = trainer.round or Round(0)  # which stands for none
    settings = made.settings
    return {
        **environment(settings.device if settings is not None else "auto"),
        "seed": settings.seed if settings is not None else None,
        "settings": asdict(settings) if settings is not None else None,
        "labels": [asdict(label) for label in paint.labels],
        "slices": list(made.slices),
        "slice_states": {
            state.name.lower(): np.flatnonzero(paint.states == state).tolist()
            for state in SliceState
            if state != SliceState.UNPAINTED
        },
        "planes": list(made.planes),
        "plane_states": {
            f"{axis}:{index}": paint.planes.state(axis, index).name.lower()
            for axis, index in paint.planes
        },
        "round": made.number or None,
        "iterations": made.iterations,
        "loss_curve": [list(point) for point in made.losses],
        "seconds": {**made.seconds, **trainer.seconds},
        "quality": {str(key): value for key, value in trainer.quality.items()} or None,
        "quality_rule": "Dice with each painted slice left out of training in turn",
        "rounds": [asdict(round_) for round_ in rounds.all],
    }
