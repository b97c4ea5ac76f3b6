"""``napari-diffseg-benchmark``: methods inside volumes, the papers' tables, and measurements."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffseg_training.benchmark.rows import RowSpec
from diffseg_training.extra import missing_extra
from napari_diffseg.cli.options import settings_from

PROGRAM = "napari-diffseg-benchmark"

_MEASUREMENTS = {
    "gain": "what pre-training brings at a few painted slices",
    "variants": "what variants of a pre-training configuration are worth",
    "growth": "how pre-training's time and memory grow with the slices",
    "speed": "where the seconds and the memory of predicting a volume go",
    "choice": "whether the slices that the app suggests are the ones to paint",
    "latency": "how long the window's event loop is held up by training",
    "corrections": "what a corrected slice is worth, and how long Continue takes",
}
"""Commands with a module each, which has their options."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 when everything was written; 1 with one line on standard error for a mistake that the
        user can fix; 2 for wrong use. Rows that fail are recorded and do not change it.
    """
    if lacking := missing_extra():
        print(f"{PROGRAM}: error: {lacking}", file=sys.stderr)
        return 1
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser(words).parse_args(words)
    try:
        code: int = arguments.run(arguments)
    except (ValueError, OSError, ImportError) as error:
        if arguments.debug:
            raise
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return code


def numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Give an argparse type for comma-separated values."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(",") if part)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list") from error

    return parse


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    # What is not given is absent, and then has the default of the sweep's dataclass.
    one = commands.add_parser(
        "in-volume", help="few-slice methods inside each volume", argument_default=argparse.SUPPRESS
    )
    one.add_argument("--volumes", nargs="+", required=True, type=Path, metavar="PATH")
    one.add_argument("--slices", type=numbers(int), help="1,2,4,8,16 by default")
    one.add_argument("--budgets", type=numbers(float), help="10,30,60,120 by default")
    one.add_argument("--methods", type=numbers(str), help="names; see the command methods")
    one.add_argument(
        "--protocols",
        type=numbers(str),
        help="in-volume, scribbles, cross-volume; comma-separated",
    )
    one.add_argument(
        "--source",
        type=int,
        metavar="N",
        help="cross-volume: painted slices of the other volume; all labelled ones by default",
    )
    one.add_argument("--seeds", type=numbers(int))
    one.add_argument("--side", type=int, help="pixels along the model grid")
    one.add_argument("--absent", choices=("leave-out", "papers"))
    _sweep_options(one)
    one.set_defaults(run=_in_volume)

    several = commands.add_parser(
        "patients",
        help="what each further labelled patient is worth on the next",
        argument_default=argparse.SUPPRESS,
    )
    several.add_argument("--volumes", nargs="+", required=True, type=Path, metavar="PATH")
    several.add_argument("--patients", type=numbers(int), help="1,2,3,5,10 by default")
    several.add_argument("--slices", type=numbers(int), help="of each; 4,8,0 by default, 0 is all")
    several.add_argument("--methods", type=numbers(str), help="names; see the command methods")
    several.add_argument("--budget", type=float, metavar="S", help="nominal seconds; 60 by default")
    several.add_argument("--iterations", type=int, help="optimiser steps instead, to try it")
    several.add_argument("--seeds", type=numbers(int))
    several.add_argument("--side", type=int, help="pixels along the model grid")
    several.add_argument("--full", action="store_true", help="networks of their authors' size")
    _sweep_options(several)
    several.set_defaults(run=_patients)

    table = commands.add_parser(
        "table", help="the papers' tables on labelled scans", argument_default=argparse.SUPPRESS
    )
    table.add_argument("--profile", choices=("flare22", "mini"), required=True)
    table.add_argument("--data", nargs="+", required=True, type=Path, metavar="PATH")
    table.add_argument("--methods", type=numbers(str), help="instead of the profile's")
    table.add_argument("--seeds", type=numbers(int))
    table.add_argument("--ablation", action="store_true", help="add the rows over the timestep")
    table.add_argument("--large", metavar="BACKBONE", help="add the rows of size L")
    table.add_argument(
        "--rates", dest="rates_file", type=Path, metavar="FILE",
        help="learning rates that the command rates found",
    )  # fmt: skip
    table.add_argument(
        "--budget", type=float, metavar="S", help="nominal seconds of every row's learning"
    )
    table.add_argument("--steps", type=int, help="optimiser steps of every row, for a smoke test")
    _sweep_options(table)
    table.set_defaults(run=_table, rates_file=None)

    rates = commands.add_parser(
        "rates",
        help="learning rates of the rivals, inside each volume",
        argument_default=argparse.SUPPRESS,
    )
    rates.add_argument("--volumes", nargs="+", required=True, type=Path, metavar="PATH")
    rates.add_argument("--slices", type=numbers(int), help="4 by default")
    rates.add_argument("--budget", type=float, default=10.0, metavar="S")
    rates.add_argument("--methods", type=numbers(str), help="all rivals that learn by default")
    rates.add_argument("--side", type=int, help="pixels along the model grid; 128 by default")
    rates.add_argument("--full", action="store_true", help="networks of their authors' size")
    _sweep_options(rates)
    rates.set_defaults(run=_rates, full=False)

    prepare = commands.add_parser("prepare", help="a public set into nnU-Net's folder layout")
    prepare.add_argument("source", choices=("flare22", "amos22", "btcv", "msd", "totalsegmentator"))
    prepare.add_argument("folder", type=Path, help="the unpacked download")
    prepare.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    prepare.add_argument("--unlabelled", type=Path, help="FLARE22's unlabelled scans, to count")
    prepare.set_defaults(run=_prepare)

    panels = commands.add_parser("panels", help="figure of mask panels from kept masks")
    panels.add_argument("folder", type=Path, help="the folder of a sweep run with --masks")
    panels.add_argument("--volumes", nargs="+", required=True, type=Path, metavar="PATH")
    panels.add_argument("--methods", type=numbers(str), help="columns; all by default")
    panels.add_argument("--slices", type=numbers(int), help="rows, slice indices")
    panels.set_defaults(run=_panels)

    report = commands.add_parser("report", help="tables and figures from finished rows")
    report.add_argument("folder", type=Path, help="the folder of a sweep")
    report.set_defaults(run=lambda a: _write_report(a.folder))

    publish = commands.add_parser("publish", help="a sweep as a page: tables, curves and rows")
    publish.add_argument("source", type=Path, help="the folder of a sweep, or a file of rows")
    publish.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    publish.add_argument("--name", default="mini", help="name of the page")
    publish.set_defaults(run=_publish)

    figures = commands.add_parser("figures", help="pages and README again, from their rows")
    figures.add_argument("--docs", type=Path, default=Path("docs/benchmarks"), metavar="FOLDER")
    figures.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE")
    figures.set_defaults(run=_figures)

    methods = commands.add_parser("methods", help="list the methods")
    methods.set_defaults(run=_methods)

    for name, about in _MEASUREMENTS.items():
        one = commands.add_parser(name, help=about, description=about)
        if name in words:
            # Its options come from a module that imports torch, which takes seconds.
            importlib.import_module(f"diffseg_training.benchmark.{name}").add_options(one)
    return parser


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--backbone", help="name or file; the shipped one by default")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--masks", action="store_true", help="keep the masks, for the panels")
    parser.add_argument("--limit", type=float, metavar="S", help="most seconds for one row")
    parser.add_argument("--retry", action="store_true", help="run failed rows again")
    parser.add_argument("--dask", metavar="ADDRESS", help="run the rows on a Dask cluster")
    parser.add_argument("--threads", type=int, help="threads of each row")
    # These are no fields of a sweep.
    parser.set_defaults(masks=False, limit=None, retry=False, dask=None, threads=None)


def _in_volume(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.in_volume import InVolumeSweep

    return _reported(settings_from(arguments, InVolumeSweep(())).specs(), arguments)


def _patients(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.patients import PatientSweep

    return _reported(settings_from(arguments, PatientSweep(())).specs(), arguments)


def _table(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.learning_rates import LearningRates
    from diffseg_training.benchmark.profiles import Sweep

    file = arguments.rates_file
    base = Sweep(arguments.profile, (), rates=LearningRates.read(file) if file else None)
    return _reported(settings_from(arguments, base).specs(), arguments)


def _rates(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.datasets import find_scans
    from diffseg_training.benchmark.in_volume import InVolumeSweep
    from diffseg_training.benchmark.learning_rates import TUNED, LearningRates, specs
    from diffseg_training.benchmark.sweeps import read_rows

    base = InVolumeSweep((), (4,), (arguments.budget,), TUNED, side=128, small=not arguments.full)
    planned = settings_from(arguments, base)
    _sweep(specs(planned), arguments)
    patients = {one.name: one.patient for one in find_scans(arguments.volumes)}
    found = LearningRates.of(read_rows(arguments.output / "rows.jsonl"), patients)
    print(found.table())
    print(found.write(arguments.output / "rates.json"))
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.prepare import check_unlabelled, prepare

    if arguments.unlabelled:
        print(f"{check_unlabelled(arguments.unlabelled)} unlabelled slices, as in the papers")
    for name in prepare(arguments.source, arguments.folder, arguments.output):
        print(name, flush=True)
    return 0


def _panels(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.reports import write_panels

    for path in write_panels(
        arguments.folder, arguments.volumes, arguments.methods, arguments.slices
    ):
        print(path)
    return 0


def _reported(specs: list[RowSpec], arguments: argparse.Namespace) -> int:
    _sweep(specs, arguments)
    return _write_report(arguments.output)


def _sweep(specs: list[RowSpec], arguments: argparse.Namespace) -> None:
    from diffseg_training.benchmark.sweeps import read_rows, sweep
    from diffseg_training.benchmark.tables import spread

    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # the rows' processes inherit it
    folder: Path = arguments.output
    rows = folder / "rows.jsonl"
    known = {row["key"] for row in read_rows(rows)}
    print(f"{len(specs)} rows, {sum(spec.key in known for spec in specs)} of them done already")
    masks = folder / "masks" if arguments.masks else None
    running = sweep(specs, rows, masks, arguments.limit, arguments.retry, arguments.dask)
    for row in running:
        what = f"{row['protocol']:<13}  {'+'.join(row['test'])}  {row['amount']:>9}"
        what += f"  {row['method']:<20}"
        budget = f"{row['budget']:>5g} s" if row["budget"] else " " * 7
        if "error" in row:
            result = f"failed: {row['error']}"
        else:
            times = f"{row['fit_seconds']:.0f} + {row['predict_seconds']:.0f} s"
            result = f"Dice {spread([row['dice']])}  {times}"
        print(f"{what} {budget}  seed {row['seed']}  {result}", flush=True)


def _write_report(folder: Path) -> int:
    from diffseg_training.benchmark.reports import write_reports

    for path in write_reports(folder):
        print(path)
    return 0


def _publish(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.publish import publish

    for path in publish(arguments.source, arguments.output, arguments.name):
        print(path)
    return 0


def _figures(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.documentation import renew

    for path in renew(arguments.docs, arguments.readme):
        print(path)
    return 0


def _methods(arguments: argparse.Namespace) -> int:
    from diffseg_training.benchmark.methods import METHODS

    for method in METHODS.values():
        kind = "budget" if method.budgeted else "no budget"
        print(f"{method.name:<20} {method.title:<28} {kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
