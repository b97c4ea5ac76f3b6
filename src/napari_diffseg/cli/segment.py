"""``napari-diffseg segment``: the main job, from a CT and some painted slices to a mask."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.cli.console import ProgressLine, figure, table, uninterrupted
from napari_diffseg.cli.options import (
    add_overlap,
    add_settings,
    plane_indices,
    settings_from,
    slice_indices,
)
from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.metrics import mean_of
from napari_diffseg.engine.planes import ARRAY_AXIS, Axis
from napari_diffseg.engine.progress import Progress, mapped, result_of
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.errors import UserError
from napari_diffseg.io.files import atomic_write, check_outputs
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.labels import Label, LabelMap, labels_for, load_names
from napari_diffseg.io.volume import Volume, read_labels, read_volume, stem, write_mask
from napari_diffseg.network.device import pick_device
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.session import Session

T = TypeVar("T")


class SegmentError(UserError):
    """The job cannot be done with these files."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``segment``; those of training come from :class:`TrainSettings`."""
    parser.add_argument("volume", metavar="VOLUME", type=Path, help="CT file or DICOM folder")
    parser.add_argument(
        "--series", metavar="UID", help="which series of a DICOM folder, or its number"
    )
    parser.add_argument(
        "--labels", metavar="LABELS", type=Path, required=True, help="painted slices, on its grid"
    )
    parser.add_argument(
        "--resample",
        action="store_true",
        help="bring labels of another grid onto that of the CT (nearest neighbour)",
    )
    parser.add_argument(
        "-o", "--output", metavar="MASK", type=Path, required=True, help="mask to write"
    )
    parser.add_argument(
        "--slices",
        metavar="Z,Z,...",
        type=slice_indices,
        help="slices painted in full, counted from 0 at the inferior end; "
        "default: those that hold a label outside --planes",
    )
    parser.add_argument(
        "--planes",
        metavar="AXIS:N,...",
        type=plane_indices,
        default=(),
        help="coronal and sagittal planes painted in full, such as coronal:120,sagittal:96, "
        "counted from 0 at the anterior and the right side",
    )
    add_overlap(parser)
    parser.add_argument("--names", metavar="FILE", type=Path, help='JSON such as {"liver": 1}')
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--backbone", metavar="NAME|FILE", help="pre-trained network to start from")
    start.add_argument(
        "--model", metavar="FILE", type=Path, help="saved model to start from, not a backbone"
    )
    parser.add_argument("--save-model", metavar="FILE", type=Path, help="write the trained model")
    parser.add_argument("--licence", metavar="TEXT", help="terms of use, kept in the saved model")
    parser.add_argument("--report", metavar="FILE.json", type=Path, help="write what was done")
    parser.add_argument(
        "--validate",
        action="store_true",
        help="estimate the quality: leave out one painted slice at a time (trains once for each)",
    )
    group = parser.add_argument_group("training")
    add_settings(group, TrainSettings, exclusive=("seconds", "iterations"))
    parser.set_defaults(run=run, fail=parser.error)


def run(args: argparse.Namespace) -> int:
    """Segment one volume; returns 0 once every file asked for was written and read again."""
    try:
        settings = settings_from(args, TrainSettings())
    except TrainError as error:
        args.fail(str(error))
    _check_outputs(args)
    pick_device(settings.device)
    clock = Clock()
    with ProgressLine() as line:
        with clock.stage("read"):
            volume = read_volume(args.volume, series=args.series)
            labels = read_labels(
                args.labels,
                volume.geometry,
                part=True,
                overlap=args.overlap,
                resample=args.resample,
            )
            names = load_names(args.names) if args.names else {}
        for note in volume.geometry.notes:
            line.say(f"napari-diffseg: warning: {args.volume}: {note}")
        for note in labels.notes:
            line.say(f"napari-diffseg: warning: {args.labels}: {note}")
        slices = _painted_slices(args, labels)
        session = _session(volume, labels, slices, names, args)
        _rehearse(session, args.output)
        with clock.stage("train"):
            follow(session.trainer.train(settings, from_model=args.model is not None), line)
        with clock.stage("predict"):
            _predict(session, line)
        if args.validate:
            with clock.stage("validate"):
                follow(session.trainer.validate(settings), line)
        with uninterrupted():
            with clock.stage("write"):
                session.export_mask(args.output)
                if args.save_model:
                    session.trainer.save_model(args.save_model, args.licence or "")
                    Segmenter.load(args.save_model)
            if args.report:
                write_json(args.report, _report(session, args, clock))
        if args.output.suffix.lower() == ".dcm":
            line.say(
                f"napari-diffseg: {args.output}: holds the patient's name and id, as DICOM must"
            )
    count = len(args.planes)
    across = f" and {count} plane{'s' * (count != 1)} across them" if count else ""
    print(
        f"{args.output}: {len(volume.hu)} slices from {len(slices)} painted ones{across}, "
        f"{session.rounds.all[-1].iterations} iterations, {clock.total:.1f} s"
    )
    if args.validate:
        print(_quality_table(session))
    return 0


class Clock:
    """Wall time of the stages of a run, in s."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        before = self.total
        yield
        self.seconds[name] = round(self.total - before, 3)

    @property
    def total(self) -> float:
        """Time since the start, also outside of the stages."""
        return round(time.perf_counter() - self._began, 3)


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse outputs that could not be written, before a minute of training is spent."""
    if stem(args.output) == args.output.name:
        args.fail(f"{args.output}: unknown ending; use .nii.gz, .seg.nrrd or another image format")
    if args.licence and not args.save_model:
        args.fail("--licence is kept in the saved model: give --save-model FILE, too")
    outputs = [path for path in (args.output, args.save_model, args.report) if path is not None]
    backbone = Path(args.backbone) if args.backbone else None
    check_outputs(outputs, [args.volume, args.labels, args.names, args.model, backbone])


def _painted_slices(args: argparse.Namespace, labels: LabelMap) -> tuple[int, ...]:
    count, mask = len(labels.mask), labels.mask
    for axis, index in args.planes:
        end = mask.shape[ARRAY_AXIS[axis]] - 1
        if index > end:
            raise SegmentError(
                f"--planes {axis}:{index}: {args.volume} has the {axis} planes 0 to {end} only"
            )
    if not mask.any():
        raise SegmentError(f"{args.labels}: holds no label; paint some slices first")
    holding = np.flatnonzero(_outside(mask, args.planes).any(axis=(1, 2))).tolist()
    if args.slices is None:
        return tuple(holding)
    chosen: tuple[int, ...] = args.slices
    if chosen[-1] >= count:
        raise SegmentError(
            f"--slices {chosen[-1]}: {args.volume} has the slices 0 to {count - 1} only"
        )
    if not args.planes and not set(chosen) & set(holding):
        raise SegmentError(
            f"{args.labels}: the slices of --slices hold no label; "
            f"labels are on slices {holding[0]} to {holding[-1]}"
        )
    return chosen


def _outside(mask: NDArray[np.uint8], planes: Sequence[tuple[Axis, int]]) -> NDArray[np.uint8]:
    """A mask without what it holds on planes."""
    rest = mask.copy() if planes else mask
    for axis, index in planes:
        rest[(slice(None),) * ARRAY_AXIS[axis] + (index,)] = 0
    return rest


def _session(
    volume: Volume,
    labels: LabelMap,
    slices: tuple[int, ...],
    names: dict[int, str],
    args: argparse.Namespace,
) -> Session:
    """Make a session that knows the painted slices, and nothing of the other ones."""
    truth = labels.mask[list(slices)]
    planes = [
        (axis, index, np.take(labels.mask, index, ARRAY_AXIS[axis])) for axis, index in args.planes
    ]
    ids = np.unique(np.concatenate([truth.ravel(), *(mask.ravel() for _, _, mask in planes)]))
    wanted: tuple[Label, ...] = labels_for(ids, labels.labels, names)
    session = Session(volume, wanted, backbone=args.backbone, folder=False)
    if args.model:
        session.trainer.load_model(args.model)
    else:
        _ = session.trainer.backbone  # a missing one is named now, not after the volume is prepared
    for z, mask in zip(slices, truth, strict=True):
        session.paint.set_slice(z, mask, SliceState.PAINTED)
    for axis, index, mask in planes:
        session.paint.planes.set_plane(axis, index, mask, SliceState.PAINTED)
    if slices:
        session.trainer.current = slices[len(slices) // 2]
    return session


def _rehearse(session: Session, output: Path) -> None:
    """Write the paint alone, elsewhere: a format that cannot hold it is refused before training."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / output.name
        try:
            write_mask(part, session.paint.mask, session.volume.geometry, session.paint.labels)
        except VolumeError as error:
            raise SegmentError(str(error).replace(str(part), str(output))) from error


def follow(steps: Generator[Progress, None, T], line: ProgressLine) -> T:
    """Drive a task to its end and return its result; what it says is shown once."""
    said: set[str] = set()

    def show(progress: Progress) -> None:
        if progress.note not in ({"", progress.stage} | said):
            said.add(progress.note)
            line.say(f"napari-diffseg: {progress.note}")
        line.update(
            progress.stage, progress.step, progress.steps, progress.remaining, progress.loss
        )

    return result_of(mapped(steps, show))


def _predict(session: Session, line: ProgressLine) -> None:
    count = len(session.volume.hu)
    began = time.monotonic()
    for done, _ in enumerate(session.trainer.predict(), start=1):
        line.update("predicting", done, count, (time.monotonic() - began) / done * (count - done))


def _report(session: Session, args: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Collect what was done. No path and no file's name: they may name a patient."""
    volume = session.volume
    report = session.report()
    del report["rounds"]  # there is one, and it is described above
    return report | {
        "start": "saved model" if args.model else session.trainer.backbone.name,
        "volume": {
            "shape_zyx": list(volume.hu.shape),
            "spacing_zyx_mm": list(volume.geometry.spacing),
            "notes": list(volume.geometry.notes),
        },
        "seconds": clock.seconds | {"total": clock.total},
        "seconds_of_training": session.rounds.all[-1].seconds,
    }


def _quality_table(session: Session) -> str:
    quality = session.trainer.quality
    rows = [(label.name, figure(quality.get(label.id))) for label in session.paint.labels]
    rows.append(("mean", figure(mean_of(quality.values()))))
    return table(("leave-one-painted-slice-out", "Dice"), rows)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write, read again, and only then give the file its name."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    try:
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
            if part.read_text(encoding="utf-8") != text:
                raise SegmentError(f"{path}: reads back differently; check the disk")
    except OSError as error:
        raise SegmentError(f"{path}: cannot be written ({error.strerror})") from error
