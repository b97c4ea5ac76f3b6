"""``napari-diffseg evaluate``: masks against references, one pair or two folders."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_diffseg.cli.console import ProgressLine, figure, table
from napari_diffseg.cli.options import add_overlap, slice_indices

if TYPE_CHECKING:
    from napari_diffseg.engine.intervals import Interval
    from napari_diffseg.engine.metrics import Evaluation
    from napari_diffseg.session.cohort_evaluation import CohortEvaluation

_FIGURES = {"dice": 3, "jaccard": 3, "hd95": 2, "surface_dice": 3}
_RESAMPLES = 10_000


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``evaluate``."""
    parser.add_argument("mask", metavar="MASK", type=Path, help="mask to judge, or a folder")
    parser.add_argument(
        "reference", metavar="REFERENCE", type=Path, help="mask that is right, or a folder of them"
    )
    parser.add_argument(
        "--exclude-slices",
        metavar="Z,Z,...",
        type=slice_indices,
        default=(),
        help="slices that do not count, as in 'segment --slices' (the painted ones)",
    )
    parser.add_argument("--names", metavar="FILE", type=Path, help='JSON such as {"liver": 1}')
    add_overlap(parser)
    parser.add_argument(
        "--absent",
        choices=("leave-out", "papers"),
        default="leave-out",
        help="a label absent from both masks is left out of the mean, or counts 0 as in the papers",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write every figure as CSV")
    group = parser.add_argument_group("folders")
    group.add_argument(
        "--resamples",
        metavar="N",
        type=int,
        default=_RESAMPLES,
        help="draws of patients for the 95 %% confidence intervals",
    )
    group.add_argument("--seed", metavar="N", type=int, default=0, help="of these draws")
    parser.set_defaults(run=_evaluate, fail=parser.error)


def _evaluate(args: argparse.Namespace) -> int:
    from napari_diffseg.io.files import check_outputs

    if args.resamples < 1:
        args.fail("--resamples: one draw at least")
    if args.csv:
        check_outputs([args.csv], [args.mask, args.reference, args.names])
    folders = args.mask.is_dir(), args.reference.is_dir()
    if all(folders):
        return _folders(args)
    if any(folders):
        args.fail("give two files or two folders: a folder is compared with a folder")
    return _pair(args)


def _pair(args: argparse.Namespace) -> int:
    from napari_diffseg.io.labels import load_names
    from napari_diffseg.session.cohort_evaluation import CohortEvaluation, evaluate_pair

    names = load_names(args.names) if args.names else {}
    result = evaluate_pair(
        args.mask, args.reference, names, args.exclude_slices, args.absent, args.overlap
    )
    if args.csv:
        CohortEvaluation({args.mask.name: result}, args.resamples, args.seed).write_csv(args.csv)
    if args.json:
        print(json.dumps(result.to_json(), indent=2, allow_nan=False))
        return 0
    rows = [
        (name, figure(s.dice), figure(s.jaccard), figure(s.hd95, 2), figure(s.surface_dice))
        for name, s in [*((s.label.name, s) for s in result.scores), ("mean", result.mean)]
    ]
    print(table(("label", "Dice", "Jaccard", "HD95 mm", _near(result)), rows))
    print(f"{result.slices} slices evaluated; {result.rule}.")
    return 0


def _folders(args: argparse.Namespace) -> int:
    from napari_diffseg.io.labels import load_names
    from napari_diffseg.session.cohort_evaluation import (
        CohortEvaluation,
        EvaluateError,
        evaluate_pair,
        find_pairs,
    )

    if args.exclude_slices:
        args.fail("--exclude-slices: is for one pair; in a folder each case has its own slices")
    if args.absent == "papers" and not args.names:
        args.fail("--absent papers: needs --names in folders, for labels that a case lacks")
    names = load_names(args.names) if args.names else {}
    pairs = find_pairs(args.mask, args.reference)
    cases, failed = {}, 0
    began = time.monotonic()
    with ProgressLine() as line:
        for missing, what in (
            (pairs.without_reference, "no reference for"),
            (pairs.without_mask, "no mask for"),
        ):
            if missing:
                line.say(f"napari-diffseg: warning: {what} {', '.join(missing)}")
        for done, (name, (mask, reference)) in enumerate(pairs.both.items()):
            left = (time.monotonic() - began) / max(done, 1) * (len(pairs.both) - done)
            line.update("evaluating", done, len(pairs.both), left if done else None)
            try:
                cases[name] = evaluate_pair(mask, reference, names, (), args.absent, args.overlap)
            except (ValueError, OSError) as error:
                failed += 1
                line.say(f"napari-diffseg: error: {' '.join(str(error).split())}")
    if not cases:
        raise EvaluateError(f"{args.mask}: none of its {failed} cases could be compared")
    result = CohortEvaluation(cases, args.resamples, args.seed)
    if args.csv:
        result.write_csv(args.csv)
    unmatched = {
        "without_reference": list(pairs.without_reference),
        "without_mask": list(pairs.without_mask),
    }
    if args.json:
        print(json.dumps(result.to_json() | unmatched, indent=2, allow_nan=False))
    else:
        print(_text(result))
    if failed:
        print(f"napari-diffseg: {failed} of {len(pairs.both)} cases failed", file=sys.stderr)
    return 1 if failed else 0


def _text(result: CohortEvaluation) -> str:
    any_case = next(iter(result.cases.values()))
    near = _near(any_case)
    cases = sorted(result.cases.items(), key=lambda case: (case[1].mean.dice, case[0]))
    head = ("case", "Dice", "Jaccard", "HD95 mm", near)
    rows = [
        (name, *(figure(getattr(one.mean, key), digits) for key, digits in _FIGURES.items()))
        for name, one in cases
    ]
    names = (*result.labels, "mean")
    intervals = {name: [result.interval(name, key) for key in _FIGURES] for name in names}
    summary = [
        (
            name,
            str(intervals[name][0].cases),
            *map(_interval, intervals[name], _FIGURES.values()),
        )
        for name in names
    ]
    return "\n".join(
        (
            table(head, rows),
            "",
            table(("label", "cases", *head[1:]), summary),
            f"{len(cases)} cases, each one patient; in brackets the 95 % confidence interval by "
            f"bootstrap over patients ({result.resamples} resamples, seed {result.seed}); "
            f"{any_case.rule}.",
        )
    )


def _interval(found: Interval, digits: int) -> str:
    low, high = figure(found.low, digits), figure(found.high, digits)
    return f"{figure(found.mean, digits)} [{low}, {high}]"


def _near(result: Evaluation) -> str:
    return f"surface Dice {result.tolerance_mm:g} mm"
