"""A labels layer for another view of the same voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer

from napari_diffseg.gui.paint_sync import PaintSync


class LinkedLabels(Labels):
    """Shows and edits the voxels of another labels layer, in whose history the strokes go.

    Parameters
    ----------
    main
        The other layer; its memory is shared.
    sync
        Brings the strokes into the session.
    options
        As for napari's ``Labels``.
    """

    def __init__(self, main: Labels, sync: PaintSync, **options: Any) -> None:
        self._main, self._sync = main, sync
        super().__init__(main.data, **options)

    @property
    def _type_string(self) -> str:
        return "labels"  # napari's writers and keys know the class by this name

    def _apply_mask_to_data(self, data: Any, mask: Any, new_label: int, volume_slice: Any) -> Any:
        allowed = self._sync.limits.allowed(self._main, data, volume_slice, new_label)
        return super()._apply_mask_to_data(data, mask & allowed, new_label, volume_slice)

    def _save_history(self, value: Any) -> None:
        self._sync.end_view()  # an earlier stroke of the main view; the voxels change after this
        self._main._redo_history.clear()
        super()._save_history(value)

    def _append_to_undo_history(self, item: Any) -> None:
        with self._sync.across():
            self._main._append_to_undo_history(item)
        # napari notes a single dab before it has made it.
        QTimer.singleShot(0, lambda: self._finish(touched(item)))

    def _finish(self, slices: list[int]) -> None:
        with self._sync.across():
            self._main.refresh()
        self._sync.stroke_across(self._main, slices)

    def undo(self) -> None:
        """Take the last stroke back, in whatever view it was made."""
        with self._sync.across():
            self._main.undo()

    def redo(self) -> None:
        """Make it again."""
        with self._sync.across():
            self._main.redo()


def touched(item: Any) -> list[int]:
    """Slices of a step in napari's history of a labels layer, ascending."""
    found: set[int] = set()
    for atom in item:
        first = atom.slice_key[0] if hasattr(atom, "slice_key") else atom[0][0]
        if isinstance(first, slice):
            found.update(range(first.start, first.stop))
        else:
            found.update(np.unique(first).tolist())
    return sorted(found)
