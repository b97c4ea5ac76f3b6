"""Colours and small building blocks of the panel, taken from napari's theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QSize
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

# Blue and orange are told apart by every kind of colour vision, and from the greys of a CT.
ACCENT = QColor(58, 134, 214)
ATTENTION = QColor(240, 165, 40)
BAD = QColor(224, 96, 80)


@dataclass(frozen=True)
class Palette:
    """The theme's colours that painted widgets use."""

    text: QColor
    muted: QColor
    base: QColor
    well: QColor
    line: QColor

    @classmethod
    def of(cls, viewer: Any) -> Palette:
        """Read the colours of the viewer's theme."""
        from napari.utils.theme import get_theme

        theme = get_theme(viewer.theme)

        def colour(value: Any) -> QColor:
            return QColor(*value.as_rgb_tuple()[:3])

        text, base = colour(theme.text), colour(theme.background)
        return cls(
            text=text,
            muted=mixed(text, base, 0.38),
            base=base,
            well=colour(theme.foreground),
            line=colour(theme.primary),
        )


def mixed(a: QColor, b: QColor, share: float) -> QColor:
    """Mix two colours; ``share`` is how much of the second."""
    return QColor(
        *(
            round(p * (1 - share) + q * share)
            for p, q in zip(a.getRgb()[:3], b.getRgb()[:3], strict=True)
        )
    )


def style_sheet(palette: Palette) -> str:
    """Style of what is the panel's own; all else keeps napari's look."""
    accent, muted, line = ACCENT.name(), palette.muted.name(), palette.line.name()
    lighter, darker = ACCENT.lighter(115).name(), ACCENT.darker(115).name()
    grey = mixed(palette.line, palette.base, 0.5).name()
    hover = mixed(palette.line, palette.text, 0.2).name()
    return f"""
    QWidget#panel QPushButton, QWidget#panel QToolButton {{
        padding: 4px 7px; border-radius: 3px; font-size: 9pt; }}
    QWidget#panel QToolButton {{ background: {line}; border: 0; }}
    QWidget#panel QToolButton:hover {{ background: {hover}; }}
    QWidget#panel QToolButton:checked {{ background: {accent}; color: white; }}
    QWidget#panel QPushButton:checked {{ background: {accent}; color: white; }}
    QWidget#panel QPushButton:disabled, QWidget#panel QToolButton:disabled {{
        background: {grey}; color: {muted}; border: 0; }}
    QWidget#panel QDoubleSpinBox {{ font-size: 9pt; min-width: 44px; padding: 0; }}
    QPushButton#primary {{ background: {accent}; color: white; font-weight: 600;
        font-size: 11pt; padding: 7px; }}
    QPushButton#primary:hover {{ background: {lighter}; }}
    QPushButton#primary:pressed {{ background: {darker}; }}
    QWidget#panel QPushButton#primary:disabled {{ background: {grey}; color: {muted}; }}
    QPushButton#stop {{ background: {line}; color: {palette.text.name()}; font-weight: 600;
        font-size: 11pt; padding: 6px; border: 1px solid {ATTENTION.name()}; }}
    QPushButton#stop:hover {{ background: {hover}; }}
    QPushButton#second {{ font-size: 11pt; padding: 7px; }}
    QLabel#title {{ font-weight: 600; font-size: 9pt; color: {muted}; }}
    QLabel#muted {{ color: {muted}; font-size: 8pt; }}
    QLabel#name {{ font-weight: 600; font-size: 10pt; }}
    QWidget#panel QToolButton#chip {{ padding: 1px 8px; border: 1px solid {line};
        border-radius: 9px; font-size: 8pt; background: transparent; }}
    QWidget#panel QToolButton#quiet {{ background: transparent; padding: 3px 4px; }}
    """


class PaintedWidget(QWidget):
    """A widget of a fixed height in px that paints itself in the theme's colours."""

    def __init__(self, palette: Palette, height: int, name: str) -> None:
        super().__init__()
        self._palette, self._height = palette, height
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(name)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Qt's question for a size."""
        return QSize(320, self._height)

    def set_palette(self, palette: Palette) -> None:
        """Follow the viewer's theme."""
        self._palette = palette
        self.update()


def row(*widgets: QWidget, stretch: bool = False) -> QHBoxLayout:
    """Lay widgets side by side, of equal width or with a stretch at the end."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget, 0 if stretch else 1)
    if stretch:
        layout.addStretch(1)
    return layout


def group(*widgets: QWidget, stretch: bool = False) -> QWidget:
    """Put a :func:`row` into a widget, so that it can be hidden as a whole."""
    widget = QWidget()
    widget.setLayout(row(*widgets, stretch=stretch))
    return widget


def allow(button: QWidget, help_text: str, why_not: str) -> None:
    """Enable a button, or grey it out with the reason as its tooltip."""
    button.setEnabled(not why_not)
    button.setToolTip(why_not or help_text)


def text_label(text: str = "", style: str = "muted", wrap: bool = False) -> QLabel:
    """Make a label in one of the styles ``muted``, ``name`` and ``title``."""
    label = QLabel(text)
    label.setObjectName(style)
    label.setWordWrap(wrap)
    return label


def push(text: str, style: str = "") -> QPushButton:
    """Make a large button."""
    button = QPushButton(text)
    button.setObjectName(style)
    return button


def tool(text: str = "", style: str = "") -> QToolButton:
    """Make a small button; one without a style of its own takes its share of the row."""
    button = QToolButton()
    button.setText(text)
    button.setObjectName(style)
    if not style:
        button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button
