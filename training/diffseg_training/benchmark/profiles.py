"""The papers' tables as sweeps: the exact settings for a GPU, and a small one for two cores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from diffseg_training.benchmark.datasets import (
    ScanFiles,
    digest,
    find_names,
    find_scans,
    labels_of,
)
from diffseg_training.benchmark.in_volume import title_of
from diffseg_training.benchmark.learning_rates import LearningRates
from diffseg_training.benchmark.methods import find_method
from diffseg_training.benchmark.protocols import (
    Presence,
    Split,
    cross_patient,
    in_volume,
    presence,
    split_patients,
)
from diffseg_training.benchmark.rows import RowSpec, weights_digest
from diffseg_training.benchmark.tables import (
    Row,
    by_amount,
    costs,
    failures,
    grouped,
    per_label,
)

RIVALS = (
    "deeplabv3plus",
    "res-unet",
    "unetplusplus",
    "attention-unet",
    "unetr",
    "swin-unetr",
    "nnunet",
    "ddpm-seg",
)
OURS = ("scratch", "linear", "decoder")
SIZES = tuple(f"{name}{size}" for size in ("", "-m", "-l") for name in OURS)

PUBLISHED: dict[str, dict[str, float]] = {
    "decoder": {"4 slices": 51.81, "1 %": 71.56, "10 %": 78.51, "100 %": 86.91},
    "scratch": {"4 slices": 28.34, "1 %": 60.07, "10 %": 69.92, "100 %": 80.59},
    "ddpm-seg": {"4 slices": 44.54, "1 %": 59.27},
    "nnunet": {"1 %": 58.69, "10 %": 73.43, "100 %": 87.39},
}
"""Mean DSC in percent on FLARE22 (arXiv 2402.15216v2); ours are its size S."""


@dataclass(frozen=True)
class Profile:
    """Settings of a sweep over the papers' rows.

    Attributes
    ----------
    amounts
        Painted slices: a number, or a share of the training slices; with its optimiser steps
        as in arXiv 2402.15216v2, or ``None`` where nominal seconds decide.
    budget
        Nominal seconds of learning, where steps do not decide.
    side
        Pixels along the model grid, for methods that do not choose it themselves.
    small
        Rival networks in their small variant.
    timesteps
        Of the ablation (arXiv 2402.15216v2, Table 2).
    inside
        Also paint and test inside each volume.
    absent
        Rule for absent labels.
    methods
        Names of methods.
    """

    amounts: tuple[tuple[int | float, int | None], ...]
    budget: float | None
    side: int
    small: bool
    timesteps: tuple[int, ...]
    inside: bool
    absent: str
    methods: tuple[str, ...] = (*RIVALS, *SIZES)


PROFILES: dict[str, Profile] = {
    "flare22": Profile(
        amounts=((4, 1_000), (0.01, 10_000), (0.1, 10_000), (1.0, 30_000)),
        budget=None,
        side=256,
        small=False,
        timesteps=tuple(range(0, 1001, 100)),
        inside=False,
        absent="papers",
    ),
    "mini": Profile(
        amounts=((4, None), (8, None)),
        budget=10.0,
        side=128,
        small=True,
        timesteps=(0, 50, 200, 500),
        inside=True,
        absent="leave-out",
        methods=(*RIVALS, *SIZES, "ours"),
    ),
}


@dataclass(frozen=True)
class Sweep:
    """A profile on some data.

    Attributes
    ----------
    profile
        Key of :data:`PROFILES`.
    data
        See :func:`datasets.find_scans`. ``split.json`` in a folder (``{"train": [...], "test":
        [...]}``) decides who is tested; without it each patient of a set of fewer than five is
        tested in turn, and a fifth of a larger set's.
    seeds
        Of the methods and of the random draws.
    methods
        Instead of the profile's.
    ablation
        Add ``linear`` and ``decoder``, in all sizes, at the profile's timesteps.
    backbone, device
        See :class:`rows.RowSpec`.
    large
        Backbone of size L; its rows are left out where there is none.
    steps
        Optimiser steps of every row instead of the profile's budget, for a smoke test.
    budget
        Nominal seconds of every row instead of the profile's steps or seconds.
    rates
        Learning rates of the rivals; the authors' where ``None``.
    """

    profile: str
    data: tuple[Path, ...]
    seeds: tuple[int, ...] = (0,)
    methods: tuple[str, ...] | None = None
    ablation: bool = False
    backbone: str | None = None
    device: str = "auto"
    large: str | None = None
    steps: int | None = None
    budget: float | None = None
    rates: LearningRates | None = None

    def specs(self) -> list[RowSpec]:
        """All rows."""
        profile = PROFILES[self.profile]
        files = {one.name: one for one in find_scans(self.data)}
        scans = {name: one.read() for name, one in files.items()}
        labels = labels_of(scans.values(), find_names(self.data))
        ids = [label.id for label in labels]
        present = {name: presence(scan.reference, ids) for name, scan in scans.items()}
        weights = {backbone: weights_digest(backbone) for backbone in (self.backbone, self.large)}
        data = digest(files.values())
        specs = []
        for (amount, steps), seed in product(profile.amounts, self.seeds):
            for split, name in product(self._splits(files, present, amount, seed), self._names()):
                method = find_method(name)
                used = {one.scan for one in (*split.train, *split.test)}
                tested = {files[one.scan].patient for one in split.test}
                counted = None if self.budget else self.steps or steps
                seconds = (self.budget or profile.budget) if counted is None else None
                backbone = self.large if method.large else self.backbone
                specs.append(
                    RowSpec(
                        data=data,
                        scans=tuple(files[scan] for scan in sorted(used)),
                        names={label.id: label.name for label in labels},
                        split=split,
                        method=name,
                        seed=seed,
                        budget=seconds if method.budgeted else None,
                        iterations=counted if method.budgeted else None,
                        backbone=backbone if method.backbone else None,
                        weights=weights[backbone] if method.backbone else None,
                        side=None if method.own_grid else profile.side,
                        small=profile.small,
                        rate=self.rates.best(name, tested) if self.rates and method.tuned else 1.0,
                        device=self.device,
                        absent=profile.absent,
                    )
                )
        return list({spec.key: spec for spec in specs}.values())

    def _names(self) -> tuple[str, ...]:
        profile = PROFILES[self.profile]
        names = self.methods or profile.methods
        if self.ablation:
            swept = [name for name in SIZES if not name.startswith("scratch")]
            names = (*names, *(f"{name}@{t}" for name in swept for t in profile.timesteps))
        return tuple(name for name in names if self.large or not find_method(name).large)

    def _splits(
        self,
        files: Mapping[str, ScanFiles],
        present: Mapping[str, Presence],
        amount: int | float,
        seed: int,
    ) -> list[Split]:
        splits = [
            cross_patient(present, train, test, amount, seed) for train, test in self._folds(files)
        ]
        if PROFILES[self.profile].inside and isinstance(amount, int):
            splits += [in_volume(name, one, amount) for name, one in present.items()]
        return splits

    def _folds(
        self, files: Mapping[str, ScanFiles]
    ) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        for path in (folder / "split.json" for folder in self.data):
            if path.exists():
                fixed = json.loads(path.read_text(encoding="utf-8"))
                return [(tuple(fixed["train"]), tuple(fixed["test"]))]
        patients = {name: one.patient for name, one in files.items()}
        if not 2 <= len(set(patients.values())) < 5:
            return [split_patients(patients)]
        return [
            (
                tuple(name for name in files if patients[name] != tested),
                tuple(name for name in files if patients[name] == tested),
            )
            for tested in sorted(set(patients.values()))
        ]


def as_in_the_papers(row: Row) -> bool:
    """Whether a row has the papers' settings, so that their figure may stand beside it."""
    flare = PROFILES["flare22"]
    steps = {count for _, count in flare.amounts}
    return (row["side"], row["small"], row["absent"]) == (
        flare.side,
        flare.small,
        flare.absent,
    ) and (row["iterations"] is None or row["iterations"] in steps)


def report(rows: Sequence[Row], published: bool) -> str:
    """Write the cross-patient tables as Markdown.

    Parameters
    ----------
    rows
        Cross-patient rows.
    published
        Whether the papers' figures stand beside ours.
    """
    beside = PUBLISHED if published else None
    plain = [row for row in rows if "@" not in row["method"]]
    parts = ["# Papers' tables", "", _preamble(rows, published)]
    parts += ["## DSC in percent", "", by_amount(plain, title_of, "dice", 100, beside), ""]
    parts += ["## Jaccard in percent", "", by_amount(plain, title_of, "jaccard", 100), ""]
    for (amount,), own in grouped(plain, "amount").items():
        parts += [f"## DSC of each organ in percent, {amount}", "", per_label(own, title_of), ""]
    swept = [row for row in rows if "@" in row["method"]]
    if swept:
        parts += ["## Ablation over the timestep: DSC in percent", ""]
        parts += [by_amount(swept, title_of, "dice", 100), ""]
    parts += ["## Cost", "", costs(rows, title_of)]
    if broken := failures(rows):
        parts += ["", "## Failed rows", "", broken]
    return "\n".join(parts)


def _preamble(rows: Sequence[Row], published: bool) -> str:
    tested = sorted({"+".join(row["test"]) for row in rows})
    text = (
        f"Split by patient; {len(tested)} test sets. Mean over structures, ± standard deviation "
        "over seeds and test sets. Absent structures: "
        + " and ".join(sorted({row["absent"] for row in rows}))
        + " (see `napari_diffseg.engine.metrics`)."
    )
    return text + (" In brackets: the papers' figure.\n" if published else "\n")
