"""One row of a table: what is to be run, run in a process of its own, and what came out.

``python -m diffseg_training.benchmark.rows SPEC.json RESULT.json`` is that process. It measures
peak memory cleanly, and neither a crash nor the kernel's memory killer ends the sweep.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffseg_training.benchmark.datasets import ScanFiles
from diffseg_training.benchmark.protocols import Split
from napari_diffseg.io.files import atomic_write

if TYPE_CHECKING:
    from diffseg_training.benchmark.tasks import Outcome, Scan
    from napari_diffseg.io.labels import Label


@dataclass(frozen=True)
class RowSpec:
    """Everything that a row depends on.

    Attributes
    ----------
    data
        Hash of the labelled set.
    scans
        The scans that the split uses.
    names
        Name of each label id.
    split
        Painted and tested slices.
    method
        See :func:`methods.find_method`.
    seed
        Random seed of the method.
    budget
        Nominal seconds: seconds on a machine whose matrix product runs at
        ``machine.REFERENCE_GFLOPS``. ``None`` where iterations are given or nothing is learnt.
    iterations
        Optimiser steps.
    backbone, side, small
        See :class:`methods.Options`.
    rate
        Learning rate, as a multiple of its authors'; the field's name is part of every key.
    weights
        Hash of the backbone's file, for methods that use one.
    device
        ``auto``, ``cpu`` or ``cuda``.
    absent
        Rule for absent labels, see ``napari_diffseg.engine.metrics``.
    """

    data: str
    scans: tuple[ScanFiles, ...]
    names: Mapping[int, str]
    split: Split
    method: str
    seed: int
    budget: float | None = None
    iterations: int | None = None
    backbone: str | None = None
    weights: str | None = None
    side: int | None = None
    small: bool = True
    rate: float = 1.0
    device: str = "auto"
    absent: str = "leave-out"

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits: rows with the same key are the same experiment."""
        same = asdict(self)
        same.pop("scans")  # paths differ between machines; `data` is their content
        same["split"] = self.split.digest
        text = json.dumps(same, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain types, for the row's own process."""
        plain = asdict(self)
        for scan in plain["scans"]:
            scan.update(image=str(scan["image"]), labels=str(scan["labels"]))
        return plain

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> RowSpec:
        """Undo :meth:`to_json`."""
        scans = tuple(
            ScanFiles(s["name"], Path(s["image"]), Path(s["labels"]), s["patient"])
            for s in raw["scans"]
        )
        names = {int(k): v for k, v in raw["names"].items()}
        split = Split.from_json(raw["split"])
        return cls(**{**raw, "scans": scans, "names": names, "split": split})

    def heading(self) -> dict[str, Any]:
        """Fields of the row that are known before it has run."""
        return {
            "key": self.key,
            "data": self.data,
            "train": [chosen.scan for chosen in self.split.train],
            "test": [chosen.scan for chosen in self.split.test],
            "protocol": self.split.protocol,
            "split": self.split.digest,
            "painted": {chosen.scan: list(chosen.slices) for chosen in self.split.train},
            "amount": self.split.amount,
            "slices": self.split.painted,
            "start": {chosen.scan: list(chosen.slices) for chosen in self.split.start},
            "method": self.method,
            "seed": self.seed,
            "budget": self.budget,
            "iterations": self.iterations,
            "backbone": None if self.backbone is None else Path(self.backbone).stem,
            "weights": self.weights,
            "side": self.side,
            "small": self.small,
            "rate": self.rate,
            "absent": self.absent,
        }


def weights_digest(backbone: str | None) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a backbone's file."""
    from napari_diffseg.network.backbone import list_backbones, load_backbone

    name = load_backbone(backbone).name
    known = {entry.name: entry.path for entry in list_backbones()}
    with Path(known.get(name, backbone or name)).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def run_row(spec: RowSpec, masks: Path | None = None, limit: float | None = None) -> dict[str, Any]:
    """Run a row in a process of its own.

    Parameters
    ----------
    spec
        What to run.
    masks
        Folder for the predicted masks (``KEY.npz``), for figures.
    limit
        Seconds after which the process is ended and the row counts as failed.

    Returns
    -------
    dict
        One JSON line of results. A row that failed has ``error`` and no figures.
    """
    with tempfile.TemporaryDirectory(prefix="diffseg-row-") as folder:
        request, result = Path(folder) / "spec.json", Path(folder) / "row.json"
        request.write_text(json.dumps({"spec": spec.to_json(), "masks": masks and str(masks)}))
        command = [
            sys.executable,
            "-m",
            "diffseg_training.benchmark.rows",
            str(request),
            str(result),
        ]
        # A session of its own: whatever ends the row also ends the processes that it started.
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                _, messages = process.communicate(timeout=limit)
            except BaseException as reason:
                _kill(process)
                if not isinstance(reason, subprocess.TimeoutExpired):
                    raise
                return {**spec.heading(), "error": f"took more than {limit:g} s and was ended"}
        if result.exists():
            row: dict[str, Any] = json.loads(result.read_text())
            return row
        last = (messages.strip().splitlines() or ["no message"])[-1]
        code = process.returncode
        why = f"signal {-code}" if code < 0 else f"exit {code}"
        return {**spec.heading(), "error": f"the process ended with {why}: {last}"}


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and, where the system knows sessions, all that it has started."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def compute(spec: RowSpec, masks: Path | None = None) -> dict[str, Any]:
    """Run a row in this process; errors of the method become the row's ``error``."""
    try:
        return {**spec.heading(), **_figures(spec, masks)}
    except Exception as error:
        traceback.print_exc()
        words = " ".join(str(error).split()) or "no message"
        return {**spec.heading(), "error": f"{type(error).__name__}: {words}"}


def _figures(spec: RowSpec, masks: Path | None) -> dict[str, Any]:
    # Imported here: the parent of many rows needs none of it.
    from diffseg_training.benchmark import machine
    from diffseg_training.benchmark.datasets import labels_of
    from diffseg_training.benchmark.methods import MethodError, Options, find_method, timed
    from diffseg_training.benchmark.tasks import LearningBudget, make_task, score
    from napari_diffseg.network.device import pick_device

    method = find_method(spec.method)
    if not method.does(spec.split.protocol):
        raise MethodError(f"{spec.method} cannot do the protocol {spec.split.protocol}")
    scans = {files.name: files.read() for files in spec.scans}
    labels = labels_of(scans.values(), dict(spec.names))
    device = pick_device(spec.device)
    gflops = machine.product_rate(device)
    seconds = None if spec.budget is None else machine.real_seconds(spec.budget, gflops)
    budget = LearningBudget(seconds if spec.iterations is None else None, spec.iterations)
    task = make_task(spec.split, scans, labels, budget, spec.seed, spec.device)
    options = Options(spec.backbone, spec.side, spec.small, spec.rate)
    outcome, wall = timed(method, task, options)
    after = machine.product_rate(device)
    figures, _ = score(spec.split, scans, labels, outcome.masks, spec.absent)  # type: ignore[arg-type]
    if masks is not None:
        masks.mkdir(parents=True, exist_ok=True)
        named: dict[str, Any] = {
            one.scan: mask for one, mask in zip(spec.split.test, outcome.masks, strict=True)
        }
        np.savez_compressed(masks / f"{spec.key}.npz", **named)
    return {
        **figures,
        "seconds": wall,
        "budget_seconds": seconds,
        "fit_seconds": outcome.fit_seconds,
        "predict_seconds": wall - outcome.fit_seconds,
        "steps": outcome.steps,
        "stages": outcome.stages,
        "note": outcome.note,
        "gflops": [gflops, after],
        "product": str(machine.product_precision(device)).removeprefix("torch."),
        "peak_memory_bytes": machine.peak_memory(),
        **_calibration(spec, scans, labels, outcome),
        "hardware": machine.hardware(spec.device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _calibration(
    spec: RowSpec, scans: Mapping[str, Scan], labels: Sequence[Label], outcome: Outcome
) -> dict[str, Any]:
    """Figures of the confidence on the tested slices: inside the body's box, and all over."""
    if outcome.confidence is None:
        return {}
    from diffseg_training.benchmark.calibration import calibration, tallied
    from diffseg_training.benchmark.tasks import only
    from napari_diffseg.engine.grid import body_box

    body = np.zeros((101, 2), np.int64)
    whole = np.zeros((101, 2), np.int64)
    for one, mask, percent in zip(spec.split.test, outcome.masks, outcome.confidence, strict=True):
        scan, tested = scans[one.scan], list(one.slices)
        y0, y1, x0, x1 = body_box(scan.volume.hu)
        truth = only(scan.reference, [label.id for label in labels])
        arrays = mask[tested], truth[tested], percent[tested]
        whole += tallied(*arrays)
        body += tallied(*(array[:, y0:y1, x0:x1] for array in arrays))
    return calibration([("body", body), ("slice", whole)])


def _main() -> None:
    request, result = map(Path, sys.argv[1:])
    raw = json.loads(request.read_text())
    masks = Path(raw["masks"]) if raw["masks"] else None
    row = compute(RowSpec.from_json(raw["spec"]), masks)
    with atomic_write(result) as part:
        part.write_text(json.dumps(row), encoding="utf-8")


if __name__ == "__main__":
    _main()
