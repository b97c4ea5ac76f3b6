"""Rounds of training: every model and its prediction are kept, and can be compared."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine import metrics
from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.files import atomic_write
from napari_diffseg.network.segmenter import Segmenter, SegmenterError
from napari_diffseg.session.journal import SessionError

_POINTS = 500
_MOTION = "motion.npz"


class LossCurve:
    """The losses of a training, thinned so that there are never more than 1000.

    Attributes
    ----------
    points
        ``(step, loss)`` pairs.
    """

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._every = 1

    def add(self, step: int, loss: float) -> None:
        """Add one loss."""
        if step % self._every == 0:
            self.points.append((step, round(loss, 6)))
        if len(self.points) >= 2 * _POINTS:
            self._every *= 2
            self.points = [point for point in self.points if point[0] % self._every == 0]


@dataclass(frozen=True)
class Round:
    """One training, or one model that was loaded.

    Attributes
    ----------
    number
        Counts from 1.
    settings
        How it was trained; ``None`` for a loaded model.
    parent
        The round whose model it went on from; ``None`` when it began at the backbone.
    slices
        The painted slices it was trained on.
    iterations
        Optimiser steps.
    seconds
        Wall time of each stage in s.
    losses
        ``(step, loss)``, at most 1000 of them.
    quality
        Leave-one-painted-slice-out Dice by label id; empty when it was not validated.
    created
        When it ended, ISO 8601 in UTC.
    """

    number: int
    settings: TrainSettings | None = None
    parent: int | None = None
    slices: tuple[int, ...] = ()
    iterations: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    losses: tuple[tuple[int, float], ...] = ()
    quality: dict[int, float] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Round:
        """Make a round from what :func:`dataclasses.asdict` and JSON made of it."""
        settings = values["settings"]
        return cls(
            **{
                **values,
                "settings": None if settings is None else TrainSettings(**settings),
                "slices": tuple(values["slices"]),
                "losses": tuple((step, loss) for step, loss in values["losses"]),
                "quality": {int(key): value for key, value in values["quality"].items()},
            }
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two rounds' predictions against each other.

    Attributes
    ----------
    dice
        Dice by label id; labels that are in neither are left out.
    changed
        Pixels that differ ``(z,)``, int64; 0 on slices that only one round predicted.
    """

    dice: dict[int, float]
    changed: NDArray[np.int64]


class Stored(NamedTuple):
    """A stored prediction: the slices ``(n,)``, their masks and confidences ``(n, y, x)``."""

    slices: NDArray[np.int64]
    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


class Rounds:
    """All rounds of a session, in its folder; in memory while it has none.

    Attributes
    ----------
    folder
        The session's folder, or ``None``.
    all
        Ascending by number.
    registration
        Of the volume's slices, which every model of it can use.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.all: tuple[Round, ...] = ()
        self.registration: Registration | None = None
        self._models: dict[int, Segmenter] = {}
        self._predictions: dict[int, bytes] = {}

    def __getitem__(self, number: int) -> Round:
        for round_ in self.all:
            if round_.number == number:
                return round_
        raise SessionError(f"there is no round {number}; there are {len(self.all)}")

    @property
    def next_number(self) -> int:
        """Number of the next round."""
        return max((round_.number for round_ in self.all), default=0) + 1

    def _file(self, number: int, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / f"round-{number:04}{suffix}"

    def read_folder(self) -> list[str]:
        """Find rounds and motion in the folder; returns what is wrong with any of them."""
        assert self.folder is not None
        found, wrong = [], []
        for path in sorted(self.folder.glob("round-*.json")):
            try:
                found.append(Round.from_json(json.loads(path.read_text(encoding="utf-8"))))
            except (OSError, ValueError, KeyError, TypeError):
                wrong.append(f"{path.stem} could not be read and is left out")
        self.all = tuple(found)
        try:
            with np.load(self.folder / _MOTION, allow_pickle=False) as arrays:
                self.registration = Registration(arrays["up"], arrays["down"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            wrong.append("how the slices resemble each other is lost until the next training")
        return wrong

    def commit(
        self, round_: Round, segmenter: Segmenter, registration: Registration | None = None
    ) -> None:
        """Add a round; its JSON is written last, so a round with JSON is whole."""
        if self.folder is None:
            self._models[round_.number] = segmenter
        else:
            if registration is not None and registration is not self.registration:
                with atomic_write(self.folder / _MOTION) as part:
                    np.savez(part, up=registration.up, down=registration.down)
            segmenter.save(self._file(round_.number, ".safetensors"))
        self.registration = registration or self.registration
        self.put(round_)

    def put(self, round_: Round) -> None:
        """Write a round's description, in the place of one with the same number."""
        if self.folder is not None:
            with atomic_write(self._file(round_.number, ".json")) as part:
                part.write_text(json.dumps(asdict(round_), indent=1))
        others = [other for other in self.all if other.number != round_.number]
        self.all = tuple(sorted([*others, round_], key=lambda r: r.number))

    def rate(self, number: int, quality: dict[int, float]) -> None:
        """Note the quality of a round."""
        self.put(replace(self[number], quality=dict(quality)))

    def model(self, number: int) -> Segmenter:
        """Load the model of a round.

        Raises
        ------
        SessionError
            If there is no such round, or its file is gone or damaged.
        """
        self[number]
        if number in self._models:
            return self._models[number]
        path = self._file(number, ".safetensors")
        if not path.exists():
            raise SessionError(f"the model of round {number} was deleted to make room; train again")
        try:
            return Segmenter.load(path)
        except SegmenterError as error:
            raise SessionError(
                f"the model of round {number} is damaged; train again ({error})"
            ) from error

    def store_prediction(self, number: int, prediction: Stored) -> None:
        """Keep what a round's model predicted."""
        buffer = io.BytesIO()
        # numpy's own savez_compressed has no fast level, and this runs at the end of every
        # prediction.
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in prediction._asdict().items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array)
        if self.folder is None:
            self._predictions[number] = buffer.getvalue()
        else:
            with atomic_write(self._file(number, ".npz")) as part:
                part.write_bytes(buffer.getvalue())

    def prediction(self, number: int) -> Stored | None:
        """Return what a round's model predicted, or ``None`` when nothing was stored."""
        self[number]
        if number in self._predictions:
            source: Path | io.BytesIO = io.BytesIO(self._predictions[number])
        elif self.folder is None or not self._file(number, ".npz").exists():
            return None
        else:
            source = self._file(number, ".npz")
        try:
            with np.load(source, allow_pickle=False) as arrays:
                return Stored(arrays["slices"], arrays["mask"], arrays["confidence"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise SessionError(
                f"the stored prediction of round {number} is damaged; predict again"
            ) from error

    def compare(self, a: int, b: int, slices: int, ids: Iterable[int]) -> Comparison:
        """Compare the stored predictions of rounds ``a`` and ``b`` of a volume of ``slices``."""
        pair = []
        for number in (a, b):
            stored = self.prediction(number)
            if stored is None:
                raise SessionError(f"round {number} has no prediction to compare; predict first")
            pair.append(stored)
        _, in_a, in_b = np.intersect1d(pair[0].slices, pair[1].slices, return_indices=True)
        changed = np.zeros(slices, np.int64)
        first, second = pair[0].mask[in_a], pair[1].mask[in_b]
        changed[pair[0].slices[in_a]] = (first != second).sum(axis=(1, 2))
        dice = metrics.dice(first, second, ids)
        return Comparison({key: value for key, value in dice.items() if value == value}, changed)
