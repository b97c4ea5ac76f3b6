"""Icons of the labels table, drawn so that they follow the theme's ink."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap


def _drawn() -> tuple[QPixmap, QPainter]:
    pixmap = QPixmap(32, 32)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    return pixmap, painter


def _icon(pixmap: QPixmap) -> QIcon:
    icon = QIcon(pixmap)
    # Qt tints icons of selected rows, and a tinted colour is another colour.
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def swatch(colour: QColor) -> QIcon:
    """Draw a rounded square of a colour."""
    pixmap, painter = _drawn()
    painter.setPen(QPen(QColor(255, 255, 255, 90), 2))
    painter.setBrush(colour)
    painter.drawRoundedRect(QRectF(4, 4, 24, 24), 6, 6)
    painter.end()
    return _icon(pixmap)


def lock_icon(closed: bool, ink: QColor) -> QIcon:
    """Draw a padlock."""
    pixmap, painter = _drawn()
    painter.setPen(QPen(ink, 3))
    lift = 0 if closed else -4
    painter.drawArc(QRectF(10, 5 + lift, 12, 16), 0, 180 * 16)
    if closed:
        painter.drawLine(QPointF(10, 13), QPointF(10, 16))
    painter.drawLine(QPointF(22, 13 + lift), QPointF(22, 16))
    painter.setBrush(ink if closed else Qt.BrushStyle.NoBrush)
    painter.drawRoundedRect(QRectF(7, 15, 18, 12), 2, 2)
    painter.end()
    return _icon(pixmap)


def eye_icon(is_open: bool, ink: QColor) -> QIcon:
    """Draw an eye."""
    pixmap, painter = _drawn()
    painter.setPen(QPen(ink, 2.5))
    lid = QPainterPath(QPointF(4, 16))
    if is_open:
        lid.quadTo(QPointF(16, 4), QPointF(28, 16))
    lid.moveTo(QPointF(28, 16))
    lid.quadTo(QPointF(16, 28), QPointF(4, 16))
    painter.drawPath(lid)
    if is_open:
        painter.setBrush(ink)
        painter.drawEllipse(QPointF(16, 16), 4, 4)
    painter.end()
    return _icon(pixmap)
