"""Use a rented CUDA machine well: an ordered list of jobs, each with a time limit of its own.

    python benchmarks/gpu.py --jobs speed --data PACKS --out OUT
    python benchmarks/gpu.py --jobs pretrain,pieces --data PACKS --out OUT --pieces 1-2
    python benchmarks/gpu.py --jobs app,rivals,pieces --labelled FOLDER --out OUT --pieces 3-7

Needs neither an installation nor a network: the packages are taken from the folders beside this
one. Every job runs in a process of its own and writes JSON lines; each is appended to
``OUT/results.jsonl`` as it comes, so that a machine that is taken away costs the running job only.
A job that lacks a package says so, and the next one runs. ``docs/pretraining.md`` has the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_GRACE = 15.0  # s between the request to end and the end


@dataclass(frozen=True)
class Job:
    """A job of the list.

    Attributes
    ----------
    name
        On the command line and in its lines.
    seconds
        Limit when nothing else is said.
    needs
        Modules that it cannot do without.
    """

    name: str
    seconds: float
    needs: tuple[str, ...]


_CORE = ("torch", "numpy", "safetensors", "nibabel", "monai", "psutil", "platformdirs")
JOBS = {
    job.name: job
    for job in (
        Job("tests", 120, (*_CORE, "pytest")),
        Job("speed", 240, (*_CORE, "tensorboard")),
        Job("pretrain", 360, (*_CORE, "tensorboard")),
        Job("pieces", 40, (*_CORE,)),
        Job("unet-b", 75, (*_CORE,)),
        Job("app", 90, (*_CORE, "SimpleITK", "skimage")),
        Job("rivals", 300, (*_CORE, "SimpleITK", "skimage")),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs; 0 when every one of them came to an end of its own."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    limits = dict(JOBS)
    for text in options.limit:
        name, _, seconds = text.partition("=")
        limits[name] = Job(name, float(seconds), limits[name].needs)
    good = True
    for name in options.jobs.split(","):
        good &= _run(limits[name], options)
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--jobs", default=",".join(JOBS), help="comma-separated, in this order")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is taken home")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "gpu",
        help="folder for the run of pre-training, which a second call goes on from",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, help="packs or store to pre-train on")
    parser.add_argument("--labelled", type=Path, help="folder of labelled scans for the rivals")
    parser.add_argument(
        "--init-from", default="starter", help="backbone that pre-training begins at"
    )
    parser.add_argument(
        "--widths", default="",
        help="channels of each level in place of the starter's, from random weights: "
        "64,128,192,256,384 has 34 million weights",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=256, help="slices a step of pre-training")
    parser.add_argument("--pieces", default="1-4", help="pieces of the checkpoint to take home")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="JOB=SECONDS", help="another time limit"
    )
    parser.add_argument("--rehearse", action="store_true", help="every job, tiny, on the CPU")
    return parser


def _run(job: Job, options: argparse.Namespace) -> bool:
    """Run one job in a process; every JSON line of it is a result."""
    seconds = min(job.seconds, 150.0) if options.rehearse else job.seconds
    command = [sys.executable, str(Path(__file__).with_name("gpu_jobs.py")), job.name]
    command += ["--needs", ",".join(job.needs), "--seconds", str(seconds)]
    for name in ("out", "work", "data", "labelled", "init_from", "widths", "batch", "pieces"):
        if value := getattr(options, name):
            command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--rehearse"] if options.rehearse else []
    folders = [str(ROOT / folder) for folder in ("src", "training", "models", "tests")]
    path = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    began = time.perf_counter()

    def keep(line: dict[str, object]) -> None:
        spent = round(time.perf_counter() - began, 2)
        text = json.dumps({"job": job.name, "at": spent, **line})
        print(text, flush=True)
        with (options.out / "results.jsonl").open("a") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    keep({"status": "began", "limit": seconds})
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
    )  # fmt: skip
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    readers = [
        threading.Thread(target=_follow, args=(process.stdout, lines.put), daemon=True),
        threading.Thread(target=_follow, args=(process.stderr, errors.append), daemon=True),
    ]
    for reader in readers:
        reader.start()
    ended, cut = "", False
    while True:
        left = seconds + (_GRACE if cut else 0.0) - (time.perf_counter() - began)
        try:
            line = lines.get(timeout=max(left, 0.01))
        except queue.Empty:
            if cut:
                process.kill()
                break
            cut = True
            process.terminate()  # a job that trains saves first
            continue
        if line is None:
            break
        if line.startswith("{"):
            result = json.loads(line)
            ended = str(result.get("status", ended))
            keep(result)
        else:
            print(line, file=sys.stderr, flush=True)
    code = process.wait()
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)  # what the job has left running
    if ended in ("done", "lacking"):
        return True
    last = [text for text in errors if text][-12:]
    keep({"status": "cut off" if cut else "failed", "exit": code, "stderr": last})
    return False


def _follow(stream: object, put: object) -> None:
    for line in stream:  # type: ignore[attr-defined]
        put(line.rstrip("\n"))  # type: ignore[operator]
    put(None)  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
