"""A queue of patients: which come next, what a model has predicted already, and how far each is.

The queue is one file in the user's data folder. It holds paths, for it must open the volumes again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

import filelock
import torch

from napari_diffseg.io.files import atomic_write, check_outputs, content_sha256, make_folder
from napari_diffseg.io.finding import find_volumes
from napari_diffseg.io.typed import from_json
from napari_diffseg.io.volume import read_volume
from napari_diffseg.io.voxels import read_text
from napari_diffseg.network.backbone import home
from napari_diffseg.network.segmenter import Segmenter, SegmenterError
from napari_diffseg.session.adapting import adapt_model
from napari_diffseg.session.earlier import EarlierSession, latest_session
from napari_diffseg.session.journal import SessionError, saving
from napari_diffseg.session.log import volume_id
from napari_diffseg.session.session import Session

State = Literal["waiting", "predicted", "open", "painted", "trained", "finished"]

_FORMAT = 1
_LOCK_SECONDS = 5.0
_NOT_SAVED = "{path}: the queue cannot be saved ({reason}); free some space"


@dataclass(frozen=True)
class QueuedCase:
    """One patient of a queue.

    Attributes
    ----------
    path
        File or DICOM folder.
    name
        What it is called in the table.
    volume
        Hash of the volume, once it was read.
    finished
        Whether the user went on from it after a training.
    model
        SHA-256 of the model that predicted it before it was opened.
    """

    path: str
    name: str
    volume: str = ""
    finished: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]*", self.volume):  # it becomes the name of a folder
            raise ValueError("its volume is no hash")


@dataclass(frozen=True)
class CaseRow:
    """One row of the table of a queue.

    Attributes
    ----------
    case
        Name.
    state
        ``waiting`` (never read), ``predicted`` (by a model, before any paint), ``open`` (without
        either), ``painted``, ``trained`` or ``finished``.
    slices
        Painted slices.
    dice
        Mean leave-one-out Dice of the last round that was measured.
    seconds
        Wall time of its trainings.
    """

    case: str
    state: State
    slices: int
    dice: float | None
    seconds: float


def queue_model(folder: Path | None = None) -> Path:
    """File of the model that the next patient starts from; ``None`` is the user's data folder."""
    return Path(folder or home()) / "queue-model.safetensors"


class Queue:
    """The patients of this user that are still to be segmented, and those that are done.

    Parameters
    ----------
    folder
        Of the queue's file and of ``sessions``; ``None`` is the user's data folder.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "anna.nii.gz").touch()
    >>> queue = Queue(folder)
    >>> queue.add([folder / "anna.nii.gz"])
    1
    >>> [(row.case, row.state) for row in Queue(folder).rows()]
    [('anna', 'waiting')]
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = Path(folder or home())
        self._file = self._folder / "queue.json"
        self._cases: tuple[QueuedCase, ...] = ()
        if self._file.exists():
            self._cases = self._read()

    @property
    def cases(self) -> tuple[QueuedCase, ...]:
        """In their order."""
        return self._cases

    @property
    def model(self) -> Path:
        """File of the model that the next patient starts from; it need not be there."""
        return queue_model(self._folder)

    def add(self, words: Iterable[str | Path]) -> int:
        """Add volumes at the end: files, DICOM folders, folders, patterns or lists.

        Returns
        -------
        How many were not there before.

        Raises
        ------
        VolumeError
            If a list cannot be read, or a pattern, list or folder has no volume.
        """
        found = find_volumes(words)
        with self._changing() as cases:
            there = {case.path for case in cases}
            new = [QueuedCase(str(one.path.absolute()), one.name) for one in found]
            new = [case for case in new if case.path not in there]
            cases += new
        return len(new)

    def remove(self, path: str) -> None:
        """Take a volume off the queue; its session stays."""
        with self._changing() as cases:
            cases[:] = [case for case in cases if case.path != path]

    def read(self, path: str, volume: str) -> None:
        """Note the hash of a volume that was read."""
        self._update(path, lambda case: replace(case, volume=volume))

    def finish(self, path: str, finished: bool = True) -> None:
        """Note that a patient is done, or is not."""
        self._update(path, lambda case: replace(case, finished=finished))

    def of(self, volume: str) -> QueuedCase | None:
        """The patient with this volume."""
        return next((case for case in self._cases if case.volume == volume), None)

    def at(self, path: str) -> QueuedCase | None:
        """The patient whose volume is at a path."""
        return next((case for case in self._cases if case.path == path), None)

    def next(self, after: QueuedCase | None = None) -> QueuedCase | None:
        """The patient that comes after one: the next that is not finished, from the first at last.

        Returns
        -------
        ``None`` where all others are finished.
        """
        paths = [case.path for case in self._cases]
        at = paths.index(after.path) + 1 if after is not None and after.path in paths else 0
        rest = [*self._cases[at:], *self._cases[: max(at - 1, 0)]]
        return next((case for case in rest if not case.finished), None)

    def take_model(self, session: Session) -> None:
        """Let the next patient start from the model of a session, unless a newer one was learnt.

        Raises
        ------
        SessionError
            If it cannot be written.
        """
        made, segmenter = session.trainer.round, session.trainer.segmenter
        if made is not None and made.adapted:
            # That fits this patient only; what was adapted is for others, too.
            with suppress(SessionError):  # it was deleted to make room
                made, segmenter = session.rounds.base(made)
        if made is None or segmenter is None or made.adapted:
            return
        if self.model.exists():
            learnt = datetime.fromtimestamp(self.model.stat().st_mtime).astimezone()
            if learnt > datetime.fromisoformat(made.created) or _holds(self.model, segmenter):
                return
        if segmenter is session.trainer.segmenter:
            session.trainer.save_model(self.model)
        else:
            with saving(_NOT_SAVED.replace("{path}", str(self.model))):
                segmenter.save(self.model)

    def prepare(self, case: QueuedCase) -> Generator[float, None, None]:
        """Predict a patient with :attr:`model` before anybody looks, and keep that in its session.

        The model adapts to the CT first. One that was painted, or predicted by this very model, is
        left as it is, as are all where there is no model. Closing the iterator keeps what is
        predicted so far.

        Yields
        ------
        The share that is done.

        Raises
        ------
        SessionInUseError
            If it is open elsewhere.
        """
        if not self.model.exists():
            return
        fingerprint = content_sha256(self.model)
        if case.model == fingerprint:
            return
        volume = read_volume(case.path)
        self.read(case.path, volume_id(volume))
        sessions = self._folder / "sessions"
        with Session.recover(volume, sessions) or Session(volume, folder=sessions) as session:
            if session.paint.states.any():
                return
            session.trainer.load_model(self.model, by_name=True)
            for step in adapt_model(session):
                if step.remaining is not None:
                    yield step.seconds / (step.seconds + step.remaining) / 2
            for done, _ in enumerate(session.trainer.predict(), start=1):
                yield (1 + done / len(volume.hu)) / 2
        self._update(case.path, lambda case: replace(case, model=fingerprint))

    def rows(self) -> tuple[CaseRow, ...]:
        """Say how far each patient is; reads every session, so it may take a while."""
        return tuple(self._row(case) for case in self._cases)

    def write_table(self, path: Path) -> None:
        """Write :meth:`rows` as CSV.

        Raises
        ------
        SessionError
            If it cannot be written.
        """
        check_outputs([path], [Path(case.path) for case in self._cases])
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("case", "state", "slices_painted", "leave_one_out_dice", "seconds"))
        for row in self.rows():
            dice = "" if row.dice is None else f"{row.dice:.4f}"
            table.writerow((row.case, row.state, row.slices, dice, f"{row.seconds:.1f}"))
        failed = f"{path}: cannot be written ({{reason}}); choose another place"
        with saving(failed), atomic_write(path) as part:
            part.write_text(text.getvalue(), encoding="utf-8")

    def _row(self, case: QueuedCase) -> CaseRow:
        session = None
        if case.volume:
            session = latest_session(self._folder / "sessions", case.volume)
        state = _state(case, session)
        if session is None:
            return CaseRow(case.name, state, 0, None, 0.0)
        return CaseRow(case.name, state, session.painted, session.dice, session.seconds)

    def _update(self, path: str, change: Callable[[QueuedCase], QueuedCase]) -> None:
        with self._changing() as cases:
            cases[:] = [change(case) if case.path == path else case for case in cases]

    @contextmanager
    def _changing(self) -> Iterator[list[QueuedCase]]:
        """Give the cases to be changed, as they are on disk now, and write them."""
        with saving(_NOT_SAVED.replace("{path}", str(self._file))):
            make_folder(self._folder)
            lock = filelock.FileLock(self._file.with_suffix(".lock"), timeout=_LOCK_SECONDS)
            with lock:
                cases = list(self._read() if self._file.exists() else ())
                before = list(cases)
                yield cases
                if cases != before:
                    values = {"format": _FORMAT, "cases": [asdict(case) for case in cases]}
                    with atomic_write(self._file) as part:
                        part.write_text(json.dumps(values, indent=1), encoding="utf-8")
                self._cases = tuple(cases)

    def _read(self) -> tuple[QueuedCase, ...]:
        try:
            values = json.loads(read_text(self._file))
            version = values["format"]
            if isinstance(version, int) and version > _FORMAT:
                raise SessionError(f"{self._file}: was saved by a newer napari-diffseg; update it")
            return tuple(from_json(QueuedCase, case) for case in values["cases"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, SessionError):
                raise
            raise SessionError(
                f"{self._file}: is no queue; delete it, and add the volumes again"
            ) from error


def _state(case: QueuedCase, session: EarlierSession | None) -> State:
    if case.finished:
        return "finished"
    if session is None:
        return "waiting"
    if session.trainings:
        return "trained"
    if session.painted:
        return "painted"
    return "predicted" if session.predicted else "open"


def _holds(path: Path, segmenter: Segmenter) -> bool:
    """Whether a file has the weights of a model."""
    try:
        weights, own = Segmenter.load(path).state_dict(), segmenter.state_dict()
    except SegmenterError:
        return False
    return weights.keys() == own.keys() and all(
        torch.equal(weights[name], own[name].cpu()) for name in own
    )
