"""What the navigator shows of a volume: its slices, or the planes of the axis in view."""

from __future__ import annotations

import numpy as np

from napari_diffseg.engine.planes import ARRAY_AXIS, Axis
from napari_diffseg.gui.navigator import NavigatorModel
from napari_diffseg.gui.plane_bar import plane_in_view
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.session import Session

_ENDS: dict[Axis, tuple[str, str]] = {
    "coronal": ("anterior", "posterior"),
    "sagittal": ("right", "left"),
}


def navigator_model(workspace: Workspace | None) -> NavigatorModel:
    """Describe the slices of a volume, or the planes of the axis in view."""
    if workspace is None:
        return NavigatorModel()
    session, plane = workspace.session, plane_in_view(workspace)
    if plane is not None:
        return _planes(workspace, session, *plane)
    if session is None:
        blank = np.zeros(len(workspace.volume.hu), np.uint8)
        return NavigatorModel(blank, blank.astype(bool), workspace.current)
    return NavigatorModel(
        session.paint.states.copy(),
        workspace.predicted,
        workspace.current,
        workspace.suggestions.on_axis("transverse"),
        workspace.paint_sync.present_names(),
    )


def _planes(
    workspace: Workspace, session: Session | None, axis: Axis, current: int
) -> NavigatorModel:
    states = np.zeros(workspace.volume.hu.shape[ARRAY_AXIS[axis]], np.uint8)
    present = {}
    if session is not None:
        planes = session.paint.planes
        names = {label.id: label.name for label in session.paint.labels}
        for one, index in planes:
            if one == axis:
                states[index] = planes.state(one, index)
                shown = np.unique(planes.mask(one, index)).tolist()
                present[index] = ", ".join(names[n] for n in shown if n in names)
    whole = session is not None and bool(workspace.predicted.all())
    return NavigatorModel(
        states,
        np.full(len(states), whole),
        current,
        workspace.suggestions.on_axis(axis),
        present,
        axis.capitalize(),
        _ENDS[axis],
    )
