"""Several readers of one CT: each has sessions of their own, and they can be compared."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from napari_diffseg.engine.agreement import compare, matched
from napari_diffseg.io.labels import Label, LabelMap
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import home
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.log import volume_id
from napari_diffseg.session.session import Session

FIRST = "first reader"
"""Name of whoever gave none: the sessions of the user's data folder."""

_NAME = re.compile(r"\w[\w .-]{0,39}")


def reader_folder(name: str) -> Path:
    """Where the sessions of a reader are kept.

    Parameters
    ----------
    name
        Letters, digits, spaces, dots, hyphens; :data:`FIRST` is whoever gave none.

    Raises
    ------
    SessionError
        If it cannot be the name of a folder.
    """
    if name == FIRST:
        return home() / "sessions"
    if not _NAME.fullmatch(name) or name.endswith((".", " ")):
        raise SessionError(
            f"{name[:40]!r} is no name of a reader: use up to 40 letters, digits, spaces, dots "
            "and hyphens"
        )
    return home() / "readers" / name


def readers_of(volume: Volume) -> tuple[str, ...]:
    """Names of all who have a session of this volume, the first reader first."""
    place, found = home() / "readers", []
    if (home() / "sessions" / volume_id(volume)).is_dir():
        found.append(FIRST)
    names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
    return (*found, *(name for name in names if (place / name / volume_id(volume)).is_dir()))


def read_as(volume: Volume, name: str, labels: Sequence[Label] = ()) -> Session:
    """Open a reader's session of a volume, or begin one with the names of these labels.

    Nothing of another reader's paint, prediction or model is in it.

    Raises
    ------
    SessionInUseError
        If it is open in another window or process.
    SessionError
        If the name cannot be used.
    """
    folder = reader_folder(name)
    found = Session.recover(volume, folder)
    return Session(volume, labels, folder=folder) if found is None else found


def reading(volume: Volume, name: str) -> LabelMap:
    """Paint over prediction of a reader, as it is saved; nothing is opened for writing.

    Raises
    ------
    SessionError
        If there is none.
    """
    session = Session.recover(volume, reader_folder(name), access="read-only")
    if session is None:
        raise SessionError(f"{name} has no session of this CT")
    with session:
        return LabelMap(session.merged(), session.paint.labels)


def agreement_csv(volume: Volume) -> str:
    """Compare each pair of readers; a row for each pair and label.

    Raises
    ------
    SessionError
        If fewer than two have a session of this volume.
    """
    names = readers_of(volume)
    if len(names) < 2:
        raise SessionError("only one reader has a session of this CT; read it as another one first")
    maps = {name: reading(volume, name) for name in names}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("reader A", "reader B", "label", "Dice", "HD95 mm", "surface Dice", "kappa"))
    for a, b in combinations(names, 2):
        mask, labels = matched(maps[a], maps[b])
        for one in compare(maps[a].mask, mask, volume.geometry.spacing, labels).labels:
            scores = one.scores
            figures = (scores.dice, scores.hd95, scores.surface_dice, one.kappa)
            shown = ["" if value != value else f"{value:.4f}" for value in figures]
            table.writerow((a, b, scores.label.name, *shown))
    return text.getvalue()
