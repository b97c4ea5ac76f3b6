"""The mode in which clicks draw an outline that follows edges, found by ``livewire``.

Each click sets a corner, the path to the mouse follows the edges in between, and a double-click or
Enter fills the outline with the label in the brush: one stroke, with one step of undo.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui.io import AXES
from napari_diffseg.gui.livewire import EdgePaths, edge_cost, filled
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.journal import SessionError

_STILL = 4.0  # px that the mouse may move in a click; further is a drag, which moves the picture
_COLOUR = "#ffd21f"  # no label's colour, and seen on light and dark tissue
_DRAWN = 4.0  # cost of a pixel that is drawn already, where one on no edge costs 1
_KEYS = ("Escape", "Backspace", "Enter")


class Outline(QObject):
    """One outline after the other on the slices of a workspace, until the mode is left."""

    left = Signal()  # the mode has ended

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._workspace: Workspace | None = None
        self._paths: EdgePaths | None = None  # from the last corner
        self._pixels: list[tuple[int, int]] = []
        self._corners: list[int] = []  # where in the pixels each corner's path begins
        self._shapes: Shapes | None = None  # the layer that shows them
        self._z = -1

    @property
    def active(self) -> bool:
        """Whether clicks draw an outline now."""
        return self._workspace is not None

    def begin(self, workspace: Workspace) -> None:
        """Take the clicks on the picture.

        Raises
        ------
        SessionError
            If no label is chosen, or no transverse slice is in view.
        """
        paint = workspace.layers.paint
        if paint is None or paint.selected_label in (0, BACKGROUND):
            raise SessionError("choose a label in the table first")
        if workspace.in_view is None:
            raise SessionError("an outline is drawn on a transverse slice; roll the axes back")
        self._workspace, self._paint, self._viewer = workspace, paint, workspace.layers.viewer
        self._viewer.layers.selection.active = paint
        self._mode, paint.mode = paint.mode, "pan_zoom"
        self._viewer.mouse_drag_callbacks.append(self._on_press)
        self._viewer.mouse_move_callbacks.append(self._on_move)
        # Which napari would zoom by.
        self._double = list(self._viewer.mouse_double_click_callbacks)
        self._viewer.mouse_double_click_callbacks[:] = [self._on_double_click]
        self._viewer.dims.events.current_step.connect(self._on_step)
        for key, action in zip(_KEYS, (self.end, self._take_back, self._close), strict=True):
            paint.bind_key(key, lambda _, act=action: act(), overwrite=True)
        workspace.said = "Click along the edge; a double-click fills, Escape ends."
        workspace.changed.emit()

    def end(self) -> None:
        """Leave the clicks to napari again; an outline that is not closed is dropped."""
        if self._workspace is None:
            return
        workspace, self._workspace = self._workspace, None
        self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self._viewer.mouse_move_callbacks.remove(self._on_move)
        self._viewer.mouse_double_click_callbacks[:] = self._double
        self._viewer.dims.events.current_step.disconnect(self._on_step)
        for key in _KEYS:
            self._paint.bind_key(key, None)
        self._clear()
        if self._paint.mode == "pan_zoom":
            self._paint.mode = self._mode
        workspace.unsay()
        workspace.changed.emit()
        self.left.emit()

    # -- events -----------------------------------------------------------------------------

    def _on_press(self, _: Any, event: Any) -> Iterator[None]:
        if event.button != 1:
            return
        start = np.array(event.pos, float)
        yield
        far = False
        while event.type == "mouse_move":
            far |= bool(np.hypot(*(np.array(event.pos, float) - start)) > _STILL)
            yield
        pixel = self._pixel(event)
        if not far and pixel is not None:
            self._add(pixel)

    def _on_move(self, _: Any, event: Any) -> None:
        pixel = self._pixel(event)
        if self._paths is not None and pixel is not None:
            self._show([*self._pixels, *self._paths.to(pixel)])

    def _on_double_click(self, _: Any, event: Any) -> None:
        pixel = self._pixel(event)
        if pixel is not None:
            self._add(pixel)
        QTimer.singleShot(0, self._close)  # napari is in the middle of its callbacks

    def _on_step(self, event: object = None) -> None:
        if self._workspace is not None and self._workspace.in_view != self._z:
            self._clear()

    # -- the outline ------------------------------------------------------------------------

    def _add(self, pixel: tuple[int, int]) -> None:
        assert self._workspace is not None
        z = self._workspace.in_view
        if z is None:
            return
        if self._paths is None:
            self._z = z
            ct = self._workspace.layers.ct
            self._cost = edge_cost(self._workspace.volume.hu[z], *ct.contrast_limits)
        elif pixel == self._paths.start:
            return  # the second click of a double-click
        else:
            self._corners.append(len(self._pixels))
            self._pixels += self._paths.to(pixel)
        self._paths = EdgePaths(self._cost, pixel)
        self._show(self._pixels or [pixel])

    def _take_back(self) -> None:
        """Remove the last corner."""
        if not self._corners:
            self._clear()
            return
        kept = self._corners.pop()
        start = self._pixels[kept]
        del self._pixels[kept:]
        self._paths = EdgePaths(self._cost, start)
        self._show(self._pixels or [start])

    def _close(self) -> None:
        """Fill what is drawn so far, along the edges back to the first corner."""
        if self._workspace is None or self._paths is None or len(self._corners) < 2:
            return
        # What is drawn already is expensive, or the way back would go along it and enclose nothing.
        drawn = self._cost.copy()
        drawn[tuple(np.array(self._pixels).T)] = _DRAWN
        closed = [*self._pixels, *EdgePaths(drawn, self._paths.start).to(self._pixels[0])]
        z, paint, limits = self._z, self._paint, self._workspace.paint_sync.limits
        self._clear()
        rows, columns = filled(closed, paint.data.shape[1:])
        inside = (np.full(len(rows), z), rows, columns)
        allowed = limits.allowed(paint, paint.data[inside], inside, paint.selected_label)
        paint.data_setitem(tuple(at[allowed] for at in inside), paint.selected_label)

    def _pixel(self, event: Any) -> tuple[int, int] | None:
        """Pixel of the slice in view under the mouse."""
        _, y, x = np.rint(self._paint.world_to_data(event.position[-3:])).astype(int)
        rows, columns = self._paint.data.shape[1:]
        return (int(y), int(x)) if 0 <= y < rows and 0 <= x < columns else None

    def _show(self, pixels: list[tuple[int, int]]) -> None:
        path = np.array(
            [(self._z, *pixel) for pixel in (pixels if len(pixels) > 1 else pixels * 2)]
        )
        if self._shapes is None:
            self._shapes = Shapes(
                [path],
                shape_type="path",
                edge_color=_COLOUR,
                edge_width=1.0,
                name="outline",
                scale=self._paint.scale,
                axis_labels=AXES,
                units="mm",
            )
            self._shapes.editable = False
            self._viewer.layers.append(self._shapes)
            self._viewer.layers.selection.active = self._paint
        else:
            self._shapes.data = [path]

    def _clear(self) -> None:
        self._paths, self._pixels, self._corners, self._z = None, [], [], -1
        if self._shapes is not None and self._shapes in self._viewer.layers:
            self._viewer.layers.remove(self._shapes)
        self._shapes = None
