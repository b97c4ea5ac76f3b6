"""Try to break the program: kills, power cuts, full disks, little memory, hostile files.

    python benchmarks/faults.py                       # everything; writes docs/reliability.md
    python benchmarks/faults.py --only kill-paint --kills 20 --seed 3
    python benchmarks/faults.py --seconds 400         # as much as fits; call it again to go on

Every module ``faults_*.py`` beside this file has ``KINDS``, a tuple of ``fault_tools.Kind``. What
is done is kept in ``--results``, one line for each call of a kind, and is not done again.
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

import psutil

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("src", "training", "models"))]

from fault_tools import Figures, Kind  # noqa: E402

DOCUMENT = HERE.parent / "docs" / "reliability.md"


def kinds() -> dict[str, Kind]:
    """All kinds by name, in the order of their modules."""
    modules = [importlib.import_module(path.stem) for path in sorted(HERE.glob("faults_*.py"))]
    return {kind.name: kind for module in modules for kind in module.KINDS}


def chunks(count: int, size: int) -> list[int]:
    """Split tries into calls.

    Examples
    --------
    >>> chunks(25, 10)
    [10, 10, 5]
    """
    return [min(size, count - first) for first in range(0, count, size)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done yet; 0 when nothing was lost."""
    options = _parser().parse_args(arguments)
    known = kinds()
    wanted = options.only.split(",") if options.only else list(known)
    unknown = set(wanted) - set(known)
    if unknown:
        print(f"faults: no kind {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    end = time.monotonic() + options.seconds
    whole = True
    for name in wanted:
        kind = known[name]
        count = kind.count if options.kills is None else options.kills
        done = _done(options.results, name, options.seed)
        for number, size in enumerate(chunks(count, kind.chunk)):
            if number < len(done):
                continue
            if time.monotonic() > end:
                whole = False
                break
            done.append(_call(kind, size, options.seed, number, options.results))
        total = sum(done, Figures(0, 0, 0))
        print(f"{name}: {total.tried} tried, {total.survived} survived, {total.lost} lost")
        if total.note:
            print(f"    {total.note}")
    if not whole:
        print("faults: out of time; call it again to go on")
        return 3
    found = {
        name: sum(_done(options.results, name, options.seed), Figures(0, 0, 0)) for name in known
    }
    if all(found[name].tried for name in known) and not options.only:
        DOCUMENT.write_text(page(known, found), encoding="utf-8")
        print(f"wrote {DOCUMENT.name}")
    return int(any(figures.lost for figures in found.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Try to break the program, and count.")
    parser.add_argument("--only", default="", help="kinds, with commas; default: all")
    parser.add_argument("--kills", type=int, help="tries of each kind; default: its own number")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same tries")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument(
        "--results", type=Path, default=Path("faults.jsonl"), help="what is done, one call a line"
    )
    return parser


def _call(kind: Kind, size: int, seed: int, number: int, results: Path) -> Figures:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        figures = kind.run(size, 1000 * seed + number, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with results.open("a", encoding="utf-8") as stream:
        line = {"kind": kind.name, "seed": seed, "call": number, **asdict(figures)}
        stream.write(json.dumps(line) + "\n")
    return figures


def _done(results: Path, name: str, seed: int) -> list[Figures]:
    if not results.exists():
        return []
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    return [
        Figures(line["tried"], line["survived"], line["lost"], line["note"])
        for line in lines
        if (line["kind"], line["seed"]) == (name, seed)
    ]


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


def page(known: dict[str, Kind], found: dict[str, Figures]) -> str:
    """The documentation's page."""
    rows = [
        f"| {name} | {known[name].promise} | {f.tried} | {f.survived} | {f.lost} | {f.note} |"
        for name, f in found.items()
    ]
    return _PAGE.format(version=version("napari-diffseg"), machine=machine(), rows="\n".join(rows))


_PAGE = """# Reliability

What was done to break the program, and what it cost. Written by `python benchmarks/faults.py` with
napari-diffseg {version} on {machine}. A smaller part of each kind runs in the test suite, in
`tests/faults`.

| kind | what must hold after each try | tried | survived | lost | |
|---|---|---|---|---|---|
{rows}
"""

if __name__ == "__main__":
    sys.exit(main())
