"""The sessions of a user, as far as they can be described without their volumes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from napari_diffseg.engine.cohort import Case
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.labels import Label, labels_from_json
from napari_diffseg.io.voxels import check_memory, check_regular
from napari_diffseg.network.backbone import home
from napari_diffseg.session.journal import SessionError, decode
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.rounds import rounds_in
from napari_diffseg.session.stored_slices import About, about_slices, read_slices


@dataclass(frozen=True)
class EarlierSession:
    """A session on disk.

    Attributes
    ----------
    folder
        Where it is kept.
    volume
        The hash that its volume is known by.
    name
        Of the volume; empty where no slice is stored.
    labels
        Structures on the stored slices, or else those of the session.
    painted
        Slices that hold paint, or were accepted.
    stored
        Painted slices that can be learnt from without the volume.
    changed
        When it was changed last, in local time.
    trainings
        Rounds of training, loaded models aside.
    predicted
        Whether there is a model, trained or loaded.
    dice
        Mean leave-one-out Dice of the last round that was measured.
    seconds
        Wall time of all trainings.
    problem
        Why it cannot be learnt from; empty where it can.
    """

    folder: Path
    volume: str
    name: str
    labels: tuple[Label, ...]
    painted: int
    stored: int
    changed: datetime
    trainings: int
    predicted: bool
    dice: float | None
    seconds: float
    problem: str

    def __call__(self) -> Case:
        """Read its stored slices.

        Raises
        ------
        SessionError
            If there are none, or they are damaged.
        """
        return read_slices(self.folder)


def sessions_folder(root: Path | None = None) -> Path:
    """Where sessions are kept; ``None`` is the user's data folder."""
    return Path(root or home() / "sessions")


def earlier_sessions(
    root: Path | None = None, without: Collection[str] = ()
) -> tuple[EarlierSession, ...]:
    """Describe this user's sessions, the one that was changed last first.

    Of several sessions of one volume, that is the newest with stored slices, or else the newest.

    Parameters
    ----------
    root
        Where sessions are kept; ``None`` is the user's data folder.
    without
        Hashes of volumes that are left out, such as the one that is open.
    """
    found = []
    place = sessions_folder(root)
    for volume in sorted(place.iterdir()) if place.is_dir() else []:
        if volume.name not in without and volume.is_dir():
            sessions = list(_sessions_of(volume))
            usable = [one for one in sessions if not one.problem]
            found += (usable or sessions)[-1:]
    return tuple(sorted(found, key=lambda one: one.changed, reverse=True))


def latest_session(root: Path, volume: str) -> EarlierSession | None:
    """Describe the newest session of the volume with this hash, or return ``None``."""
    place = root / volume
    return next(iter([*_sessions_of(place)][-1:]), None) if place.is_dir() else None


def _sessions_of(volume: Path) -> Iterator[EarlierSession]:
    """Sessions of one volume, the newest last."""
    numbered = [path for path in volume.iterdir() if path.name.isdecimal()]
    for folder in sorted(numbered, key=lambda path: int(path.name)):
        with suppress(SessionError):
            yield describe_session(folder)


def is_session(folder: Path) -> bool:
    """Whether a folder holds a session."""
    return (folder / "journal").is_file()


def describe_session(folder: Path) -> EarlierSession:
    """Describe the session in a folder.

    Raises
    ------
    SessionError
        If it holds none, or it cannot be read.
    """
    journal = folder / "journal"
    try:
        check_regular(journal)
        check_memory(journal, journal.stat().st_size)
        data, changed = journal.read_bytes(), journal.stat().st_mtime
    except (OSError, VolumeError) as error:
        raise SessionError(f"{folder}: holds no session that can be read") from error
    labels: tuple[Label, ...] = ()
    states: dict[int, int] = {}
    for record in decode(data):
        with suppress(LookupError, TypeError, ValueError):
            if record.header["op"] == "labels":
                labels = labels_from_json(record.header["labels"])
            elif record.header["op"] == "slice":
                states[int(record.header["z"])] = int(record.header["state"])
    painted = sum(state > SliceState.UNPAINTED for state in states.values())
    rounds, _ = rounds_in(folder)
    measured = [made.quality for made in rounds if made.quality]
    stored, problem = About("", labels, 0), ""
    try:
        stored = about_slices(folder)
    except SessionError as error:
        problem = str(error)
        if not painted:
            problem = "Nothing is painted in it."
        elif not (folder / "slices.npz").exists():
            problem = "It keeps no slices yet: open its volume and train once."
    return EarlierSession(
        folder=folder,
        volume=folder.parent.name,
        name=stored.name,
        labels=stored.labels,
        painted=painted,
        stored=stored.slices,
        changed=datetime.fromtimestamp(changed).astimezone(),
        trainings=sum(made.settings is not None for made in rounds),
        predicted=bool(rounds),
        dice=sum(measured[-1].values()) / len(measured[-1]) if measured else None,
        seconds=sum(made.seconds.get("total", 0.0) for made in rounds),
        problem=problem,
    )
