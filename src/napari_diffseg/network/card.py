"""The card of a saved model: what it learnt from, how well it did, and who may use it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model besides its weights; it names no patient, file or path.

    Attributes
    ----------
    cases
        Volumes that it learnt from; 0 is unknown.
    slices
        Painted slices that it learnt from; 0 is unknown.
    validation
        Dice by label name, of cases or slices that were left out of the training.
    validation_kind
        How that was measured, such as ``leave-one-slice-out`` or ``leave-one-patient-out``.
    licence
        Under which terms the model may be used; empty is not stated.
    version
        Version of the program that saved it.
    backbone
        SHA-256 of the weight file that the training began at; empty is unknown or none.
    single_pieces
        Structures that are one connected piece in every patient; of these, the prediction of an
        unpainted volume keeps the largest piece.

    Raises
    ------
    ValueError
        If a figure is impossible.

    Examples
    --------
    >>> ModelCard(cases=2, slices=8, validation={"liver": 0.91}).cases
    2
    """

    cases: int = 0
    slices: int = 0
    validation: Mapping[str, float] = field(default_factory=dict)
    validation_kind: str = ""
    licence: str = ""
    version: str = ""
    backbone: str = ""
    single_pieces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("cases", "slices"):
            count = getattr(self, name)
            if type(count) is not int or count < 0:
                raise ValueError(f"the card's {name} is no count")
        for name in ("validation_kind", "licence", "version", "backbone"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"the card's {name} is no text")
        if not isinstance(self.validation, Mapping):
            raise ValueError("the card's validation is no Dice by label name")
        for label, dice in self.validation.items():
            number = isinstance(dice, int | float) and not isinstance(dice, bool)
            if not (isinstance(label, str) and number and 0 <= dice <= 1):
                raise ValueError(f"the card's validation of {label!r} is no Dice")
        object.__setattr__(self, "single_pieces", tuple(self.single_pieces))
        if not all(isinstance(name, str) for name in self.single_pieces):
            raise ValueError("the card's single pieces are no label names")
        if self.backbone and not re.fullmatch(r"[0-9a-f]{64}", self.backbone):
            raise ValueError("the card's backbone is no SHA-256")

    @property
    def mean_validation(self) -> float:
        """Mean Dice over the labels of :attr:`validation`; NaN without any."""
        figures = [*self.validation.values()]
        return sum(figures) / len(figures) if figures else math.nan

    @classmethod
    def from_json(cls, values: object) -> ModelCard:
        """Make a card from what :meth:`to_json` and JSON made of it.

        Fields of later versions are left out.

        Raises
        ------
        ValueError
            If it is no card.
        """
        if not isinstance(values, dict):
            raise ValueError("its card is no JSON object")
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain types for ``json.dumps``."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return values | {
            "validation": dict(self.validation),
            "single_pieces": list(self.single_pieces),
        }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package_version() -> str:
    """Return the installed version of napari-diffseg."""
    try:
        return version("napari-diffseg")
    except PackageNotFoundError:
        return "unknown"
