"""Hostile files: spoilt copies of every format, opened in a process that is watched.

A try survives if the file is read, or refused by an error of this package in one line, within 10 s
and 2 GB, without touching or reading anything outside its folder, and without running code.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO, Any

from fault_tools import Figures, Kind

SECONDS = 10
BYTES = 2 << 30
_SECRET = b"outside-this-folder!" * 400
_FORMATS = (
    "nifti", "nifti-gz", "nifti-pair", "nrrd", "nhdr", "seg-nrrd", "mha", "mhd", "dicom",
    "dicom-rle", "dicom-j2k", "dicom-deflated", "dicom-seg", "dicom-enhanced", "rtstruct", "model",
    "backbone", "registry", "session-journal", "session-files", "session-rounds", "names",
    "configuration", "cases", "cases-csv", "nnunet", "queue",
)  # fmt: skip


class Worker:
    """A process that opens one file after the other; a new one where it died or was killed."""

    def __init__(self, good: Path, log: Path) -> None:
        self._good, self._log = good, log
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, name: str, path: Path) -> dict[str, Any]:
        """What opening ``path`` as a file of the format ``name`` came to."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"format": name, "path": str(path)}).encode() + b"\n")
        process.stdin.flush()
        line = _line(process.stdout, SECONDS + 5)
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        hung = process.poll() is None and line is None
        process.kill()
        process.wait()
        self._process = None
        return {"lost": "hang" if hung else f"crash ({process.returncode})"}

    def close(self) -> None:
        """Let the process end."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            place = self._good.parent
            environment = os.environ | {
                "FAULTS_CANARY": str(place / "outside"),
                "NAPARI_DIFFSEG_HOME": str(place / "home"),
                "OMP_NUM_THREADS": "1",
            }
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, str(self._good)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log.open("ab"),
                env=environment,
            )
            assert self._process.stdout is not None
            if _line(self._process.stdout, 120) != b"ready\n":
                raise RuntimeError(f"good files cannot be opened:\n{self._log.read_text()[-2000:]}")
        return self._process


def _line(stream: IO[bytes], seconds: float) -> bytes | None:
    """One line, b"" at the end of the stream, None after so many seconds."""
    if not select.select([stream], [], [], seconds)[0]:
        return None
    return stream.readline()


def run(name: str, count: int, seed: int, folder: Path) -> Figures:
    """Open ``count`` spoilt files of a format."""
    import fault_plants
    import fault_seeds

    kind = next(x for x in fault_seeds.FORMATS if x.name == name)
    good, outside = folder / "good", folder / "outside"
    tries = folder / "tries"
    for place in (good, outside, tries):
        place.mkdir()
    (outside / "secret.raw").write_bytes(_SECRET)
    fault_seeds.make(good)
    rng = random.Random(f"{seed} {name}")
    worker = Worker(good, folder / "log")
    lost: Counter[str] = Counter()
    read, slowest, largest = 0, 0.0, 0
    keep = os.environ.get("FAULTS_KEEP")
    planted = fault_plants.traps(kind, good, outside, tries)[:count] if not seed % 1000 else []
    spoilt = fault_seeds.spoilt(kind, good, tries, count - len(planted), rng)
    for path, how, refuse in (*planted, *((path, how, False) for path, how in spoilt)):
        answer = worker(name, path)
        read += answer.get("read", 0)
        slowest = max(slowest, answer.get("seconds", 0.0))
        largest = max(largest, answer.get("bytes", 0))
        why = answer.get("lost") or _escaped(outside)
        if refuse and answer.get("read"):
            why = "read, though it leads elsewhere or holds something else"
        home = tries / path.relative_to(tries).parts[0]
        if why:
            lost[why.split(":")[0]] += 1
            if keep:
                print(f"{name} {home.name} {how}: {why}", flush=True)
                shutil.move(home, Path(keep, f"{name}-{seed}-{home.name}"))
        shutil.rmtree(home, ignore_errors=True)
    worker.close()
    faults = "; ".join(f"{n} {what}" for what, n in lost.items())
    note = f"{read} read, the rest refused; {slowest:.1f} s and {largest / 2**20:.0f} MB at most"
    return Figures(count, count - lost.total(), lost.total(), faults or note)


def _escaped(outside: Path) -> str:
    """What happened to the folder that nothing has any business in."""
    found = sorted(file.name for file in outside.iterdir())
    if "executed" in found:
        (outside / "executed").unlink()
        return "code was executed"
    if found != ["secret.raw"] or (outside / "secret.raw").read_bytes() != _SECRET:
        (outside / "secret.raw").write_bytes(_SECRET)
        return "a file outside was changed"
    return ""


class _TooSlow(BaseException):
    pass


def _alarm(number: int, frame: FrameType | None) -> None:
    raise _TooSlow


def _memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def serve(good: Path) -> None:
    """Open what standard input names, and say on standard output what came of it."""
    import resource

    import fault_seeds

    from napari_diffseg.io.errors import UserError

    formats = {kind.name: kind for kind in fault_seeds.FORMATS}
    signal.signal(signal.SIGALRM, _alarm)
    for kind in formats.values():  # imports and caches are not the files' doing
        for door in kind.doors:
            door(good / kind.place)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print
    print("ready", file=answers, flush=True)
    # Beyond what is measured, so that a file cannot take the machine down.
    limit = _memory("VmSize") + 2 * BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(_tried(formats[task["format"]], task["path"], UserError)), file=answers)
        answers.flush()


def _tried(kind: Any, path: str, refusal: type[Exception]) -> dict[str, Any]:
    read, seconds, peak = 0, 0.0, 0
    for door in kind.doors:
        Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
        before, began, lost = _memory("VmRSS"), time.perf_counter(), ""
        signal.alarm(SECONDS)
        try:
            door(Path(path))
            read = max(read, int(door.__name__ != "_beside"))  # that one reads no voxels
        except refusal as error:
            text = str(error)
            if "\n" in text or not text or not text.isprintable():
                lost = f"the refusal is no plain line: {text!r}"
        except _TooSlow:
            lost = "hang"
        except BaseException as error:
            lost = f"{type(error).__name__} in {door.__name__}: {error}"
        finally:
            signal.alarm(0)
        seconds = max(seconds, time.perf_counter() - began)
        used = _memory("VmHWM") - before
        peak = max(peak, used)
        if used > BYTES:
            lost = lost or f"memory: {used >> 20} MB"
        if lost:
            return {"lost": lost[:300], "seconds": seconds, "bytes": peak}
    return {"read": read, "seconds": seconds, "bytes": peak}


_PROMISE = (
    "Read, or refused in one line, within 10 s and 2 GB; nothing outside its folder is touched, "
    "nothing is executed"
)
KINDS = tuple(
    Kind(f"hostile-{name}", _PROMISE, partial(run, name), count=150, chunk=150) for name in _FORMATS
)

if __name__ == "__main__":
    root = Path(__file__).parent
    sys.path[:0] = [str(root), *(str(root.parent / n) for n in ("src", "training", "models"))]
    serve(Path(sys.argv[1]))
