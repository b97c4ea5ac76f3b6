"""``napari-diffseg train``: one model from several patients."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from napari_diffseg.cli.console import ProgressLine, figure, table, uninterrupted
from napari_diffseg.cli.options import add_settings, settings_from
from napari_diffseg.cli.segment import Clock, follow, write_json
from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.cohort import Case, Cohort, prepare_cohort
from napari_diffseg.engine.cohort_training import leave_one_patient_out, train_cohort
from napari_diffseg.engine.metrics import mean_of
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.files import check_outputs
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.labels import load_names
from napari_diffseg.io.volume import read_volume, stem
from napari_diffseg.network.backbone import load_backbone
from napari_diffseg.network.device import pick_device
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.cases import CaseFiles, CasesError, read_cases
from napari_diffseg.session.learning import cohort_card

_SECONDS = 300.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``train``; those of training come from :class:`TrainSettings`."""
    parser.add_argument(
        "cases",
        metavar="CASES",
        type=Path,
        help="CSV with the columns volume, labels and slices, the same as JSON, or a folder in "
        "nnU-Net's layout, or with sessions; a volume without labels is learnt from its newest "
        "session",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="model to write"
    )
    parser.add_argument("--names", metavar="FILE", type=Path, help='JSON such as {"liver": 1}')
    parser.add_argument(
        "--unlabelled",
        metavar="FOLDER",
        type=Path,
        help="further CTs of the cohort, learnt from by self-training",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--backbone", metavar="NAME|FILE", help="pre-trained network to start from")
    start.add_argument(
        "--model", metavar="FILE", type=Path, help="saved model to start from, not a backbone"
    )
    parser.add_argument("--licence", help="terms of use, written into the model's card")
    parser.add_argument("--report", metavar="FILE.json", type=Path, help="write what was done")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="estimate the quality: leave out one patient at a time (trains once for each)",
    )
    group = parser.add_argument_group(
        "training", f"{_SECONDS:g} s, unless --seconds or --iterations says otherwise"
    )
    add_settings(group, TrainSettings, exclusive=("seconds", "iterations"), show_defaults=False)
    parser.set_defaults(run=run, fail=parser.error)


def run(args: argparse.Namespace) -> int:
    """Train one model; returns 0 once it was written and read again."""
    try:
        settings = settings_from(args, TrainSettings(seconds=_SECONDS))
    except TrainError as error:
        args.fail(str(error))
    listed = read_cases(args.cases, load_names(args.names) if args.names else None)
    unlabelled = _volumes_in(args.unlabelled) if args.unlabelled else []
    files = [path for case in listed for path in (case.volume, case.labels)]
    outputs = [path for path in (args.output, args.report) if path is not None]
    check_outputs(outputs, [args.cases, args.names, args.model, *files, *unlabelled])
    pick_device(settings.device)
    start = Segmenter.load(args.model) if args.model else load_backbone(args.backbone)
    clock = Clock()
    with ProgressLine() as line:
        readers: list[Callable[[], Case | None]] = [_reader(case, line) for case in listed]
        readers += [_unlabelled(path, line) for path in unlabelled]
        with clock.stage("read"):
            cohort = follow(prepare_cohort(readers, start, settings), line)
        left = settings
        if settings.iterations is None and settings.seconds is not None:
            left = replace(settings, seconds=max(settings.seconds - clock.total, 1.0))
        with clock.stage("train"):
            segmenter = follow(train_cohort(cohort, left), line)
        quality = {}
        if args.validate:
            with clock.stage("validate"):
                quality = follow(leave_one_patient_out(cohort, settings), line)
        segmenter.card = cohort_card(cohort, segmenter, args.licence or "", quality)
        with uninterrupted():
            segmenter.save(args.output)
            Segmenter.load(args.output)
            if args.report:
                write_json(args.report, _report(cohort, settings, quality, clock))
    painted = sum(len(case.painted) for case in cohort.cases)
    print(
        f"{args.output}: {len(cohort.labels)} labels from {painted} slices of {len(listed)} "
        f"patients, {clock.total:.1f} s"
    )
    if args.validate:
        rows = [(label.name, figure(quality.get(label.name))) for label in cohort.labels]
        rows.append(("mean", figure(mean_of(quality.values()))))
        print(table(("leave-one-patient-out", "Dice"), rows))
    return 0


def _reader(case: CaseFiles, line: ProgressLine) -> Callable[[], Case]:
    def read() -> Case:
        found = case()
        for note in found.volume.geometry.notes:
            line.say(f"napari-diffseg: warning: {case.volume}: {note}")
        return found

    return read


def _unlabelled(path: Path, line: ProgressLine) -> Callable[[], Case | None]:
    def read() -> Case | None:
        try:
            return Case(read_volume(path), (), ())
        except VolumeError as error:
            line.say(f"napari-diffseg: warning: left out: {error}")
            return None

    return read


def _volumes_in(folder: Path) -> list[Path]:
    """List the CTs of a folder: files that are images by their ending, and folders of slices."""
    if not folder.is_dir():
        raise CasesError(f"{folder}: is no folder; --unlabelled wants one with CTs")
    found = sorted(path for path in folder.iterdir() if path.is_dir() or stem(path) != path.name)
    if not found:
        raise CasesError(f"{folder}: holds no CT")
    return found


def _report(
    cohort: Cohort, settings: TrainSettings, validation: dict[str, float], clock: Clock
) -> dict[str, Any]:
    """Collect what was done. No path and no file's name: they may name a patient."""
    return {
        "settings": asdict(settings),
        "cases": [
            {
                "shape_zyx": list(case.volume.hu.shape),
                "painted_slices": len(case.painted),
                "labels": [label.name for label in case.labels],
            }
            for case in cohort.cases
        ],
        "labels": [label.name for label in cohort.labels],
        "leave_one_patient_out_dice": validation,
        "seconds": clock.seconds | {"total": clock.total},
    }
