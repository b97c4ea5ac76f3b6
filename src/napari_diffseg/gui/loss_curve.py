"""A small loss curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_diffseg.gui.theme import ACCENT, Palette, mixed

_MOST = 600  # points drawn, about two a pixel


class LossCurve(QWidget):
    """Loss against step, the loss on a logarithmic axis; the last value is written beside it."""

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self._palette = palette
        self._points: list[tuple[float, float]] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Training loss")
        self.setToolTip(
            "Training loss (logarithmic). It says how learning goes, not how good it is."
        )

    def sizeHint(self) -> QSize:  # noqa: N802
        """Qt's question for a size."""
        return QSize(320, 46)

    def set_palette(self, palette: Palette) -> None:
        """Follow the viewer's theme."""
        self._palette = palette
        self.update()

    def show_losses(self, losses: Sequence[float]) -> None:
        """Draw the losses of all steps so far."""
        every = max(1, len(losses) // _MOST)
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
        inner = box.adjusted(4, 6, -46, -6)
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
        painter.setPen(QPen(ACCENT, 1.6))
        painter.drawPolyline(line)
        font = painter.font()
        font.setPointSizeF(8)
        painter.setFont(font)
        painter.setPen(p.muted)
        side = QRectF(inner.right() + 2, 0, 40, self.height())
        right = Qt.AlignmentFlag.AlignRight
        painter.drawText(side.adjusted(0, 4, 0, 0), right | Qt.AlignmentFlag.AlignTop, "loss")
        painter.setPen(p.text)
        text = f"{self._points[-1][1]:.3f}"
        painter.drawText(side.adjusted(0, 0, 0, -4), right | Qt.AlignmentFlag.AlignBottom, text)
