"""Whether the slices that the app suggests are the ones to paint.

Painting is simulated: the first slice that the session suggests is painted in full as the reference
has it, the app trains and predicts, the next suggestion is painted, and so on. The same numbers of
slices are painted evenly spread over the volume, and at random; and with suggestions of coronal and
sagittal planes, where the session has one. The model of other patients, where one is given, adapts
to the volume first; its prediction before any paint is the first row, and each training goes on
from it. Each row is the mean Dice over the slices between the first and the last labelled one,
without the painted slices; rows that are in the file already are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from diffseg_training.benchmark.datasets import DatasetError, find_names, find_scans, labels_of
from diffseg_training.benchmark.tables import markdown
from diffseg_training.benchmark.tasks import Scan
from napari_diffseg.engine.adaptation import adapt
from napari_diffseg.engine.metrics import dice, mean_of
from napari_diffseg.engine.progress import result_of
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.labels import Label
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.session import Session

WAYS = ("suggested", "planes", "even", "random")

_ASKING = ("suggested", "planes")  # after each round


@dataclass(frozen=True)
class Choice:
    """What to compare.

    Attributes
    ----------
    rounds
        Numbers of painted slices to report.
    seeds
        Of the random choice and, the first one, of the training.
    iterations, grid
        Of each training.
    model
        Of other patients, to go on from.
    """

    rounds: tuple[int, ...] = (2, 4, 6, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    iterations: int = 300
    grid: int = 128
    model: Path | None = None


def even_slices(count: int, wanted: int) -> list[int]:
    """Middles of equal parts of a volume of `count` slices.

    Examples
    --------
    >>> even_slices(12, 3)
    [2, 6, 10]
    """
    return [int((n + 0.5) * count / wanted) for n in range(wanted)]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--volumes", nargs="+", required=True, type=Path, metavar="PATH")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.jsonl")
    parser.add_argument("--rounds", default="2,4,6,8", metavar="N,N")
    parser.add_argument("--seeds", default="0,1,2", metavar="N,N")
    parser.add_argument("--ways", default=",".join(WAYS), help="of suggested, planes, even, random")
    parser.add_argument("--iterations", type=int, default=Choice.iterations)
    parser.add_argument("--grid", type=int, default=Choice.grid)
    parser.add_argument("--model", type=Path, help="of other patients, to begin with")
    parser.add_argument("--structures", metavar="NAME,NAME", help="to paint and test; default: all")
    parser.set_defaults(run=_run)


def rows(
    name: str,
    scan: Scan,
    labels: Sequence[Label],
    way: str,
    choice: Choice,
    known: list[Any],
    start: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Measure one way of choosing on one volume; rows of `known` are taken as they are.

    ``start`` is the choice's model, adapted to this volume.
    """
    same = {"scan": name, "way": way, "iterations": choice.iterations, "grid": choice.grid}
    begun = choice.model.stem if choice.model else "backbone"
    same |= {"model": begun, "structures": len(labels)}
    seeds = choice.seeds if way == "random" else choice.seeds[:1]
    for seed in seeds:
        chosen: list[int | str] = []
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(scan.reference)).tolist()
        first = 0 if choice.model else 1
        counts = range(first, max(choice.rounds) + 1) if way in _ASKING else choice.rounds
        for count in counts:
            if way == "even":
                chosen = [*even_slices(len(scan.reference), count)]
            elif way == "random":
                chosen = [*order[:count]]
            key = {**same, "seed": seed, "slices": count}
            row = next((r for r in known if r.items() >= key.items()), None)
            if row is None:
                row = {**key, **_measured(scan, labels, chosen, way, choice, start)}
                yield row
            chosen = [*row["painted"], row["next"]] if way in _ASKING else []


def _measured(
    scan: Scan,
    labels: Sequence[Label],
    chosen: list[int | str],
    way: str,
    choice: Choice,
    start: Path | None,
) -> dict[str, Any]:
    with Session(scan.volume, labels, folder=False) as session:
        if start is not None:
            session.trainer.load_model(start, by_name=True)
        elif not chosen:
            chosen = [session.suggest()[0].z]
        ids = [label.id for label in labels]
        truth = np.where(np.isin(scan.reference, ids), scan.reference, 0).astype(np.uint8)
        for place in chosen:
            if isinstance(place, int):
                session.paint.set_slice(place, truth[place], SliceState.PAINTED)
            else:
                axis, at = place.split(":")
                mask = truth[:, int(at)] if axis == "coronal" else truth[:, :, int(at)]
                session.paint.planes.set_plane(axis, int(at), mask, SliceState.PAINTED)
        settings = TrainSettings(iterations=choice.iterations, grid=choice.grid)
        with suppress(SessionError):  # nothing of interest is on the slices
            if chosen:
                result_of(session.trainer.train(settings, "loaded"))
        with suppress(SessionError):  # so that there is no model
            for _ in session.trainer.predict():
                pass
        holding = np.flatnonzero(np.isin(scan.reference, ids).any(axis=(1, 2)))
        tested = [z for z in range(holding[0], holding[-1] + 1) if z not in chosen]
        quality = dice(session.prediction.mask[tested], scan.reference[tested], ids)
        row: dict[str, Any] = {"painted": chosen, "dice": round(mean_of(quality.values()), 4)}
        if way in _ASKING:
            suggestion = session.suggest()[0]
            row |= {"next": suggestion.z, "reason": suggestion.reason}
            plane = session.suggest_plane() if way == "planes" else None
            if plane is not None:
                row |= {"next": f"{plane.axis}:{plane.index}", "reason": plane.reason}
        return row


def table(found: Sequence[dict[str, Any]], rounds: Sequence[int]) -> str:
    """Markdown table of mean Dice, seeds averaged, by volume, way and what training began at."""
    body = []
    starts = sorted({row["model"] for row in found})
    for scan, start in product(sorted({row["scan"] for row in found}), starts):
        for way in WAYS:
            cells = []
            for count in rounds:
                values = [
                    r["dice"]
                    for r in found
                    if (r["scan"], r["model"], r["way"], r["slices"]) == (scan, start, way, count)
                ]
                cells.append(f"{np.mean(values):.3f}" if values else "")
            if any(cells):
                body.append([scan, start, way, *cells])
    return markdown(["volume", "begun at", "slices", *map(str, rounds)], body)


def _run(arguments: argparse.Namespace) -> int:
    rounds, seeds = (
        tuple(int(n) for n in text.split(",")) for text in (arguments.rounds, arguments.seeds)
    )
    choice = Choice(rounds, seeds, arguments.iterations, arguments.grid, arguments.model)
    wanted = set(arguments.structures.split(",")) if arguments.structures else None
    output = arguments.output
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    known = [json.loads(line) for line in lines]
    files = find_scans(arguments.volumes)
    names = find_names(arguments.volumes)
    for one in files:
        scan = one.read()
        labels = [
            label
            for label in labels_of([scan], names)
            if (scan.reference == label.id).any() and (wanted is None or label.name in wanted)
        ]
        with TemporaryDirectory() as folder:
            start = None
            if choice.model is not None:
                start, model = Path(folder) / choice.model.name, Segmenter.load(choice.model)
                unknown = {label.name for label in labels} - {label.name for label in model.labels}
                if unknown:
                    raise DatasetError(
                        f"{choice.model}: does not know {', '.join(sorted(unknown))}; choose "
                        "--structures that it knows"
                    )
                result_of(adapt(model, scan.volume)).save(start)
            for way in arguments.ways.split(","):
                for row in rows(one.name, scan, labels, way, choice, known, start):
                    known.append(row)
                    with output.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(row) + "\n")
                    print(json.dumps(row), file=sys.stderr, flush=True)
    print(table(known, rounds))
    return 0
