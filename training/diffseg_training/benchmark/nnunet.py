"""nnU-Net 2D as its authors ship it, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from diffseg_training.benchmark.tasks import BenchmarkTask, Mask, Outcome

DATASET = "Dataset001_Painted"


class NnunetError(ValueError):
    """nnU-Net is not installed, cannot do the task, or failed."""


def nnunet_2d(task: BenchmarkTask, learning_rate_factor: float = 1.0) -> Outcome:
    """Plan, train and predict with nnU-Net's 2D configuration.

    Every painted slice becomes a training case of one slice; nnU-Net plans, augments and trains
    as it does for any data set, on all of them (``fold all``), with epochs as short as the budget
    asks. Planning does not count towards the budget: with a minute it would leave nothing.

    Parameters
    ----------
    task
        What to learn from and what to segment.
    learning_rate_factor
        Learning rate, as a multiple of nnU-Net's own.

    Raises
    ------
    NnunetError
        If nnU-Net is not installed, or its process fails.
    """
    if importlib.util.find_spec("nnunetv2") is None:
        raise NnunetError(
            "nnunetv2 is not installed: run make benchmark-env, or "
            "pip install 'napari-diffseg[benchmarks]'"
        )
    with tempfile.TemporaryDirectory(prefix="diffseg-nnunet-") as place:
        folder = Path(place)
        write_raw(task, folder)
        request = {
            "dataset": DATASET,
            "seconds": task.budget.seconds,
            "iterations": task.budget.iterations,
            "device": "cuda" if task.device == "cuda" else "cpu" if task.device == "cpu" else None,
            "seed": task.seed,
            "learning_rate_factor": learning_rate_factor,
        }
        (folder / "request.json").write_text(json.dumps(request))
        places = {
            f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")
        }
        quiet = {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "diffseg_training.benchmark.nnunet_process", str(folder)],
            env={**os.environ, **places, **quiet},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise NnunetError(f"its process ended with exit {done.returncode}: {last}")
        result = json.loads((folder / "result.json").read_text())
        ids = np.array([0, *(label.id for label in task.labels)], np.uint8)
        masks = [ids[_read(folder / "masks" / f"{_case(n)}.nii.gz")] for n in range(len(task.test))]
    spent = time.perf_counter() - began
    stages = result["stages"]
    fitted = min(spent, sum(stage["seconds"] for stage in stages.values()))
    steps = int(stages["training"]["steps"])
    return Outcome(tuple(masks), fitted, steps, result["about"], stages)


def write_raw(task: BenchmarkTask, folder: Path) -> None:
    """Write painted slices and tested volumes as nnU-Net's raw data.

    Labels become 1, 2, ... in the order of the task's labels, as nnU-Net wants them. What is not
    known on a scribbled slice gets its ignore label.
    """
    raw = folder / "raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    (folder / "test").mkdir()
    (folder / "preprocessed").mkdir()
    (folder / "results").mkdir()
    classes = np.zeros(256, np.uint8)
    for index, label in enumerate(task.labels, start=1):
        classes[label.id] = index
    unknown = len(task.labels) + 1
    partly = any(not one.full for example in task.train for one in example.painted)
    cases = 0
    for example in task.train:
        spacing = example.volume.geometry.spacing
        for one in example.painted:
            image = raw / "imagesTr" / f"{_case(cases)}_0000.nii.gz"
            _write(image, example.volume.hu[one.z][None], spacing)
            target = np.where((one.mask == 0) & (not one.full), unknown, classes[one.mask]).astype(
                np.uint8
            )
            _write(raw / "labelsTr" / f"{_case(cases)}.nii.gz", target[None], spacing)
            cases += 1
    for n, volume in enumerate(task.test):
        image = folder / "test" / f"{_case(n)}_0000.nii.gz"
        _write(image, volume.hu, volume.geometry.spacing)
    names = {"background": 0} | {
        f"label {label.id}": int(classes[label.id]) for label in task.labels
    }
    if partly:
        names["ignore"] = unknown
    about = {
        "channel_names": {"0": "CT"},
        "labels": names,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(about))


def _case(number: int) -> str:
    return f"case{number:05d}"


def _write(path: Path, array: NDArray[np.generic], spacing: tuple[float, float, float]) -> None:
    affine = np.diag([*spacing[::-1], 1.0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array.T), affine), path)


def _read(path: Path) -> Mask:
    array = np.asarray(nib.load(path).dataobj)
    return np.ascontiguousarray(array.T.astype(np.uint8))
