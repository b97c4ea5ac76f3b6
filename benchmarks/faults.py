"""Try to break the program: kills, power cuts, full disks, little memory, hostile files.

    python benchmarks/faults.py                       # everything that is not done yet
    python benchmarks/faults.py --seconds 400         # as much as fits; call it again to go on
    python benchmarks/faults.py --only kill-paint --kills 20 --seed 3    # leaves no trace

Every module ``faults_*.py`` beside this file has ``KINDS``, a tuple of ``fault_tools.Kind``. What
is done is kept in ``docs/reliability.jsonl``, one line for each call of a kind, and is not done
again for this version; ``docs/reliability.md`` is written from it. Delete the lines to begin anew.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from fault_tools import Figures, Kind  # noqa: E402

PAGE = HERE.parent / "docs" / "reliability.md"
ROWS = PAGE.with_suffix(".jsonl")
VERSION = version("napari-diffseg")


def kinds() -> dict[str, Kind]:
    """All kinds by name, in the order of their modules."""
    modules = [importlib.import_module(path.stem) for path in sorted(HERE.glob("faults_*.py"))]
    return {kind.name: kind for module in modules for kind in module.KINDS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done yet; 0 when nothing was lost, 3 when time was up before the end."""
    options = _parser().parse_args(arguments)
    known = kinds()
    wanted = options.only.split(",") if options.only else list(known)
    unknown = set(wanted) - set(known)
    if unknown:
        print(f"faults: no kind {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    trial = options.kills is not None or options.seed != 0
    read = [] if trial else _read(ROWS)
    rows = [row for row in read if row["version"] == VERSION]
    older = [row for row in read if row["version"] != VERSION]
    end = time.monotonic() + options.seconds
    late, lost = False, 0
    for name in wanted:
        kind = known[name]
        count = kind.count if options.kills is None else options.kills
        sizes = [min(kind.chunk, count - first) for first in range(0, count, kind.chunk)]
        done = [row["call"] for row in rows if row["kind"] == name]
        for number, size in enumerate(sizes):
            if number in done:
                continue
            if time.monotonic() > end:
                late = True
                break
            row = _call(kind, size, options.seed, number)
            rows.append(row)
            if not trial:
                with ROWS.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
        total = figures(rows, name)
        lost += total.lost
        print(f"{name}: {total.tried} tried, {total.survived} survived, {total.lost} lost")
        if total.note:
            print(f"    {total.note}")
    if not trial and rows:
        again = {row["kind"] for row in rows}
        left = [row for row in older if row["kind"] not in again]
        PAGE.write_text(page(known, rows + left), encoding="utf-8")
    if late:
        print("faults: time is up; call it again to go on")
        return 3
    return int(lost > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Try to break the program, and count.")
    parser.add_argument("--only", default="", help="kinds, with commas; default: all")
    parser.add_argument("--kills", type=int, help="tries of each kind; default: its own number")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same tries")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    return parser


def _call(kind: Kind, size: int, seed: int, number: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        found = kind.run(size, 1000 * seed + number, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about = {"kind": kind.name, "call": number, "version": VERSION, "machine": machine()}
    return about | asdict(found)


def _read(path: Path) -> list[dict[str, Any]]:
    """Rows of each kind's newest version, the last one of each call."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    newest = {row["kind"]: row["version"] for row in rows}
    newest |= {row["kind"]: VERSION for row in rows if row["version"] == VERSION}
    own = [row for row in rows if row["version"] == newest[row["kind"]]]
    return list({(row["kind"], row["call"]): row for row in own}.values())


def figures(rows: Sequence[dict[str, Any]], name: str) -> Figures:
    """Sum of the rows of a kind."""
    own = [row for row in rows if row["kind"] == name]
    parts = (Figures(r["tried"], r["survived"], r["lost"], r["note"]) for r in own)
    return sum(parts, Figures(0, 0, 0))


def machine() -> str:
    """CPU, cores, system and Python; nothing that names the machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].split(":")[1].strip() if names else model
    return (
        f"{model}, {psutil.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def page(known: dict[str, Kind], rows: Sequence[dict[str, Any]]) -> str:
    """The documentation's page."""
    lines = []
    for name, kind in known.items():
        f = figures(rows, name)
        if f.tried:
            promise = f"{kind.promise[0].upper()}{kind.promise[1:]}. {f.note}".strip()
            earlier = {row["version"] for row in rows if row["kind"] == name} - {VERSION}
            promise += f" (with version {earlier.pop()})" if earlier else ""
            tried = f.tried if f.tried >= kind.count else f"{f.tried} of {kind.count}"
            lines.append(f"| `{name}` | {promise} | {tried} | {f.survived} | {f.lost} |")
    where = " and ".join(sorted({row["machine"] for row in rows}))
    return _PAGE.format(version=VERSION, machine=where, rows="\n".join(lines))


_PAGE = """# Reliability

What was done to break the program, and what it cost. `python benchmarks/faults.py` wrote this page
with napari-diffseg {version} on {machine}.
The test suite does a few of each kind (`tests/faults`).

| kind | what must hold after each try | tried | survived | lost |
|---|---|---|---|---|
{rows}

**Kills.** A process gets SIGKILL, every other time at a random instant of its work, every other
time before a random one of its calls that open a file for writing, rename, delete, make a folder or
sync. What it left is opened, compared with what it had reported until then, and used again.

**Power cuts.** A process is killed in the same way, and with it goes what it had not synced. Each
sync is noted while it works: what a file held then, which names were in a folder then. By turns
everything else is lost; or new names are kept, and what their files hold is not; or some of both is
kept, files end anywhere and in zeros. Syncs take up to 0.2 s. What was reported more than a second
before has to be there.

**Full disk.** A file system of 8 MiB with 0 to 120 KB left. **Memory** is limited to 1 to 600 MiB
more than the process has when the command begins. **GPU memory** is simulated: the network refuses
to take more than some slices at a time. **Permissions** are those of another user, and of a disk
that is mounted read-only.

Known limits:

- `.mhd` is two files. A kill between the two renames of an export over an earlier one leaves the
  data without its header, never with a header that does not fit; the export has to be repeated.
- With a few MiB of memory left a C library (libc, OpenBLAS) may end the process before Python gets
  to say so. It prints a line of its own; files are whole.
"""

if __name__ == "__main__":
    sys.exit(main())
