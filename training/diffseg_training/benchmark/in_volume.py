"""The in-volume benchmark: volumes × painted slices × budgets × methods, inside each volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

from diffseg_training.benchmark.datasets import (
    ScanFiles,
    digest,
    find_names,
    find_scans,
    labels_of,
)
from diffseg_training.benchmark.machine import REFERENCE_GFLOPS
from diffseg_training.benchmark.methods import find_method
from diffseg_training.benchmark.protocols import (
    ProtocolError,
    Split,
    cross_volume,
    in_volume,
    presence,
    scribbles,
)
from diffseg_training.benchmark.rows import RowSpec, weights_digest
from diffseg_training.benchmark.tables import (
    Row,
    by_amount,
    by_budget,
    by_test,
    calibrations,
    failures,
    gains,
    per_label,
)

PROTOCOLS = ("in-volume", "scribbles", "cross-volume")
DEFAULT_METHODS = (
    "nearest-copy",
    "shape-interpolation",
    "random-walker",
    "registration",
    "forest",
    "backbone-forest",
    "ddpm-seg",
    "scratch",
    "linear",
    "decoder",
    "ours",
)


@dataclass(frozen=True)
class InVolumeSweep:
    """What to compare.

    Attributes
    ----------
    volumes
        See :func:`datasets.find_scans`.
    slices
        Numbers of painted slices.
    budgets
        Nominal seconds of learning, see ``machine.REFERENCE_GFLOPS``.
    methods
        Names, see :data:`methods.METHODS`; each runs in the protocols that it can do.
    protocols
        Of :data:`PROTOCOLS`.
    source
        Painted slices of the volume from which ``cross-volume`` takes its starting model; all
        that hold a label where ``None``.
    seeds
        Seeds of the methods that learn; methods without randomness run once.
    backbone, side, small, device, absent
        See :class:`rows.RowSpec`.
    """

    volumes: tuple[Path, ...]
    slices: tuple[int, ...] = (1, 2, 4, 8, 16)
    budgets: tuple[float, ...] = (10.0, 30.0, 60.0, 120.0)
    methods: tuple[str, ...] = DEFAULT_METHODS
    protocols: tuple[str, ...] = ("in-volume",)
    source: int | None = None
    seeds: tuple[int, ...] = (0,)
    backbone: str | None = None
    side: int | None = None
    device: str = "auto"
    small: bool = True
    absent: Literal["leave-out", "papers"] = "leave-out"

    def __post_init__(self) -> None:
        if unknown := set(self.protocols) - set(PROTOCOLS):
            raise ProtocolError(
                f"no protocol {', '.join(sorted(unknown))}: use {', '.join(PROTOCOLS)}"
            )

    def specs(self) -> list[RowSpec]:
        """All rows: few slices and small budgets first, so that a stopped sweep has a table."""
        names = find_names(self.volumes)
        uses_weights = any(find_method(name).backbone for name in self.methods)
        weights = weights_digest(self.backbone) if uses_weights else None
        specs = []
        for (split, files), name in product(self._splits(), self.methods):
            method = find_method(name)
            if not method.does(split.protocol):
                continue
            labels = labels_of([one.read() for one in files] if not names else [], names)
            base = RowSpec(
                data=digest(files),
                scans=files,
                names={label.id: label.name for label in labels},
                split=split,
                method=name,
                seed=0,
                backbone=self.backbone if method.backbone else None,
                weights=weights if method.backbone else None,
                side=self.side,
                small=self.small,
                device=self.device,
                absent=self.absent,
            )
            seeds = self.seeds if method.random else self.seeds[:1]
            budgets = self.budgets if method.budgeted else (None,)
            specs += [replace(base, seed=s, budget=b) for s, b in product(seeds, budgets)]
        return sorted(specs, key=lambda spec: (abs(spec.split.painted - 4), spec.budget or 0))

    def _splits(self) -> Iterator[tuple[Split, tuple[ScanFiles, ...]]]:
        """Every split, and the scans that it uses."""
        found = {files.name: files for files in find_scans(self.volumes)}
        names = find_names(self.volumes)
        present = {}
        for name, files in found.items():
            scan = files.read()
            ids = [label.id for label in labels_of([scan], names)]
            present[name] = presence(scan.reference, ids)
        for protocol, (name, own), count in product(self.protocols, present.items(), self.slices):
            if protocol == "cross-volume":
                for other in (one for one in found if one != name):
                    split = cross_volume(name, own, count, other, present[other], self.source)
                    yield split, tuple(found[one] for one in sorted((name, other)))
            else:
                paint = in_volume if protocol == "in-volume" else scribbles
                yield paint(name, own, count), (found[name],)


def title_of(name: str) -> str:
    """Title of a method in tables."""
    return find_method(name).title


def report(rows: Sequence[Row]) -> str:
    """Write the in-volume benchmark as Markdown: a table for each volume and number of slices."""
    parts = ["# In-volume benchmark", "", _preamble(rows)]
    for protocol in ("in-volume", "scribbles"):
        parts += _inside([row for row in rows if row["protocol"] == protocol], protocol)
    if gained := gains(rows, title_of):
        parts += ["## From a model of another volume: Dice, and the gain over the backbone", ""]
        parts += [gained, ""]
    if calibrated := calibrations(rows, title_of):
        parts += ["## Confidence", "", calibrated, ""]
    if broken := failures(rows):
        parts += ["## Failed rows", "", broken]
    return "\n".join(parts)


def _inside(rows: Sequence[Row], protocol: str) -> list[str]:
    how = "" if protocol == "in-volume" else ", 5 % of their pixels scribbled"
    parts = []
    for (scans, count), own in sorted(by_test(rows, "slices").items(), key=lambda item: item[0]):
        parts += [f"## {scans}, {count} painted slices{how}", "", by_budget(own, title_of), ""]
    for (test,), own in by_test(rows).items():
        parts += [f"## {test}: Dice against painted slices{how}, largest budget", ""]
        parts += [by_amount(_largest(own), title_of), ""]
        parts += [f"## {test}: HD95 in mm{how}, largest budget", ""]
        parts += [by_amount(_largest(own), title_of, "hd95_mm"), ""]
        four = [row for row in _largest(own) if row["slices"] == 4]
        if four:
            parts += [f"## {test}: Dice of each structure in percent, four slices{how}", ""]
            parts += [per_label(four, title_of), ""]
    return parts


def machines(rows: Sequence[Row]) -> list[str]:
    """One line for each machine on which rows ran."""
    found: dict[str, set[str]] = {}
    for h in (row["hardware"] for row in rows if "hardware" in row):
        machine = f"{h['hardware']} ({h['device']}, {h['threads']} threads), torch {h['torch']}"
        found.setdefault(machine, set()).add((h["commit"] or "unknown")[:10])
    return [f"- {machine}, commit {', '.join(sorted(c))}" for machine, c in found.items()]


def _preamble(rows: Sequence[Row]) -> str:
    return (
        "Mean Dice over the structures of the volume on its unpainted slices; ± is the standard "
        "deviation over seeds. Budgets are nominal seconds of learning: seconds on a machine whose "
        f"matrix product runs at {REFERENCE_GFLOPS:g} GFLOP/s, measured before each row. `area` is "
        "the mean height of Dice against the logarithm of the budget, `learnt in s` and `predicted "
        "in s` real seconds with the largest budget, `GiB` the peak memory of the row's "
        "process.\n\n" + "\n".join(machines(rows)) + "\n"
    )


def _largest(rows: Sequence[Row]) -> list[Row]:
    """Rows without a budget, and of each budgeted method those with its largest one."""
    top: dict[str, float] = {}
    for row in rows:
        if row["budget"] is not None:
            top[row["method"]] = max(top.get(row["method"], 0.0), row["budget"])
    return [row for row in rows if row["budget"] is None or row["budget"] == top[row["method"]]]
