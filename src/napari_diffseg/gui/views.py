"""Ways to look at a CT: surfaces in 3D, window and level by the mouse, zoom to a label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.journal import SessionError

_HU_PER_PIXEL = 2.0  # of the mouse, for the window as for the level
_NARROWEST = 10.0  # HU of a window
_SLAB_MM = 10.0
_MARGIN = 1.6  # of the canvas around a label, in sizes of the label
_RIGHT = 2  # napari's number of the right button
# Looking from the front (towards posterior) with the head up; the axes are z, y, x.
_FRONT, _UP = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)


class Views:
    """Follows one viewer: what 3D shows, and what the right mouse button does."""

    def __init__(self, viewer: Any, desk: Desk) -> None:
        self._viewer, self._desk = viewer, desk
        self._before: list[tuple[Any, str, Any]] = []  # layer, attribute, value in 2D
        self._slices: tuple[float, Any] | None = None  # zoom and centre of the view in 2D
        viewer.dims.events.ndisplay.connect(self._on_ndisplay)
        self._drag = lambda _, event: self._on_drag(event)
        viewer.mouse_drag_callbacks.append(self._drag)

    def close(self) -> None:
        """Follow no more, and show slices as before."""
        if self._drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._drag)
            self._viewer.dims.events.ndisplay.disconnect(self._on_ndisplay)
            self._put_back()

    # -- 3D ---------------------------------------------------------------------------------

    def _on_ndisplay(self, event: object = None) -> None:
        self._put_back()
        if self._desk.active is None:
            return
        camera = self._viewer.scene.camera
        # napari sets its own camera after this.
        if self._viewer.dims.ndisplay == 3:
            self._slices = camera.zoom, camera.center
            self._show_surfaces(self._desk.active)
            QTimer.singleShot(0, self._look_from_the_front)
        elif self._slices is not None:
            QTimer.singleShot(0, self._look_at_slices)

    def _show_surfaces(self, workspace: Workspace) -> None:
        layers = workspace.layers
        # A projection of the CT would hide the labels, and at a soft-tissue window it is white.
        for layer in (layers.ct, layers.confidence, layers.difference):
            if layer is not None:
                self._set(layer, "visible", False)
        for layer in (layers.paint, layers.prediction):
            if layer is not None:
                self._set(layer, "rendering", "iso_categorical")
                self._set(layer, "iso_gradient_mode", "smooth")
                self._set(layer, "opacity", 1.0)
                self._set(layer, "blending", "translucent")

    def _look_from_the_front(self) -> None:
        dims = self._viewer.dims
        if dims.ndisplay == 3 and dims.ndim == 3:
            front, up = (tuple(v[a] for a in dims.displayed) for v in (_FRONT, _UP))
            self._viewer.scene.camera.set_view_direction(front, up)
            self._viewer.fit_to_view()

    def _look_at_slices(self) -> None:
        if self._viewer.dims.ndisplay == 2 and self._slices is not None:
            camera = self._viewer.scene.camera
            (camera.zoom, camera.center), self._slices = self._slices, None

    def _set(self, layer: Any, attribute: str, value: Any) -> None:
        self._before.append((layer, attribute, getattr(layer, attribute)))
        setattr(layer, attribute, value)

    def _put_back(self) -> None:
        for layer, attribute, value in reversed(self._before):
            setattr(layer, attribute, value)
        self._before = []

    # -- window and level -------------------------------------------------------------------

    def _on_drag(self, event: Any) -> Iterator[None]:
        workspace = self._desk.active
        active = self._viewer.layers.selection.active
        # With each tool that draws, napari has a use of its own for the right button.
        if (
            workspace is None
            or event.button != _RIGHT
            or self._viewer.dims.ndisplay != 2
            or getattr(active, "mode", "pan_zoom") != "pan_zoom"
        ):
            return
        camera = self._viewer.scene.camera
        pan, camera.mouse_pan = camera.mouse_pan, False  # else it zooms as well
        ct, start = workspace.layers.ct, np.array(event.pos, float)
        low, high = ct.contrast_limits
        try:
            yield
            while event.type == "mouse_move":
                right, down = (np.array(event.pos, float) - start) * _HU_PER_PIXEL
                width = max(high - low + right, _NARROWEST)
                level = (low + high) / 2 + down
                set_window(workspace, width, level)
                yield
        finally:
            camera.mouse_pan = pan


def set_window(workspace: Workspace, width: float, level: float) -> None:
    """Set the window of the CT in HU, and say what it is."""
    ct = workspace.layers.ct
    limits = level - width / 2, level + width / 2
    low, high = ct.contrast_limits_range
    ct.contrast_limits_range = min(low, limits[0]), max(high, limits[1])
    ct.contrast_limits = limits
    workspace.layers.viewer.help = f"W{width:.0f} L{level:.0f}"


def toggle_slab(workspace: Workspace) -> None:
    """Show the brightest of a slab of 10 mm about the slice in view, or the slice alone again.

    Only the CT is projected: paint and prediction stay those of the slice.
    """
    ct, viewer = workspace.layers.ct, workspace.layers.viewer
    on = ct.projection_mode != "max"
    ct.projection_mode = "max" if on else "none"
    viewer.dims.thickness = (_SLAB_MM if on else 0.0,) * viewer.dims.ndim
    viewer.help = f"slab of {_SLAB_MM:g} mm, brightest" if on else "slice"


def zoom_to_label(workspace: Workspace) -> None:
    """Bring the label in the brush into view, on its largest slice where it is not on this one.

    Raises
    ------
    SessionError
        If the label is nowhere.
    """
    paint, viewer = workspace.layers.paint, workspace.layers.viewer
    label_id = 0 if paint is None else int(paint.selected_label)
    if label_id in (0, BACKGROUND):
        raise SessionError("choose a label in the table first")
    inside = workspace.begun.merged() == label_id
    sizes = inside.sum(axis=(1, 2))
    if not sizes.any():
        raise SessionError(f"{workspace.begun.paint.label(label_id).name} is on no slice yet")
    in_view = workspace.in_view
    if in_view is not None:
        if not sizes[in_view]:
            workspace.go(int(sizes.argmax()))
        inside = inside[workspace.current][None]
    shown = list(viewer.dims.displayed)
    found = np.argwhere(inside)
    low = np.array(workspace.layers.ct.data_to_world(found.min(axis=0) - 0.5))
    high = np.array(workspace.layers.ct.data_to_world(found.max(axis=0) + 0.5))
    centre, size = (low + high)[shown] / 2, (high - low)[shown]
    canvas = viewer.window._qt_viewer.canvas.native
    room = np.array([canvas.height(), canvas.width()], float)
    if len(shown) == 3:  # from whatever side
        size, room = size.max(keepdims=True), room.min(keepdims=True)
    viewer.scene.camera.center = tuple(np.r_[np.zeros(3 - len(shown)), centre])
    viewer.scene.camera.zoom = float((room / (_MARGIN * np.maximum(size, 1.0))).min())
