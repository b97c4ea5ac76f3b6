"""Lists of cases: which volumes, whose labels, and which slices are painted."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND, PaintedSlice
from napari_diffseg.engine.cohort import Case
from napari_diffseg.io.errors import UserError
from napari_diffseg.io.labels import MAX_LABEL, has_control, ids_in, labels_for
from napari_diffseg.io.volume import read_labels, read_volume, stem
from napari_diffseg.io.voxels import read_text
from napari_diffseg.session.earlier import earlier_sessions, is_session
from napari_diffseg.session.session import Session
from napari_diffseg.session.stored_slices import read_slices

Slices = tuple[int, ...] | Literal["auto", "all"]

_MIN_RUN = 8  # labelled slices in a row that may be a whole segmentation
_END = 0.5  # of a structure's largest area; a structure that ends has less on its last slice
_COLUMNS = ("volume", "labels", "slices")


class CasesError(UserError):
    """A list of cases cannot be used."""


@dataclass(frozen=True)
class CaseFiles:
    """Where one case lies.

    Attributes
    ----------
    volume
        CT file, DICOM folder, or the folder of a session that stores its painted slices.
    labels
        Label file, or ``None`` to take the newest session of the volume.
    slices
        The painted slices; ``"all"``, or ``"auto"`` for :func:`painted_slices`.
    names
        Structures by id. Where a data set names them, every one was looked for.
    complete
        Whether ``names`` lists what was looked for, so that what is missing is not there.
    ignore
        Value of voxels that nobody labelled, or ``None``.
    """

    volume: Path
    labels: Path | None = None
    slices: Slices = "auto"
    names: Mapping[int, str] = field(default_factory=dict)
    complete: bool = False
    ignore: int | None = None

    def __call__(self) -> Case:
        """Read the case.

        Raises
        ------
        CasesError
            If nothing is painted, or a slice is named that the volume lacks.
        SessionError
            If a session stores no slices, or they are damaged.
        VolumeError
            If a file cannot be read.
        """
        if is_session(self.volume):
            return read_slices(self.volume)
        volume = read_volume(self.volume)
        if self.labels is None:
            session = Session.recover(volume)
            if session is None:
                raise CasesError(f"{self.volume}: no label file is given, and it has no session")
            with session:
                return Case(volume, session.paint.painted(), session.paint.labels)
        found = read_labels(self.labels, volume.geometry, part=True)
        listed = [label.id for label in found.labels] + ([*self.names] if self.complete else [])
        ids = {n for n in listed if n != self.ignore}
        labels = labels_for(ids, found.labels, self.names)
        chosen = self._chosen(found.mask)
        return Case(volume, [self._slice(z, found.mask[z]) for z in chosen], labels)

    def _chosen(self, mask: NDArray[np.uint8]) -> Sequence[int]:
        if self.slices == "auto":
            chosen = painted_slices(mask)
        elif self.slices == "all":
            chosen = range(len(mask))
        else:
            chosen = self.slices
            if chosen[-1] >= len(mask):
                raise CasesError(
                    f"{self.labels}: slice {chosen[-1]} is named, but the volume has "
                    f"0 to {len(mask) - 1}"
                )
        if self.ignore is not None:
            chosen = [z for z in chosen if (mask[z] != self.ignore).any()]
        if not any(mask[z].any() for z in chosen):
            raise CasesError(f"{self.labels}: holds no label on the chosen slices")
        return chosen

    def _slice(self, z: int, mask: NDArray[np.uint8]) -> PaintedSlice:
        if self.ignore is None or not (mask == self.ignore).any():
            return PaintedSlice(z, mask)
        # Scribbles: what nobody labelled is 0, and painted background has a value of its own.
        ids = np.arange(256).astype(np.uint8)
        ids[0], ids[self.ignore] = BACKGROUND, 0
        return PaintedSlice(z, ids[mask], full=False)


def painted_slices(mask: NDArray[np.uint8]) -> Sequence[int]:
    """Say which slices of a label map are painted, when nobody has said it.

    Those that hold a label; but every slice where the labelled ones are one unbroken run at whose
    ends the structures taper off or leave the volume, for then the segmentation is whole, and
    what lies outside is background.

    Parameters
    ----------
    mask
        Label ids ``(z, y, x)``.

    Examples
    --------
    >>> mask = np.zeros((40, 8, 8), np.uint8)
    >>> mask[[5, 20]] = 1
    >>> painted_slices(mask)
    [5, 20]
    >>> for z in range(10, 30):
    ...     mask[z, : 4 - abs(z - 20) // 3] = 1
    >>> mask[5] = 0
    >>> painted_slices(mask)
    range(0, 40)
    """
    holding = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
    if len(holding) < _MIN_RUN or holding[-1] - holding[0] + 1 > len(holding):
        return holding
    for end, z in ((0, holding[0]), (len(mask) - 1, holding[-1])):
        if z == end:
            continue
        for label_id in ids_in(mask[z][None]):
            areas = (mask == label_id).sum(axis=(1, 2))
            if areas[z] > _END * areas.max():
                return holding
    return range(len(mask))


def read_cases(path: str | Path, names: Mapping[int, str] | None = None) -> tuple[CaseFiles, ...]:
    """Read a list of cases.

    Parameters
    ----------
    path
        A CSV file with the columns ``volume``, ``labels`` and ``slices`` (the last two may be
        missing or empty), a JSON list of objects with these keys, a folder in nnU-Net's layout
        (``dataset.json``, ``imagesTr``, ``labelsTr``), or a folder of sessions, which are learnt
        from where they store slices. Paths are taken from the list's own folder.
        Slices are ``all`` or indices such as ``11,21``, counted from the inferior end.
    names
        Structures by id, for label files that name none.

    Raises
    ------
    CasesError
        If the list cannot be read, is empty, or names files that are not there.
    """
    path = Path(path)
    if path.is_dir():
        cases = tuple(_sessions(path) or _nnunet(path))
    else:
        cases = tuple(_listed(path, names or {}))
    if not cases:
        raise CasesError(f"{path}: lists no case")
    seen: set[Path] = set()
    for case in cases:
        for file in (case.volume, case.labels):
            if file is not None and not _exists(file):
                raise CasesError(f"{path}: {file} does not exist; check the path")
        if case.volume.resolve() in seen:
            raise CasesError(f"{path}: {case.volume} is listed twice; keep one")
        seen.add(case.volume.resolve())
    return cases


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _sessions(folder: Path) -> list[CaseFiles]:
    """Sessions in a folder of sessions, or the one that the folder is of."""
    if is_session(folder):
        return [CaseFiles(folder)]
    found = earlier_sessions(folder)
    usable = [CaseFiles(one.folder) for one in found if not one.problem]
    if found and not usable:
        raise CasesError(f"{folder}: no session stores slices; open a volume and train once")
    return usable


def _listed(path: Path, names: Mapping[int, str]) -> Iterator[CaseFiles]:
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise CasesError(f"{path}: cannot be read ({reason})") from error
    rows: list[Any]
    if path.suffix.lower() == ".json":
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CasesError(f"{path}: is not JSON ({error})") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise CasesError(f'{path}: is no list of objects such as {{"volume": "a.nii.gz"}}')
    else:
        separator = ";" if ";" in text.partition("\n")[0] else ","
        try:
            lines = list(csv.reader(text.splitlines(), delimiter=separator))
        except csv.Error as error:
            raise CasesError(f"{path}: is no table ({error}); check its quotes") from error
        head = [name.strip() for name in lines[0]] if lines else []
        rows = [dict(zip_longest(head, line, fillvalue="")) for line in lines[1:] if line]
    for number, row in enumerate(rows, start=1):
        where = f"{path}: case {number}"
        unknown = [str(key) for key in row if key not in _COLUMNS]
        if unknown or not row.get("volume"):
            problem = f"has the unknown entry {unknown[0]!r}" if unknown else "names no volume"
            raise CasesError(f"{where} {problem}; the entries are {', '.join(_COLUMNS)}")
        labels = row.get("labels")
        yield CaseFiles(
            path.parent / str(row["volume"]),
            path.parent / str(labels) if labels else None,
            _slices(row.get("slices"), where),
            names,
        )


def _slices(value: Any, where: str) -> Slices:
    if value in (None, "", []):
        return "auto"
    if value == "all":
        return "all"
    parts = value if isinstance(value, list) else re.split(r"[,;\s]+", str(value).strip())
    try:
        chosen = tuple(sorted({int(str(part)) for part in parts}))
    except ValueError:
        chosen = (-1,)
    if chosen[0] < 0:
        raise CasesError(f"{where}: slices {value!r} are neither 'all' nor indices such as 11,21")
    return chosen


def _nnunet(folder: Path) -> Iterator[CaseFiles]:
    about = folder / "dataset.json"
    try:
        content = json.loads(read_text(about))
        listed, ending = content["labels"], content["file_ending"]
        ids = {name: value for name, value in listed.items() if isinstance(value, int)}
        if not re.fullmatch(r"(\.\w+)+", ending):  # it becomes a part of a pattern
            raise ValueError(ending)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CasesError(
            f"{folder}: is no folder in nnU-Net's layout (dataset.json with labels and "
            f"file_ending is missing or damaged)"
        ) from error
    if len(ids) < len(listed):
        raise CasesError(f"{about}: labels made of several ids are not supported")
    if len({*ids.values()}) < len(ids) or not all(0 <= n <= MAX_LABEL for n in ids.values()):
        raise CasesError(f"{about}: its labels are not distinct numbers from 0 to {MAX_LABEL}")
    if any(not name.strip() or has_control(name) for name in ids):
        raise CasesError(f"{about}: a label has no name that can be shown; rename it")
    ignore = ids.pop("ignore", None)
    names = {value: name for name, value in ids.items() if value}
    for labels in sorted((folder / "labelsTr").glob(f"*{ending}")):
        volume = folder / "imagesTr" / f"{stem(labels)}_0000{ending}"
        yield CaseFiles(volume, labels, "all", names, complete=True, ignore=ignore)
