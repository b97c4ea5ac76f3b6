"""Which slices are painted and which are tested: the papers' protocol and the app's.

A protocol looks only at which labels are present on which slice, and gives a :class:`Split`.
Everything is deterministic: the same data and seed give the same split and the same hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

Presence = NDArray[np.int64]
"""``(z, labels)``: pixels of each label on each slice; 0 and 1 do where areas do not matter."""

_SUBSTANTIAL = 0.25


class ProtocolError(ValueError):
    """The data cannot be split as asked."""


@dataclass(frozen=True)
class Chosen:
    """Some slices of one scan."""

    scan: str
    slices: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """What is painted and what is tested.

    Attributes
    ----------
    protocol
        ``in-volume``, ``scribbles``, ``cross-volume`` or ``cross-patient``.
    amount
        Painted slices in words, such as ``4 slices`` or ``1 %``.
    train, test
        Painted and tested slices of each scan.
    start
        Painted slices of other scans, on which the starting model is trained.
    """

    protocol: str
    amount: str
    train: tuple[Chosen, ...]
    test: tuple[Chosen, ...]
    start: tuple[Chosen, ...] = ()

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the split."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def painted(self) -> int:
        """Number of painted slices."""
        return sum(len(chosen.slices) for chosen in self.train)

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> Split:
        """Undo ``dataclasses.asdict`` after a trip through JSON."""
        train, test, start = (
            tuple(Chosen(one["scan"], tuple(one["slices"])) for one in raw[side])  # type: ignore[attr-defined]
            for side in ("train", "test", "start")
        )
        return cls(str(raw["protocol"]), str(raw["amount"]), train, test, start)


def presence(mask: NDArray[np.uint8], ids: Sequence[int]) -> Presence:
    """Count the pixels of the labels `ids` on each slice of a mask ``(z, y, x)``."""
    counts = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in mask])
    return counts[:, list(ids)].astype(np.int64)


def _substantial(present: Presence) -> NDArray[np.bool_]:
    """Where a label has a quarter of its largest area."""
    # On its first and last slices an organ is too small to be worth painting.
    large: NDArray[np.bool_] = present >= np.maximum(_SUBSTANTIAL * present.max(axis=0), 1)
    return large


def covering_slices(present: Presence, count: int) -> tuple[int, ...]:
    """Choose slices so that every label appears, spread where most labels are.

    Slices are added one at a time, each covering as many new labels as it can; among equals,
    the one that brings the slices, each counting as often as it holds labels, nearest to a
    chosen one. Chosen slices are then exchanged as long as that helps.

    Parameters
    ----------
    present
        Labels on each slice ``(z, labels)``. A slice covers a label when it shows a quarter of
        the label's largest area.
    count
        How many slices to choose.

    Returns
    -------
    tuple of int
        Ascending slice indices, all of them holding a label.

    Raises
    ------
    ProtocolError
        If fewer than `count` slices hold a label.
    """
    candidates = np.flatnonzero(present.any(axis=1))
    if not 0 < count <= len(candidates):
        raise ProtocolError(
            f"{count} slices cannot be chosen: {len(candidates)} slices hold a label"
        )
    held = _substantial(present)[candidates]
    weight = (present[candidates] > 0).sum(axis=1)
    apart = np.abs(candidates[:, None] - candidates)

    def worth(chosen: list[int]) -> tuple[int, int]:
        nearest = apart[:, chosen].min(axis=1)
        return int(held[chosen].any(axis=0).sum()), -int((weight * nearest).sum())

    chosen: list[int] = []
    for _ in range(count):
        free = [i for i in range(len(candidates)) if i not in chosen]
        chosen.append(max(free, key=lambda i: worth([*chosen, i])))
    best = worth(chosen)
    improved = True
    while improved:
        improved = False
        for place in range(count):
            for i in range(len(candidates)):
                if i not in chosen:
                    swapped = [*chosen[:place], i, *chosen[place + 1 :]]
                    if (value := worth(swapped)) > best:
                        best, chosen, improved = value, swapped, True
    return tuple(sorted(int(candidates[i]) for i in chosen))


def in_volume(scan: str, present: Presence, count: int) -> Split:
    """Paint some slices of a volume and test the rest of its labelled range.

    Parameters
    ----------
    scan
        Name of the scan.
    present
        Labels on each slice ``(z, labels)``.
    count
        Slices to paint, see :func:`covering_slices`.

    Raises
    ------
    ProtocolError
        If there are too few slices to paint so many, or none is left to test.
    """
    try:
        painted = covering_slices(present, count)
    except ProtocolError as error:
        raise ProtocolError(f"{scan}: {error}") from error
    labelled = np.flatnonzero(present.any(axis=1))
    inside = range(int(labelled[0]), int(labelled[-1]) + 1)
    tested = tuple(z for z in inside if z not in painted)
    if not tested:
        raise ProtocolError(f"{scan}: all slices are painted, none is left to test")
    return Split("in-volume", f"{count} slices", (Chosen(scan, painted),), (Chosen(scan, tested),))


def scribbles(scan: str, present: Presence, count: int) -> Split:
    """Scribble on the slices that :func:`in_volume` paints in full, and test the same others."""
    return replace(in_volume(scan, present, count), protocol="scribbles")


def cross_volume(
    scan: str, present: Presence, count: int, other: str, others: Presence, source: int | None
) -> Split:
    """Paint some slices of a volume, with a model from another volume to start from.

    Parameters
    ----------
    scan, present, count
        As for :func:`in_volume`, whose split this is.
    other, others
        Name and presence of the volume on which the starting model is trained.
    source
        How many of its slices are painted; all that hold a label where ``None``.
    """
    labelled = tuple(int(z) for z in np.flatnonzero(others.any(axis=1)))
    start = Chosen(other, labelled if source is None else covering_slices(others, source))
    return replace(in_volume(scan, present, count), protocol="cross-volume", start=(start,))


def split_patients(
    patients: Mapping[str, str], test_share: float = 0.2, seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split scans by patient, the papers' 4:1 by default.

    Parameters
    ----------
    patients
        Patient of each scan.
    test_share
        Share of the patients that is tested.
    seed
        Of the shuffling.

    Returns
    -------
    train, test
        Names of scans; no patient is in both.

    Raises
    ------
    ProtocolError
        If there are fewer than two patients.
    """
    names = sorted(set(patients.values()))
    if len(names) < 2:
        raise ProtocolError("a split by patient needs scans of at least two patients")
    order = np.random.default_rng(seed).permutation(len(names))
    tested = {names[i] for i in order[: max(1, round(test_share * len(names)))]}
    return (
        tuple(scan for scan in sorted(patients) if patients[scan] not in tested),
        tuple(scan for scan in sorted(patients) if patients[scan] in tested),
    )


def cross_patient(
    present: Mapping[str, Presence],
    train: Sequence[str],
    test: Sequence[str],
    amount: int | float,
    seed: int = 0,
) -> Split:
    """Paint some slices of the training patients and test every slice of the others.

    Parameters
    ----------
    present
        Labels on each slice ``(z, labels)`` of each scan.
    train, test
        Names of scans, see :func:`split_patients`.
    amount
        A number of slices, chosen so that every label appears (the papers' "4 slices"), or a
        share of all training slices between 0 and 1, drawn at random.
    seed
        Of the random draw.

    Raises
    ------
    ProtocolError
        If the amount cannot be drawn.
    """
    where = [(scan, z) for scan in train for z in range(len(present[scan]))]
    if isinstance(amount, int):
        picked = _covering_over_scans({scan: present[scan] for scan in train}, amount)
        words = f"{amount} slices"
    else:
        if not 0 < amount <= 1:
            raise ProtocolError(f"the share {amount} of the slices is not between 0 and 1")
        count = max(1, int(amount * len(where) + 0.5))
        drawn = np.random.default_rng(seed).permutation(len(where))[:count]
        picked = [where[i] for i in sorted(drawn)]
        words = f"{100 * amount:g} %"
    return Split(
        "cross-patient",
        words,
        tuple(
            Chosen(scan, tuple(z for name, z in picked if name == scan))
            for scan in train
            if any(name == scan for name, _ in picked)
        ),
        tuple(Chosen(scan, tuple(range(len(present[scan])))) for scan in test),
    )


def _covering_over_scans(present: Mapping[str, Presence], count: int) -> list[tuple[str, int]]:
    """Pick `count` slices of several scans: all labels first, then most labels, spread in z."""
    if len(present) == 1:
        ((scan, only),) = present.items()
        return [(scan, z) for z in covering_slices(only, count)]
    where = [(scan, z) for scan, one in present.items() for z in np.flatnonzero(one.any(axis=1))]
    if count > len(where):
        raise ProtocolError(f"{count} slices cannot be chosen: {len(where)} slices hold a label")
    large = {scan: _substantial(one) for scan, one in present.items()}
    held = np.stack([large[scan][z] for scan, z in where])
    covered = np.zeros(held.shape[1], bool)
    chosen: list[int] = []
    for _ in range(count):
        used = [where[i][0] for i in chosen]
        best = max(
            (i for i in range(len(where)) if i not in chosen),
            key=lambda i: (
                int((held[i] & ~covered).sum()),
                -used.count(where[i][0]),
                int(held[i].sum()),
            ),
        )
        chosen.append(best)
        covered |= held[best]
    return [(scan, int(z)) for scan, z in (where[i] for i in sorted(chosen))]
