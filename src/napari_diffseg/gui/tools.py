"""What the buttons of the Tools section do to a workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.engine.edit import Edit
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.tools import Proposal, Target

_STEP = 1.15  # a notch of the wheel makes the brush so many times larger
_SAMPLE_MM = 4.0  # radius of the sample around a click
_SPREAD = 2.0  # standard deviations on both sides of the sample's mean


def edit(workspace: Workspace, how: Edit, target: Target, everywhere: bool) -> None:
    """Edit the label in the brush, on the slice in view or everywhere."""
    label_id = _brush(workspace)
    z = None if everywhere else workspace.current
    locked = frozenset(workspace.paint_sync.locked)
    tools = workspace.begun.tools
    _propose(
        workspace, lambda: tools.edited(how, label_id, target, z, locked), how.kind.capitalize()
    )


def copy(workspace: Workspace, step: int, target: Target, fit: bool) -> None:
    """Copy the labels of the slice below (-1) or above (1) to the one in view."""
    z = workspace.current
    locked = frozenset(workspace.paint_sync.locked)
    tools = workspace.begun.tools
    what = f"Copied from slice {z + step}"
    _propose(workspace, lambda: tools.copied(z, z + step, target, fit, locked), what)


def fill_between(workspace: Workspace, everywhere: bool) -> None:
    """Predict the gap around the slice in view, or all gaps, from the painted slices alone."""
    z = None if everywhere else workspace.current
    locked = frozenset(workspace.paint_sync.locked)
    tools = workspace.begun.tools
    workspace.said = "Filling between the painted slices."
    workspace.changed.emit()
    _propose(workspace, lambda: tools.filled(z, locked), "Filled between")


def back_to_model(workspace: Workspace, everywhere: bool) -> None:
    """Show the model's own prediction again where it was corrected."""
    z = None if everywhere else workspace.current
    tools = workspace.begun.tools
    _propose(workspace, lambda: tools.modelled(z), "Back to the model's prediction")


def step_back(workspace: Workspace, target: Target, forward: bool = False) -> None:
    """Undo or redo the last change of paint or prediction, and show the slice where it was."""
    layer, sync = _layer(workspace, target), workspace.paint_sync
    sync.flush()
    changed: list[int] = []
    signal = sync.changed if target == "paint" else sync.corrected
    signal.connect(changed.append)
    try:
        if forward:
            layer.redo()
        else:
            layer.undo()
        sync.flush()
    finally:
        signal.disconnect(changed.append)
    word = "redone" if forward else "undone"
    if not changed:
        raise SessionError(f"nothing of the {target} can be {word}")
    if workspace.current not in changed:
        workspace.go(changed[0])
    slices = f"slice {changed[0]}" if len(set(changed)) == 1 else f"{len(set(changed))} slices"
    workspace.said = f"{word.capitalize()} on {slices}."
    workspace.changed.emit()


def brush_mm(workspace: Workspace) -> float:
    """Diameter of the brush in mm."""
    layer = workspace.layers.paint
    return 0.0 if layer is None else float(layer.brush_size) * workspace.volume.geometry.spacing[2]


def set_brush(workspace: Workspace, mm: float) -> None:
    """Set the diameter of brush and eraser in mm, in both layers."""
    pixels = max(1, round(mm / workspace.volume.geometry.spacing[2]))
    for layer in (workspace.layers.paint, workspace.layers.prediction):
        if layer is not None:
            layer.brush_size = pixels


def on_wheel(workspace: Workspace, event: Any) -> None:
    """Change the brush by Shift and the wheel; Ctrl and Alt with the wheel are napari's."""
    layer = workspace.layers.viewer.layers.selection.active
    ours = (workspace.layers.paint, workspace.layers.prediction)
    if "Shift" not in event.modifiers or not any(layer is one for one in ours):
        return
    size = float(layer.brush_size)
    # Some systems turn the wheel sideways while Shift is held.
    larger = float(np.sum(event.delta)) > 0
    size = max(size + 1, size * _STEP) if larger else min(size - 1, size / _STEP)
    set_brush(workspace, size * workspace.volume.geometry.spacing[2])
    workspace.changed.emit()


def sample_hu(workspace: Workspace, found: Callable[[float, float], None]) -> None:
    """Let the next click give a range of HU: mean and two standard deviations around it."""
    viewer, layer = workspace.layers.viewer, workspace.layers.viewer.layers.selection.active
    mode = layer.mode if isinstance(layer, Labels) else None
    limits = workspace.paint_sync.limits
    if limits.sampling:
        return  # the mode to come back to is known already

    def on_press(_: Any, event: Any) -> None:
        position = workspace.layers.ct.world_to_data(event.position[-3:])
        QTimer.singleShot(0, lambda: done(np.rint(position).astype(int)))

    def done(voxel: Any) -> None:
        if not limits.sampling:
            return  # the second click of a double-click
        limits.sampling = False
        viewer.mouse_drag_callbacks.remove(on_press)
        if mode is not None:
            layer.mode = mode
        values = _around(workspace, *map(int, voxel))
        if len(values):
            mean, spread = float(values.mean()), max(float(values.std()), 1.0)
            found(round(mean - _SPREAD * spread), round(mean + _SPREAD * spread))

    if mode is not None:
        layer.mode = "pan_zoom"  # the click must not paint
    limits.sampling = True
    viewer.mouse_drag_callbacks.append(on_press)
    workspace.said = "Click on the tissue that you want to paint."
    workspace.changed.emit()


def _around(workspace: Workspace, z: int, y: int, x: int) -> Any:
    """HU of a slice within a few millimetres of a pixel."""
    hu = workspace.volume.hu
    _, dy, dx = workspace.volume.geometry.spacing
    if not 0 <= z < len(hu):
        return np.empty(0)
    rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
    near = np.hypot((rows - y) * dy, (columns - x) * dx) <= max(_SAMPLE_MM, dy, dx)
    return hu[z][near]


def _brush(workspace: Workspace) -> int:
    """Label in the brush."""
    paint = workspace.layers.paint
    label_id = 0 if paint is None else int(paint.selected_label)
    if label_id in (0, BACKGROUND):
        raise SessionError("choose a label in the table first")
    return label_id


def _layer(workspace: Workspace, target: Target) -> Labels:
    layers = workspace.layers
    layer = layers.paint if target == "paint" else layers.prediction
    assert layer is not None  # it is put back when it is removed
    return layer


def _propose(workspace: Workspace, compute: Callable[[], Proposal], what: str) -> None:
    """Compute a change in a thread, then make it, as one step of the layer's undo."""
    session = workspace.begun

    def put(proposal: Proposal) -> None:
        if workspace.session is not session:
            return  # somebody else reads now
        try:
            workspace.paint_sync.flush()
            workspace.paint_sync.change(proposal.target, lambda: session.tools.put(proposal))
        except SessionError as error:
            workspace.fail(error)
            return
        count = len(proposal.planes)
        where = {0: "nothing changed", 1: "1 slice changed"}.get(count, f"{count} slices changed")
        workspace.error, workspace.said = "", f"{what}: {where}."
        workspace.recolour()

    workspace.paint_sync.flush()
    workspace.unsay()
    workspace.call(compute, put)
