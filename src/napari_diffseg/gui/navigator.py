"""The slice navigator: the whole volume at a glance, painted by hand.

From left (inferior) to right (superior) every slice has its cell; in a coronal or sagittal view
every plane of that axis has one. Shade *and* pattern distinguish
the states, so that neither colour vision nor a printout matters: solid is painted in full, dashed
is scribbled, a hollow frame is accepted. Narrow cells of painted slices are widened to three
pixels, so that they do not vanish in a volume of many slices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QToolTip

from napari_diffseg.gui.theme import PaintedWidget, Palette, mixed
from napari_diffseg.session.paint import SliceState

_TICKS, _CELLS, _FILL = 9, 22, 4  # heights in px of the three lanes, top to bottom
_STATE_TEXT = {
    SliceState.UNPAINTED: "unpainted",
    SliceState.SCRIBBLED: "scribbles",
    SliceState.PAINTED: "painted in full",
    SliceState.ACCEPTED: "accepted",
}


@dataclass(frozen=True, eq=False)
class NavigatorModel:
    """What the navigator shows."""

    # States of the slices, uint8 (z,); which of them the newest model has predicted, bool (z,).
    states: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    predicted: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    current: int = 0
    suggested: dict[int, str] = field(default_factory=dict)  # why to paint it next, by slice
    present: dict[int, str] = field(default_factory=dict)  # names of the labels on it, by slice
    what: str = "Slice"  # or the axis of the planes that are counted
    ends: tuple[str, str] = ("inferior", "superior")


class SliceNavigator(PaintedWidget):
    """One cell a slice; click or drag to go there, arrow keys step, a tooltip describes it."""

    went = Signal(int)  # the slice that the user picked

    def __init__(self, palette: Palette) -> None:
        super().__init__(palette, _TICKS + _CELLS + _FILL + 2, "Slices")
        self.model = NavigatorModel()
        self._hover: int | None = None
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def show_model(self, model: NavigatorModel) -> None:
        """Show another state of the volume."""
        self.model = model
        self.update()

    def slice_at(self, x: float) -> int | None:
        """Slice under a horizontal position in px, None when there is no volume."""
        count = len(self.model.states)
        if not count:
            return None
        return int(np.clip(x * count / max(self.width(), 1), 0, count - 1))

    def centre_of(self, z: int) -> float:
        """Horizontal centre of a slice's cell in px."""
        return float((z + 0.5) * self.width() / max(len(self.model.states), 1))

    def describe(self, z: int) -> str:
        """Say what is on a slice, for the tooltip."""
        m = self.model
        parts = [_STATE_TEXT[SliceState(int(m.states[z]))]]
        if m.present.get(z):
            parts[0] += f": {m.present[z]}"
        if m.predicted[z]:
            parts.append("predicted")
        if z in m.suggested:
            parts.append(f"suggested: {m.suggested[z]}")
        return f"{self.model.what} {z} · " + " · ".join(parts)

    # -- painting ---------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """Paint the three lanes, the current line on top."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        p, m, count = self._palette, self.model, len(self.model.states)
        lane = QRectF(0, _TICKS, self.width(), _CELLS)
        painter.fillRect(lane, mixed(p.well, p.text, 0.06))
        if not count:
            painter.setPen(p.muted)
            painter.drawText(lane, Qt.AlignmentFlag.AlignCenter, "no volume")
            return
        width = self.width() / count
        if width >= 4:  # separators only where they do not turn into a grey wash
            painter.setPen(QPen(p.base, 1))
            for z in range(1, count):
                x = int(z * width)
                painter.drawLine(x, _TICKS, x, _TICKS + _CELLS - 1)
        self._paint_predicted(painter, width)
        for z in np.flatnonzero(m.states).tolist():
            self._paint_truth(painter, z, SliceState(int(m.states[z])), width)
        for z in m.suggested:
            self._paint_tick(painter, self.centre_of(z))
        if self._hover is not None:
            self._paint_line(painter, self._hover, p.muted, handle=False)
        self._paint_line(painter, m.current, p.text, handle=True)
        if self.hasFocus():
            painter.setPen(QPen(p.accent, 1))
            painter.drawRect(lane.adjusted(0, 0, -1, -1))

    def _paint_predicted(self, painter: QPainter, width: float) -> None:
        edges = np.flatnonzero(np.diff(np.r_[0, self.model.predicted.view(np.int8), 0]))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            run = QRectF(first * width, _TICKS + _CELLS, (last - first) * width, _FILL)
            painter.fillRect(run, self._palette.accent)

    def _paint_truth(self, painter: QPainter, z: int, state: SliceState, width: float) -> None:
        p, cell = self._palette, max(width - (1 if width >= 4 else 0), 3.0)
        left = round(self.centre_of(z) - cell / 2)
        box = QRectF(left, _TICKS, round(cell), _CELLS)
        if state == SliceState.PAINTED:
            painter.fillRect(box, p.text)
        elif state == SliceState.SCRIBBLED:
            painter.fillRect(box, p.well)
            shade = mixed(p.text, p.well, 0.15)
            for y in range(_TICKS, _TICKS + _CELLS, 4):
                painter.fillRect(QRectF(left, y, round(cell), 2), shade)
        else:
            painter.fillRect(box, mixed(p.text, p.well, 0.62))
            painter.setPen(QPen(p.text, 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(box.adjusted(0, 0, -1, -1))

    def _paint_tick(self, painter: QPainter, x: float) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._palette.attention)
        top = _TICKS - 7.0
        painter.drawPolygon(
            QPolygonF([QPointF(x - 4, top), QPointF(x + 4, top), QPointF(x, _TICKS - 0.5)])
        )
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)

    def _paint_line(self, painter: QPainter, z: int, colour: QColor, handle: bool) -> None:
        x = round(self.centre_of(z))
        bottom = _TICKS + _CELLS + _FILL
        # A dark edge on both sides keeps the line visible over solid cells.
        painter.fillRect(QRectF(x - 2, 1, 4, bottom), self._palette.base)
        painter.fillRect(QRectF(x - 1, 1, 2, bottom), colour)
        if handle:
            painter.fillRect(QRectF(x - 4, 0, 8, 3), colour)

    # -- mouse and keys ---------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Go to the slice under the mouse."""
        self._go(event.position().x())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        """Describe the slice under the mouse; with a button down go there."""
        self._hover = self.slice_at(event.position().x())
        if self._hover is None:
            return
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._go(event.position().x())
        QToolTip.showText(event.globalPosition().toPoint(), self.describe(self._hover), self)
        self.update()

    def leaveEvent(self, event: object) -> None:  # noqa: N802
        """Forget the hovered slice."""
        self._hover = None
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        """Step with the arrow keys, jump to the ends with Home and End."""
        last = len(self.model.states) - 1
        target = {
            Qt.Key.Key_Left: self.model.current - 1,
            Qt.Key.Key_Right: self.model.current + 1,
            Qt.Key.Key_Home: 0,
            Qt.Key.Key_End: last,
        }.get(Qt.Key(event.key()))
        if target is None or last < 0:
            super().keyPressEvent(event)
        else:
            self.went.emit(int(np.clip(target, 0, last)))

    def _go(self, x: float) -> None:
        z = self.slice_at(x)
        if z is not None:
            self.went.emit(z)
