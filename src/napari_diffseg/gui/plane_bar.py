"""Coronal and sagittal planes in the window: marking one as painted in full."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_diffseg.engine.planes import ARRAY_AXIS
from napari_diffseg.gui.theme import allow, row, text_label, tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.planes import Key

FULL = (
    "The plane in view is painted in full: whatever is not painted on it is background. "
    "No slice becomes painted in full by it."
)
_CLEAR = "Take this plane back; strokes stay on the slices that it crosses, as scribbles"


def plane_in_view(workspace: Workspace) -> Key | None:
    """The coronal or sagittal plane in view; ``None`` in a transverse view and in 3D."""
    dims, ct = workspace.layers.viewer.dims, workspace.layers.ct
    if dims.ndisplay != 2:
        return None
    at = ct.world_to_data(dims.point[-3:])
    for axis, array_axis in ARRAY_AXIS.items():
        if dims.ndim - 3 + array_axis not in dims.displayed:
            end = workspace.volume.hu.shape[array_axis] - 1
            return axis, int(np.clip(round(float(at[array_axis])), 0, end))
    return None


def mark_plane(workspace: Workspace, full: bool, key: Key | None = None) -> None:
    """Take the paint on a plane, the one in view by default, as painted in full, or clear it."""
    key = key or plane_in_view(workspace)
    if key is None:
        return
    workspace.paint_sync.flush()
    paint = workspace.begun.paint
    if full:
        mask = np.take(paint.mask, key[1], ARRAY_AXIS[key[0]])
        known = paint.planes.mask(*key)  # a plane of another program is not on the slices
        paint.planes.set_plane(*key, np.where(mask == 0, known, mask), SliceState.PAINTED)
    else:
        paint.planes.clear_plane(*key)
    workspace.unsay()
    workspace.changed.emit()


class PlaneBar(QWidget):
    """How the plane in view is painted, and which planes are; hidden where there is none."""

    marked = Signal(bool)  # whether the plane in view is painted in full

    def __init__(self) -> None:
        super().__init__()
        self.full, self.clear = tool("Plane painted in full"), tool("Clear plane")
        self.full.setToolTip(FULL)
        self.clear.setToolTip(_CLEAR)
        self.full.setCheckable(True)
        self.full.clicked.connect(lambda: self.marked.emit(True))
        self.clear.clicked.connect(lambda: self.marked.emit(False))
        self.painted = text_label(wrap=True)
        self.painted.setAlignment(Qt.AlignmentFlag.AlignLeft)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row(self.full, self.clear))
        column.addWidget(self.painted)
        self.hide()

    def show_state(self, workspace: Workspace | None) -> None:
        """Show the planes of a volume."""
        session = None if workspace is None else workspace.session
        if workspace is None or session is None:
            self.hide()
            return
        planes, here = session.paint.planes, plane_in_view(workspace)
        self.painted.setText("Planes: " + ", ".join(f"{axis} {n}" for axis, n in planes))
        self.painted.setVisible(len(planes) > 0)
        for button in (self.full, self.clear):
            button.setVisible(here is not None)
        if here is not None:
            state = planes.state(*here)
            self.full.setText(f"{here[0].capitalize()} {here[1]} painted in full")
            self.full.setChecked(state == SliceState.PAINTED)
            allow(self.full, FULL, "")
            marked = state != SliceState.UNPAINTED
            allow(self.clear, _CLEAR, "" if marked else "This plane is not marked.")
        self.setVisible(here is not None or len(planes) > 0)
