"""Learning rates of the rivals, checked inside volumes that a row does not test."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from diffseg_training.benchmark.in_volume import InVolumeSweep
from diffseg_training.benchmark.methods import METHODS, find_method
from diffseg_training.benchmark.rows import RowSpec
from diffseg_training.benchmark.tables import Row, finished, markdown
from diffseg_training.store import write_json

FACTORS = (1 / 3, 1.0, 3.0)
TUNED = tuple(method.name for method in METHODS.values() if method.tuned)

Found = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Dice by patient, method and rate (as text)."""


class LearningRatesError(ValueError):
    """A file of rates that cannot be read."""


@dataclass(frozen=True)
class LearningRates:
    """What was found on each patient.

    Attributes
    ----------
    found
        See :data:`Found`.
    """

    found: Found

    @classmethod
    def read(cls, path: Path) -> LearningRates:
        """Read what :meth:`write` wrote.

        Raises
        ------
        LearningRatesError
            If there is no such file.
        """
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise LearningRatesError(
                f"{path}: no file of rates; make one with the command rates"
            ) from error

    @classmethod
    def of(cls, rows: Sequence[Row], patients: Mapping[str, str]) -> LearningRates:
        """Collect the mean Dice of rows, see :func:`specs`."""
        heights: dict[tuple[str, str, str], list[float]] = {}
        for row in finished(rows):
            if row["dice"] is not None:
                key = patients[row["test"][0]], row["method"], f"{row['rate']:.3g}"
                heights.setdefault(key, []).append(row["dice"])
        found: dict[str, dict[str, dict[str, float]]] = {}
        for (patient, method, rate), dice in heights.items():
            found.setdefault(patient, {}).setdefault(method, {})[rate] = float(np.mean(dice))
        return cls(found)

    def write(self, path: Path) -> Path:
        """Write as JSON."""
        write_json(path, self.found)
        return path

    def best(self, method: str, tested: Collection[str]) -> float:
        """Rate with the highest mean Dice on the patients that are not tested; 1 without any."""
        own = [by[method] for p, by in self.found.items() if p not in tested and method in by]
        shared = set.intersection(*(set(one) for one in own)) if own else set()
        if not shared:
            return 1.0
        return float(max(sorted(shared), key=lambda rate: np.mean([one[rate] for one in own])))

    def table(self) -> str:
        """Patients and methods down, rates across."""
        rates = sorted({r for by in self.found.values() for m in by.values() for r in m}, key=float)
        body = [
            [patient, find_method(method).title, *(dice.get(rate) for rate in rates)]
            for patient, by in self.found.items()
            for method, dice in by.items()
        ]
        return markdown(["patient", "method", *(f"× {rate}" for rate in rates)], body)


def specs(sweep: InVolumeSweep, factors: Sequence[float] = FACTORS) -> list[RowSpec]:
    """Rows of a sweep's methods at several learning rates, inside each volume."""
    tuned = tuple(name for name in sweep.methods if find_method(name).tuned)
    rows = replace(sweep, methods=tuned).specs()
    return [replace(row, rate=factor) for factor, row in product(factors, rows)]
