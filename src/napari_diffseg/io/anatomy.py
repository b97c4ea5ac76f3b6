"""SNOMED CT codes of labels, by their names; the table is ``data/organs.csv``."""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from pydicom.sr.codedict import Code, codes

_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}


class Coded(NamedTuple):
    """What a label is in SNOMED CT: category, type, and the side of the body if it says one."""

    category: Code
    kind: Code
    side: Code | None = None


def coded(name: str) -> Coded:
    """Find the codes of a label by its name.

    The longest name of the table that ends it counts; a side and numbers may stand anywhere. What
    is not in the table is an anatomical structure.

    Examples
    --------
    >>> found = coded("kidney_left")
    >>> found.kind.meaning, found.side.meaning
    ('Kidney', 'Left')
    >>> coded("left ventricle").side is None
    True
    >>> coded("liver tumour 2").category.meaning
    'Morphologically Abnormal Structure'
    """
    words = [word for word in re.split(r"[\W_\d]+", name.lower()) if word]
    sides = {word for word in words if word in _SIDES}
    bare = [word for word in words if word not in _SIDES]
    table = _table()
    whole = table.get(" ".join(words))
    if whole is not None:  # a left ventricle is not the left one of two
        return Coded(*whole)
    side = _SIDES[sides.pop()] if len(sides) == 1 else None
    for start in range(len(bare)):
        found = table.get(" ".join(bare[start:]))
        if found is not None:
            return Coded(*found, side)
    return Coded(codes.SCT.AnatomicalStructure, codes.SCT.AnatomicalStructure, side)


@cache
def _table() -> dict[str, tuple[Code, Code]]:
    """Category and type by name."""
    categories = {
        "structure": codes.SCT.AnatomicalStructure,
        "abnormal": codes.SCT.MorphologicallyAbnormalStructure,
    }
    text = (files("napari_diffseg") / "data" / "organs.csv").read_text(encoding="utf-8")
    return {
        row["name"]: (categories[row["category"]], Code(row["snomed_ct"], "SCT", row["meaning"]))
        for row in csv.DictReader(text.splitlines())
    }
