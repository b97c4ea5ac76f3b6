"""What each further labelled patient is worth on the next one: patients × slices × methods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from diffseg_training.benchmark.datasets import digest, find_names, find_scans, labels_of
from diffseg_training.benchmark.methods import find_method
from diffseg_training.benchmark.protocols import (
    Chosen,
    Presence,
    ProtocolError,
    Split,
    covering_slices,
    presence,
)
from diffseg_training.benchmark.rows import RowSpec, weights_digest
from diffseg_training.benchmark.tables import Row, by_amount, costs, failures, over_all_tests

METHODS = ("cohort", "multi-atlas", "nnunet", "deeplabv3plus", "ddpm-seg", "linear", "decoder")


@dataclass(frozen=True)
class PatientSweep:
    """What to compare.

    Attributes
    ----------
    volumes
        See :func:`datasets.find_scans`. Only labels that every scan shows are learnt and tested.
    patients
        Numbers of labelled patients; those that leave nobody to test are left out.
    slices
        Painted slices of each, chosen so that every label appears; 0 paints all.
    methods
        Names, see :data:`methods.METHODS`.
    budget
        Nominal seconds of learning.
    iterations
        Optimiser steps instead, for a smoke test.
    seeds
        Of the methods.
    backbone, side, device
        See :class:`rows.RowSpec`.
    full
        Rival networks of their authors' size.
    """

    volumes: tuple[Path, ...]
    patients: tuple[int, ...] = (1, 2, 3, 5, 10)
    slices: tuple[int, ...] = (4, 8, 0)
    methods: tuple[str, ...] = METHODS
    budget: float = 60.0
    iterations: int | None = None
    seeds: tuple[int, ...] = (0,)
    backbone: str | None = None
    side: int = 128
    device: str = "auto"
    full: bool = False

    def specs(self) -> list[RowSpec]:
        """All rows: each patient is tested in turn, with the others' first ones labelled.

        Raises
        ------
        ProtocolError
            If there are fewer than two patients, or no label that all scans show.
        """
        files = {one.name: one for one in find_scans(self.volumes)}
        scans = {name: one.read() for name, one in files.items()}
        labels = labels_of(scans.values(), find_names(self.volumes))
        shared = [
            label
            for label in labels
            if all((one.reference == label.id).any() for one in scans.values())
        ]
        if not shared:
            raise ProtocolError("no label is in every scan, so no patient teaches for all others")
        present = {
            name: presence(one.reference, [label.id for label in shared])
            for name, one in scans.items()
        }
        patients = {name: one.patient for name, one in files.items()}
        weights = weights_digest(self.backbone)
        specs = []
        splits = [
            split
            for slices, count in product(self.slices, self.patients)
            for split in splits_of(present, patients, count, slices)
        ]
        for split, name, seed in product(splits, self.methods, self.seeds):
            method = find_method(name)
            used = {one.scan for one in (*split.train, *split.test)}
            specs.append(
                RowSpec(
                    data=digest(files.values()),
                    scans=tuple(files[scan] for scan in sorted(used)),
                    names={label.id: label.name for label in shared},
                    split=split,
                    method=name,
                    seed=seed,
                    budget=self.budget if method.budgeted and not self.iterations else None,
                    iterations=self.iterations if method.budgeted else None,
                    backbone=self.backbone if method.backbone else None,
                    weights=weights if method.backbone else None,
                    side=None if method.own_grid else self.side,
                    small=not self.full,
                    device=self.device,
                )
            )
        return list({spec.key: spec for spec in specs}.values())


def splits_of(
    present: Mapping[str, Presence], patients: Mapping[str, str], count: int, slices: int
) -> list[Split]:
    """Test each patient in turn; the `count` patients that follow it in the list are labelled.

    Parameters
    ----------
    present
        Labels on each slice ``(z, labels)`` of each scan.
    patients
        Patient of each scan.
    count
        Labelled patients.
    slices
        Painted slices of each, 0 for all.

    Raises
    ------
    ProtocolError
        If there are fewer than two patients.
    """
    everyone = sorted(set(patients.values()))
    if len(everyone) < 2:
        raise ProtocolError("learning across patients needs scans of at least two patients")
    splits = []
    for n, tested in enumerate(everyone):
        others = (everyone[n + 1 :] + everyone[:n])[:count]
        if len(others) < count:
            continue
        train = []
        for patient in others:
            # One scan of each patient: more would be labelled slices that nobody counted.
            scan = next(name for name in sorted(patients) if patients[name] == patient)
            every = tuple(np.flatnonzero(present[scan].any(axis=1)).tolist())
            chosen = covering_slices(present[scan], min(slices, len(every))) if slices else every
            train.append(Chosen(scan, chosen))
        test = tuple(
            Chosen(name, tuple(range(len(present[name]))))
            for name in sorted(patients)
            if patients[name] == tested
        )
        words = f"{count} × {slices or 'all'}"
        splits.append(Split("patients", words, tuple(train), test))
    return splits


def report(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """Write the tables as Markdown: methods down, patients × slices of each across."""
    parts = [
        "# Learning across patients",
        "",
        "Mean Dice over the structures that all patients show, on every slice of a patient who was "
        "not labelled; columns are labelled patients × painted slices of each; ± standard "
        "deviation over tested patients and seeds.",
        "",
        by_amount(rows, titles.__getitem__),
        "",
        "## Cost",
        "",
        costs(rows, titles.__getitem__),
    ]
    if broken := failures(rows):
        parts += ["", "## Failed rows", "", broken]
    return "\n".join(parts)


def by_patients(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows for a curve over patients that are all tested, by slices of each (``4``, ``all``)."""
    found: dict[str, list[Row]] = {}
    for row in over_all_tests(rows):
        count, slices = re.split(" × ", row["amount"])
        found.setdefault(slices, []).append({**row, "patients": int(count)})
    return found
