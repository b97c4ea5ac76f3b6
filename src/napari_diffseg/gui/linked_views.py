"""The other two planes below the picture: linked, with a crosshair, and paintable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.qt import QtViewer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QSplitter
from vispy.scene.visuals import InfiniteLine

from napari_diffseg.engine.planes import ARRAY_AXIS
from napari_diffseg.gui import shortcuts, tools
from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.io import AXES
from napari_diffseg.gui.linked_labels import LinkedLabels
from napari_diffseg.gui.orientation import PLANES, Orientation
from napari_diffseg.gui.plane_bar import FULL, mark_plane
from napari_diffseg.gui.theme import tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.planes import Key
from napari_diffseg.session.states import SliceState

_COLOUR = (1.0, 0.85, 0.2, 0.55)  # of the crosshair
_SHARE = 0.4  # of the picture's height that the planes take at first
_REFRESH_MS = 40  # between two refreshes while somebody paints in another view
_LEFT = 1  # napari's number of the left button
_IMAGE = ("contrast_limits", "colormap", "gamma", "visible", "opacity", "interpolation2d")
_LABELS = (
    *("colormap", "visible", "opacity", "contour", "editable", "preserve_labels", "contiguous"),
    *("selected_label", "brush_size", "mode"),
)
_BACK = ("selected_label", "brush_size", "mode")  # what may be changed in a linked view, too


class _Plane:
    """One linked view: a viewer model on the voxels of the main one's layers, and its canvas."""

    def __init__(self, theme: str) -> None:
        self.axis = 0  # that runs through the planes
        self.model = ViewerModel(ndisplay=2)
        self.model.theme = theme
        self.canvas = QtViewer(self.model)
        self.canvas.dims.hide()  # the crosshair takes the place of the slider
        self.orientation = Orientation(self.model)
        self.orientation.show(True)
        self.crosshair = _Crosshair(self.canvas)
        self.full = tool("")
        self.full.setParent(self.canvas.canvas.native)
        self.full.setCheckable(True)
        self.full.move(4, 4)

    def look(self, axis: int) -> None:
        """Show the planes along another axis."""
        self.axis = axis
        if self.model.dims.ndim == 3 and self.model.dims.order != PLANES[axis]:
            self.model.dims.order = PLANES[axis]
            QTimer.singleShot(0, self.model.fit_to_view)

    def show_state(self, workspace: Workspace | None) -> None:
        """Say which plane is shown, and whether it is painted in full."""
        key = self.key(workspace)
        self.full.setVisible(key is not None)
        if key is not None and workspace is not None:
            state = workspace.begun.paint.planes.state(*key)
            self.full.setText(f"{key[0].capitalize()} {key[1]} painted in full")
            self.full.setToolTip(FULL)
            self.full.setChecked(state == SliceState.PAINTED)
            self.full.adjustSize()

    def key(self, workspace: Workspace | None) -> Key | None:
        """The coronal or sagittal plane that is shown."""
        if workspace is None or workspace.session is None or self.axis == 0:
            return None
        dims, ct = self.model.dims, workspace.layers.ct
        at = round(float(ct.world_to_data(dims.point)[self.axis]))
        inside = int(np.clip(at, 0, ct.data.shape[self.axis] - 1))
        return next(name for name, axis in ARRAY_AXIS.items() if axis == self.axis), inside

    def close(self) -> None:
        """Take everything apart."""
        self.orientation.close()
        self.model.layers.clear()
        self.canvas.dims.stop()
        self.canvas.canvas.delete()


class _Crosshair:
    """Two lines over one canvas."""

    def __init__(self, canvas: Any) -> None:
        self._lines = [
            InfiniteLine(0.0, _COLOUR, vertical=vertical, parent=canvas.canvas.view.scene)
            for vertical in (False, True)
        ]
        for line in self._lines:
            line.order = 1_000  # over the layers
            line.set_gl_state("translucent", depth_test=False)

    def move(self, down: float, across: float, visible: bool = True) -> None:
        """Cross at these world coordinates."""
        for line, position in zip(self._lines, (down, across), strict=True):
            line.visible = visible
            line.set_data(position)

    def close(self) -> None:
        """Take the lines off the canvas."""
        for line in self._lines:
            line.parent = None
        self._lines = []


class LinkedViews:
    """Shows the planes that the main view does not show, while they are switched on.

    Nothing is made before that. All views show the memory of the main view's layers, and strokes
    in them are steps of these layers' undo; only the slices on the screen are held twice.
    """

    def __init__(self, viewer: Any, desk: Desk, act: Callable[[shortcuts.Key], None]) -> None:
        self.planes: list[_Plane] = []
        self.on = False
        self._viewer, self._desk, self._act = viewer, desk, act
        self._holder: QSplitter | None = None
        self._main: _Crosshair | None = None
        self._shown: Workspace | None = None
        self._linked: list[tuple[Layer, Layer]] = []  # (main, of a plane)
        self._events: list[tuple[Any, Callable[..., None]]] = []  # of the main view's layers
        self._moving = False
        self._later = QTimer(singleShot=True, interval=0)
        self._later.timeout.connect(self._build_layers)
        self._soon = QTimer(singleShot=True, interval=_REFRESH_MS)
        self._soon.timeout.connect(self._refresh)
        self._callbacks = (self._on_move, self._on_click)

    # -- on and off -------------------------------------------------------------------------

    def show(self, on: bool) -> None:
        """Show the planes, or put them away."""
        if on == self.on:
            return
        if on and not self.planes:
            self._make()
        self._listen(on)
        if self._holder is not None:
            self._holder.setVisible(on)
        self._build_layers()

    def _listen(self, on: bool) -> None:
        self.on, viewer = on, self._viewer
        if on:
            viewer.mouse_move_callbacks.append(self._callbacks[0])
            viewer.mouse_drag_callbacks.append(self._callbacks[1])
        else:
            viewer.mouse_move_callbacks.remove(self._callbacks[0])
            viewer.mouse_drag_callbacks.remove(self._callbacks[1])
        for events, slot in self._main_events():
            (events.connect if on else events.disconnect)(slot)

    def close(self) -> None:
        """Take the planes off the window."""
        if self.on:  # not hidden: the window may be in the middle of hiding
            self._listen(False)
            self._unlink()
        self._later.stop()
        self._soon.stop()
        for plane in self.planes:
            shortcuts.release(plane.model)
            plane.close()
        if self._main is not None:
            self._main.close()
        if self._holder is not None:
            self._holder.deleteLater()
        self.planes, self._holder, self._main = [], None, None

    def _make(self) -> None:
        picture = self._viewer.window._qt_viewer
        self._holder = QSplitter(Qt.Orientation.Horizontal)
        for _ in range(2):
            plane = _Plane(self._viewer.theme)
            plane.model.mouse_move_callbacks.append(self._on_move)
            plane.model.mouse_drag_callbacks.append(self._on_click)
            plane.model.mouse_wheel_callbacks.append(self._on_wheel)
            plane.model.dims.events.current_step.connect(self._on_plane_step)
            plane.full.clicked.connect(lambda full, plane=plane: self._mark(plane, full))
            shortcuts.install(plane.model, self._act)
            self.planes.append(plane)
            self._holder.addWidget(plane.canvas)
        self._main = _Crosshair(picture)
        height = picture.height()
        picture.addWidget(self._holder)
        picture.setSizes([round(height * (1 - _SHARE)), round(height * _SHARE)])

    def _main_events(self) -> Iterator[tuple[Any, Callable[..., None]]]:
        viewer = self._viewer
        yield viewer.dims.events.current_step, self._on_main_step
        yield viewer.dims.events.order, self._on_order
        yield viewer.dims.events.ndisplay, self._on_order
        yield viewer.layers.events.inserted, self._on_layers
        yield viewer.layers.events.removed, self._on_layers
        yield viewer.layers.selection.events.active, self._on_active
        yield viewer.events.theme, self._on_theme

    # -- layers -----------------------------------------------------------------------------

    def follow(self) -> None:
        """Show the volume that the panel works on now."""
        if self.on and self._desk.active is not self._shown:
            self._later.start()

    def _on_layers(self, event: object = None) -> None:
        self._later.start()  # napari is in the middle of it

    def _build_layers(self) -> None:
        """Link the layers of the active volume, as they are now."""
        self._unlink()
        workspace = self._shown = self._desk.active if self.on else None
        for plane in self.planes:
            plane.model.layers.clear()
            if workspace is not None:
                self._link(plane, workspace)
                plane.model.fit_to_view()
        self._on_active()
        self._on_order()

    def _unlink(self) -> None:
        for events, slot in self._events:
            events.disconnect(slot)
        self._events, self._linked, self._shown = [], [], None

    def _link(self, plane: _Plane, workspace: Workspace) -> None:
        layers = workspace.layers
        place = {"scale": layers.ct.scale, "axis_labels": AXES, "units": layers.ct.units}
        for main in (layers.ct, layers.confidence):
            if main is not None:
                copy = Image(main.data, name=main.name, blending=main.blending, **place)
                self._join(plane, main, copy, _IMAGE)
        for main in (layers.prediction, layers.paint):
            if main is not None and workspace.session is not None:
                labels = LinkedLabels(main, workspace.paint_sync, name=main.name, **place)
                self._join(plane, main, labels, _LABELS)

    def _join(self, plane: _Plane, main: Any, copy: Any, attributes: tuple[str, ...]) -> None:
        plane.model.layers.append(copy)
        self._linked.append((main, copy))
        for name in attributes:
            self._copy(main, copy, name)
            self._on(main, name, main, copy)
            if name in _BACK and hasattr(main, name):
                # The copy goes with its plane's layers, and these connections with it.
                getattr(copy.events, name).connect(
                    lambda _=None, name=name: self._copy(copy, main, name)
                )
        for name in ("set_data", "paint", "labels_update"):
            if hasattr(main.events, name):
                self._events.append((getattr(main.events, name), self._on_data))
                getattr(main.events, name).connect(self._on_data)

    def _on(self, source: Any, name: str, main: Any, copy: Any) -> None:
        def slot(event: object = None) -> None:
            # In 3D the main view hides the CT, and shows labels as solid surfaces.
            if self._viewer.dims.ndisplay == 2:
                self._copy(main, copy, name)

        getattr(source.events, name).connect(slot)
        self._events.append((getattr(source.events, name), slot))

    @staticmethod
    def _copy(source: Any, target: Any, name: str) -> None:
        value = getattr(source, name)
        old = getattr(target, name)
        if value is not old and (name == "colormap" or value != old):
            setattr(target, name, value)

    def _on_data(self, event: object = None) -> None:
        if not self._soon.isActive():
            self._soon.start()

    def _refresh(self) -> None:
        for _, copy in self._linked:
            if copy.visible:
                copy.refresh(thumbnail=False, extent=False, highlight=False)

    def _on_active(self, event: object = None) -> None:
        """Draw in the same layer everywhere."""
        active = self._viewer.layers.selection.active
        for main, copy in self._linked:
            for plane in self.planes:
                if main is active and copy in plane.model.layers:
                    plane.model.layers.selection.active = copy

    def _mark(self, plane: _Plane, full: bool) -> None:
        key = plane.key(self._shown)
        if self._shown is not None and key is not None:
            self._desk.acting(lambda w: mark_plane(w, full, key), self._shown)()
        self.show_state()

    def show_state(self) -> None:
        """Show how the planes are painted."""
        if self.on:
            for plane in self.planes:
                plane.show_state(self._shown)

    def _on_theme(self, event: object = None) -> None:
        for plane in self.planes:
            plane.model.theme = self._viewer.theme

    # -- where ------------------------------------------------------------------------------

    def _on_order(self, event: object = None) -> None:
        """Show the two planes that the main view does not."""
        dims = self._viewer.dims
        if dims.ndim < 3:  # the volume has gone
            return
        hidden = dims.order[-3] - (dims.ndim - 3) if dims.ndisplay == 2 else 0
        rest = [axis for axis in PLANES if axis != hidden]
        for plane, axis in zip(self.planes, rest, strict=False):
            plane.look(axis)
        self._on_main_step()

    def _on_main_step(self, event: object = None) -> None:
        """Bring the planes and the crosshair to the main view's point."""
        dims = self._viewer.dims
        if self._moving or self._main is None or dims.ndim < 3:
            return
        self._moving = True
        point, shown = dims.point[-3:], self.on and self._shown is not None
        for plane in self.planes:
            if plane.model.layers:
                plane.model.dims.set_point(plane.axis, point[plane.axis])
            down, across = PLANES[plane.axis][1:]
            plane.crosshair.move(point[down], point[across], shown)
        down, across = (axis - (dims.ndim - 3) for axis in dims.order[-2:])
        self._main.move(point[down], point[across], shown and dims.ndisplay == 2)
        self.show_state()
        self._moving = False

    def _on_plane_step(self, event: object = None) -> None:
        """Follow a linked view that was scrolled."""
        if self._moving or not self.on or self._shown is None:
            return
        self._moving = True
        first = self._viewer.dims.ndim - 3
        for plane in self.planes:
            if plane.model.layers:
                point = plane.model.dims.point[plane.axis]
                if point != self._viewer.dims.point[first + plane.axis]:
                    self._viewer.dims.set_point(first + plane.axis, point)
        self._moving = False
        self._on_main_step()

    def _go(self, position: Any) -> None:
        """Bring all views to a point in world coordinates."""
        if self._shown is None:
            return
        ct = self._shown.layers.ct
        voxel = [round(float(v)) for v in ct.world_to_data(position[-3:])]
        inside = [min(max(v, 0), n - 1) for v, n in zip(voxel, ct.data.shape, strict=True)]
        first = self._viewer.dims.ndim - 3
        world = ct.data_to_world(inside)
        self._viewer.dims.set_point(range(first, first + 3), world[-3:])

    def _on_move(self, viewer: Any, event: Any) -> None:
        """Follow the mouse while Shift is held, as in 3D Slicer."""
        if "Shift" in event.modifiers and viewer.dims.ndisplay == 2:
            self._go(event.position)

    def _on_click(self, viewer: Any, event: Any) -> Iterator[None]:
        """Go to where somebody clicks without a tool in hand."""
        active = viewer.layers.selection.active
        if event.button != _LEFT or getattr(active, "mode", "pan_zoom") != "pan_zoom":
            return
        position = event.position
        yield
        if event.type != "mouse_move" and viewer.dims.ndisplay == 2:
            self._go(position)

    def _on_wheel(self, viewer: Any, event: Any) -> None:
        if self._shown is not None:
            tools.on_wheel(self._shown, event)
