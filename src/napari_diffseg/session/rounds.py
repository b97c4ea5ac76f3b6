"""Rounds of training: every model is kept, and what it predicted."""

from __future__ import annotations

import io
import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.registration import Registration
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.files import atomic_write
from napari_diffseg.io.typed import from_json
from napari_diffseg.io.voxels import read_text
from napari_diffseg.network.segmenter import Segmenter, SegmenterError
from napari_diffseg.session.arrays import read_arrays, write_arrays
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.log import SessionLog
from napari_diffseg.session.registration_file import read_registration, write_registration

_MAX_POINTS = 1000
_REGISTRATION = "motion.npz"


class LossHistory:
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
        if len(self.points) >= _MAX_POINTS:
            self._every *= 2
            self.points = [point for point in self.points if point[0] % self._every == 0]


@dataclass(frozen=True)
class Round:
    """One training, or one model that was loaded, or adapted to this CT without paint."""

    number: int  # counts from 1
    settings: TrainSettings | None = None  # how it was trained; None for another model
    parent: int | None = None  # the round whose model it went on from; None: from the backbone
    slices: tuple[int, ...] = ()  # the painted slices it was trained on
    planes: tuple[str, ...] = ()  # and the planes, such as "coronal:120"
    corrected: tuple[int, ...] = ()  # those of the slices that an earlier model had got wrong
    iterations: int = 0  # optimiser steps
    seconds: dict[str, float] = field(default_factory=dict)  # wall time of each stage
    losses: tuple[tuple[int, float], ...] = ()  # (step, loss), at most 1000 of them
    quality: dict[int, float] = field(default_factory=dict)  # leave-one-out Dice by label id
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def adapted(self) -> bool:
        """Whether the model of another patient was adapted to this one."""
        return self.settings is None and self.parent is not None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Round:
        """Make a round from what :func:`dataclasses.asdict` and JSON made of it.

        Raises
        ------
        ValueError
            If it is something else.
        """
        rest = dict(values)
        settings = rest.pop("settings", None)
        quality = from_json(_Quality, {"quality": rest.pop("quality", {})}).quality
        made = replace(
            from_json(cls, rest),
            settings=None if settings is None else from_json(TrainSettings, settings),
            quality={int(key): value for key, value in quality.items()},
        )
        numbers = [*made.quality.values(), *made.seconds.values(), *(x for _, x in made.losses)]
        if not 1 <= made.number < 1 << 16 or not all(map(math.isfinite, numbers)):
            raise ValueError("its numbers are impossible")
        return made


@dataclass(frozen=True)
class _Quality:
    quality: dict[str, float]


class StoredPrediction(NamedTuple):
    """A stored prediction: the slices ``(n,)``, their masks and confidences ``(n, y, x)``."""

    slices: NDArray[np.int64]
    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


def rounds_in(folder: Path) -> tuple[tuple[Round, ...], list[str]]:
    """Read the rounds of a session's folder, and say what is wrong with any of them."""
    found, wrong = [], []
    for path in sorted(folder.glob("round-*.json")):
        try:
            made = Round.from_json(json.loads(read_text(path)))
            if path.stem != f"round-{made.number:04}":
                raise ValueError("it is another round")
            found.append(made)
        except (OSError, ValueError, TypeError, RecursionError):
            wrong.append(f"{path.stem} could not be read and is left out")
    return tuple(found), wrong


class Rounds:
    """All rounds of a session, in its folder; in memory while it has none.

    Parameters
    ----------
    log
        Knows the session's folder.

    Attributes
    ----------
    all
        Ascending by number.
    registration
        The volume's registration from slice to slice, and near painted planes from plane to plane,
        which every model of it can use.
    """

    def __init__(self, log: SessionLog) -> None:
        self.all: tuple[Round, ...] = ()
        self.registration: Registration | None = None
        self._log = log
        self._models: dict[int, Segmenter] = {}
        self._predictions: dict[int, bytes] = {}

    def numbered(self, number: int) -> Round:
        """Return the round with this number.

        Raises
        ------
        SessionError
            If there is none.
        """
        for round_ in self.all:
            if round_.number == number:
                return round_
        raise SessionError(f"there is no round {number}; there are {len(self.all)}")

    @property
    def next_number(self) -> int:
        """Number of the next round."""
        return max((round_.number for round_ in self.all), default=0) + 1

    def _file(self, number: int, suffix: str) -> Path:
        assert self._log.folder is not None
        return self._log.folder / f"round-{number:04}{suffix}"

    def read_folder(self) -> list[str]:
        """Find rounds and registration in the folder; returns what is wrong with any of them."""
        folder = self._log.folder
        assert folder is not None
        self.all, wrong = rounds_in(folder)
        if (folder / _REGISTRATION).is_file():
            try:
                self.registration = read_registration(folder / _REGISTRATION, self._log.shape[0])
            except ValueError:
                wrong.append("the registration of the slices is lost until the next training")
        return wrong

    def commit(
        self, round_: Round, segmenter: Segmenter, registration: Registration | None = None
    ) -> None:
        """Add a round; its JSON is written last, so a round with JSON is whole."""
        self.keep_registration(registration)
        if self._log.folder is None:
            self._models[round_.number] = segmenter
        else:
            segmenter.save(self._file(round_.number, ".safetensors"))
        self._put(round_)

    def keep_registration(self, registration: Registration | None) -> None:
        """Keep a registration that is newer than the one that is there.

        Raises
        ------
        OSError
            If it cannot be written; the session has it nevertheless.
        """
        if registration is None or registration is self.registration:
            return
        self.registration = registration
        if self._log.folder is not None:
            with atomic_write(self._log.folder / _REGISTRATION) as part:
                write_registration(part, registration)

    def hold(
        self, round_: Round, segmenter: Segmenter, registration: Registration | None = None
    ) -> None:
        """Add a round that cannot be written: it lasts as long as the session is open."""
        self._models[round_.number] = segmenter
        self.registration = registration or self.registration
        self.all = (*self.all, round_)

    def rate(self, number: int, quality: dict[int, float]) -> None:
        """Note the quality of a round."""
        self._put(replace(self.numbered(number), quality=dict(quality)))

    def _put(self, round_: Round) -> None:
        """Write a round's description, in the place of one with the same number."""
        if self._log.folder is not None:
            with atomic_write(self._file(round_.number, ".json")) as part:
                part.write_text(json.dumps(asdict(round_), indent=1), encoding="utf-8")
        others = [other for other in self.all if other.number != round_.number]
        self.all = tuple(sorted([*others, round_], key=lambda r: r.number))

    def model(self, number: int) -> Segmenter:
        """Load the model of a round.

        Raises
        ------
        SessionError
            If there is no such round, or its file is gone or damaged.
        """
        self.numbered(number)
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

    def base(self, round_: Round) -> tuple[Round, Segmenter]:
        """Load the model that a round went on from.

        Raises
        ------
        SessionError
            If there is none, or its file is gone or damaged.
        """
        if round_.parent is None:
            raise SessionError(f"round {round_.number} began at the backbone")
        return self.numbered(round_.parent), self.model(round_.parent)

    def store_prediction(self, number: int, prediction: StoredPrediction) -> None:
        """Keep what a round's model predicted."""
        if self._log.folder is None:
            buffer = io.BytesIO()
            write_arrays(buffer, prediction._asdict())
            self._predictions[number] = buffer.getvalue()
        else:
            with atomic_write(self._file(number, ".npz")) as part:
                write_arrays(part, prediction._asdict())

    def add_prediction(self, number: int, part: StoredPrediction) -> None:
        """Keep what a round's model predicted on some slices, beside what is kept of others."""
        # The file is replaced, so what it holds of other slices has to go on with it.
        with suppress(SessionError):
            before = self.prediction(number)
            if before is not None:
                other = ~np.isin(before.slices, part.slices)
                part = StoredPrediction(
                    np.concatenate([part.slices, before.slices[other]]),
                    np.concatenate([part.mask, before.mask[other]]),
                    np.concatenate([part.confidence, before.confidence[other]]),
                )
        self.store_prediction(number, part)

    def prediction(self, number: int) -> StoredPrediction | None:
        """Return what a round's model predicted, or ``None`` when nothing was stored."""
        self.numbered(number)
        if number in self._predictions:
            source: Path | io.BytesIO = io.BytesIO(self._predictions[number])
        elif self._log.folder is None or not self._file(number, ".npz").is_file():
            return None
        else:
            source = self._file(number, ".npz")
        try:
            most = max(math.prod(self._log.shape), 8 * self._log.shape[0])
            stored = StoredPrediction(*read_arrays(source, StoredPrediction._fields, most))
            kinds = [array.dtype.str for array in stored]
            if kinds != ["<i8", "|u1", "|u1"] or stored.slices.ndim != 1:
                raise ValueError("is no prediction")
        except ValueError as error:
            raise SessionError(
                f"the stored prediction of round {number} is damaged; predict again"
            ) from error
        return stored
