"""``napari-diffseg predict``: one volume or hundreds, with a saved model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from napari_diffseg.cli.console import ProgressLine

if TYPE_CHECKING:
    from napari_diffseg.io.finding import FoundVolume
    from napari_diffseg.session.cohort_table import CaseResult

_DEVICES = ("auto", "cpu", "cuda", "mps")
_SHOWN = 5
"""Cases that need a look most are named at the end, this many; the table has all."""


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``predict``."""
    parser.add_argument(
        "volumes",
        metavar="VOLUME",
        nargs="*",
        help='CT file, DICOM folder, folder of CTs, pattern in quotes such as "data/*/ct.nii.gz", '
        "or @list.txt",
    )
    parser.add_argument(
        "--list", metavar="FILE", type=Path, help="text file with one volume a line, as @FILE"
    )
    parser.add_argument("--model", metavar="FILE", type=Path, required=True, help="saved model")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        type=Path,
        required=True,
        help="folder for the masks and a table of them, predictions.csv and predictions.json",
    )
    parser.add_argument(
        "--format",
        metavar="ENDING",
        default="nii.gz",
        help="of the masks: nii.gz, nii, seg.nrrd, nrrd, mha, mhd, dcm (DICOM-SEG), rtstruct.dcm; "
        "the last two name the patient",
    )
    parser.add_argument("--device", choices=_DEVICES, default="auto", help="where to run")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=1,
        help="processes on this machine, each with its share of the threads and one volume",
    )
    where.add_argument(
        "--dask", metavar="ADDRESS", help="Dask scheduler whose workers see the same files"
    )
    parser.add_argument(
        "--no-adapt",
        dest="adapt",
        action="store_false",
        help="predict with the model as it is; otherwise its head learns first from the pixels of "
        "each volume that it is sure of, which takes about as long again",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="predict again where a mask of this model and volume is there, "
        "and replace masks that were changed",
    )
    parser.set_defaults(run=_predict, fail=parser.error)


def _predict(args: argparse.Namespace) -> int:
    from napari_diffseg.io.finding import find_volumes
    from napari_diffseg.io.volume import MASK_ENDINGS

    ending = f".{args.format.lower().removeprefix('.')}"
    if ending not in MASK_ENDINGS:
        args.fail(f"--format {args.format}: use one of {', '.join(e[1:] for e in MASK_ENDINGS)}")
    if args.workers < 1:
        args.fail("--workers: one process at least")
    words = [*args.volumes, *([f"@{args.list}"] if args.list else [])]
    if not words:
        args.fail("no volume is named: give files, a folder, a pattern in quotes, or --list FILE")
    if args.output.exists() and not args.output.is_dir():
        args.fail(f"{args.output}: is not a folder; the masks of all volumes go into one")
    volumes = find_volumes(words, args.output)
    names = [volume.name for volume in volumes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        args.fail(
            f"two volumes would both be written to {args.output / (twice + ending)}: rename one, "
            'or name them with a pattern in quotes such as "data/*/ct.nii.gz"'
        )
    results = _run(args, volumes, ending)
    _report(args, volumes, results)
    return int(any(result.status == "failed" for result in results))


def _run(
    args: argparse.Namespace, volumes: Sequence[FoundVolume], ending: str
) -> tuple[CaseResult, ...]:
    from napari_diffseg.session.cohort_prediction import predict_cohort

    steps = predict_cohort(
        volumes,
        args.model,
        args.output,
        ending,
        args.device,
        args.workers,
        args.dask,
        args.overwrite,
        args.adapt,
    )
    paths = {volume.name: volume.path for volume in volumes}
    done, many = 0, len(volumes) > 1
    with closing(steps), ProgressLine() as line:
        try:
            while True:
                progress = next(steps)
                result, done = progress.result, progress.done
                if result is not None:
                    for note in result.notes if result.status == "predicted" else ():
                        line.say(f"napari-diffseg: warning: {paths[result.case]}: {note}")
                    if result.status == "failed" and many:
                        line.say(f"napari-diffseg: failed: {paths[result.case]}: {result.error}")
                if many:
                    line.update("predicting", done, progress.total, progress.remaining)
                else:
                    stage = f"predicting {volumes[0].path.name}"
                    line.update(stage, 0, None, progress.remaining)
        except StopIteration as end:
            results: tuple[CaseResult, ...] = end.value
            return results
        except KeyboardInterrupt:
            line.say(
                f"napari-diffseg: {done} of {len(volumes)} volumes are done; "
                "the same command goes on from there"
            )
            raise


def _report(
    args: argparse.Namespace, volumes: Sequence[FoundVolume], results: Sequence[CaseResult]
) -> None:
    from napari_diffseg.session.cohort_table import TABLE, ordered

    for volume, result in zip(volumes, results, strict=True):
        mask = args.output / result.mask
        if result.status == "predicted":
            print(f"{mask}: {result.slices} slices, {len(result.labels)} labels")
        elif result.status == "present":
            print(f"{mask}: skipped, was there already")
        else:
            print(f"napari-diffseg: error: {volume.path}: {result.error}", file=sys.stderr)
    if len(results) < 2:
        return
    count = {
        status: sum(result.status == status for result in results)
        for status in ("predicted", "present", "failed")
    }
    print(
        f"{len(results)} volumes: {count['predicted']} predicted, {count['present']} skipped "
        f"(there already), {count['failed']} failed; table: {args.output / TABLE}.csv"
    )
    rows = [(row, found) for row, found in ordered(results) if row.labels][:_SHOWN]
    if rows:
        print("Look first at:")
        for row, found in rows:
            print(f"  {row.case}  {found.why}")
