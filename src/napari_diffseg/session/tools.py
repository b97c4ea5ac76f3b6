"""What the user does with more than a brush: labels made elsewhere are brought in.

Everything is journalled slice by slice like a stroke, so that a killed process loses nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.labels import Label, LabelMap, unnamed
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.log import SessionLog
from napari_diffseg.session.paint import Paint, SliceState
from napari_diffseg.session.prediction import Prediction

Target = Literal["paint", "prediction"]


@dataclass(frozen=True)
class Changes:
    """Slices that were changed, and slices that were left alone because they hold paint."""

    changed: tuple[int, ...]
    left: tuple[int, ...] = ()


class Tools:
    """Changes to paint and prediction that are no strokes.

    Parameters
    ----------
    paint, prediction, log
        The other parts of the session.
    """

    def __init__(self, paint: Paint, prediction: Prediction, log: SessionLog) -> None:
        self._paint, self._prediction, self._log = paint, prediction, log

    def bring(
        self,
        labels: LabelMap,
        slices: Collection[int] | None = None,
        target: Target = "paint",
        replace: bool = False,
    ) -> Changes:
        """Take labels that were made elsewhere.

        A label with the name of one that is here becomes that one; others keep their id where it
        is free. As paint, each slice counts as painted in full.

        Parameters
        ----------
        labels
            On the grid of the volume, as :func:`~napari_diffseg.io.volume.read_labels` gives them.
        slices
            Which slices; ``None`` is those that hold a label.
        target
            ``"prediction"`` is something to correct and accept, which later predictions leave
            alone.
        replace
            Replace the paint that is there; otherwise slices that hold paint are left alone.

        Raises
        ------
        SessionError
            If nothing can be taken.
        """
        holding = np.flatnonzero(labels.mask.any(axis=(1, 2))).tolist()
        wanted = holding if slices is None else sorted({self._paint.check(z) for z in slices})
        if not set(wanted) & set(holding):
            raise SessionError(
                f"the chosen slices hold no label; they are on slices {holding[0]} to {holding[-1]}"
                if holding
                else "there are no labels to take; choose another file"
            )
        with self._log.lock:
            painted = {z for z in wanted if self._paint.states[z] != SliceState.UNPAINTED}
            left = set() if replace or target == "prediction" else painted
            taken = [z for z in wanted if z not in left]
            if not taken:
                raise SessionError("every chosen slice holds paint already; nothing was replaced")
            ids = self._ids(labels.labels)
            for z in taken:
                plane = ids[labels.mask[z]]
                if target == "paint":
                    self._paint.set_slice(z, plane, SliceState.PAINTED)
                else:
                    self._prediction.edit(z, plane)
        return Changes(tuple(taken), tuple(sorted(left)))

    def _ids(self, labels: tuple[Label, ...]) -> NDArray[np.uint8]:
        """Table from the ids of other labels to those of this session; adds what is missing."""
        table = np.zeros(256, np.uint8)
        for label in labels:
            here = {one.name.strip().lower(): one.id for one in self._paint.labels}
            known = here.get(label.name.strip().lower())
            nameless = label.name.strip() in ("", unnamed(label.id))
            taken = label.id in here.values()
            if known is not None:
                table[label.id] = known
            elif nameless and taken:  # as in a NIfTI file, which holds no names
                table[label.id] = label.id
            elif not taken and label.id not in self._paint.retired:
                self._paint.adopt([label])
                table[label.id] = label.id
            else:
                name = None if nameless else label.name
                table[label.id] = self._paint.add_label(name, label.colour).id
        return table
