"""A small loss curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF

from napari_diffseg.gui.theme import PaintedWidget, Palette, mixed

_MAX_POINTS = 600  # drawn, about two a pixel


class LossCurve(PaintedWidget):
    """Loss against step, the loss on a logarithmic axis; the last value is written beside it."""

    def __init__(self, palette: Palette) -> None:
        super().__init__(palette, 46, "Training loss")
        self._points: list[tuple[float, float]] = []
        self.setToolTip(
            "Training loss (logarithmic). It shows how learning goes, not how good the result is."
        )

    def show_losses(self, losses: Sequence[float]) -> None:
        """Draw the losses of all steps so far."""
        every = max(1, len(losses) // _MAX_POINTS)
        self._points = [
            (float(step), loss)
            for step, loss in enumerate(losses[::every])
            if math.isfinite(loss) and loss > 0
        ]
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """Paint the curve."""
        p = self._palette
        painter = QPainter(self)
        box = QRectF(0, 0, self.width(), self.height())
        painter.fillRect(box, mixed(p.well, p.base, 0.35))
        if len(self._points) < 2:
            return
        logs = [math.log(loss) for _, loss in self._points]
        low, high = min(logs), max(max(logs), min(logs) + 0.1)
        last = self._points[-1][0]
        inner = box.adjusted(4, 6, -p.px(46), -6)
        line = QPolygonF(
            [
                QPointF(
                    inner.left() + inner.width() * step / last,
                    inner.bottom() - inner.height() * (log - low) / (high - low),
                )
                for (step, _), log in zip(self._points, logs, strict=True)
            ]
        )
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(p.accent, 1.6))
        painter.drawPolyline(line)
        font = painter.font()
        font.setPointSizeF(8 * p.scale)
        painter.setFont(font)
        painter.setPen(p.muted)
        side = QRectF(inner.right() + 2, 0, p.px(40), self.height())
        right = Qt.AlignmentFlag.AlignRight
        painter.drawText(side.adjusted(0, 4, 0, 0), right | Qt.AlignmentFlag.AlignTop, "loss")
        painter.setPen(p.text)
        text = f"{self._points[-1][1]:.3f}"
        painter.drawText(side.adjusted(0, 0, 0, -4), right | Qt.AlignmentFlag.AlignBottom, text)
