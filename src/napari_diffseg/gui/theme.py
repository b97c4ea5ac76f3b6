"""Colours and small building blocks of the panel, taken from napari's theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
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
    QToolButton#chip {{ background: transparent; border: 1px solid {line}; border-radius: 9px;
        padding: 1px 8px; font-size: 8pt; }}
    QWidget#panel QToolButton#chip {{ padding: 1px 8px; border: 1px solid {line};
        border-radius: 9px; font-size: 8pt; background: transparent; }}
    QWidget#panel QToolButton#quiet {{ background: transparent; padding: 3px 4px; }}
    """


class Section(QWidget):
    """A titled block of the panel; the title line may hold small things on the right."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(0, 0, 0, 0)
        self.body.setSpacing(5)
        self.header = QHBoxLayout()
        self.header.setSpacing(6)
        label = QLabel(title)
        label.setObjectName("title")
        rule = QFrame()
        rule.setFrameShape(QFrame.Shape.HLine)
        rule.setFixedHeight(1)
        rule.setStyleSheet("background: rgba(128, 128, 128, 60); border: 0;")
        self.header.addWidget(label)
        self.header.addWidget(rule, 1, Qt.AlignmentFlag.AlignVCenter)
        self.body.addLayout(self.header)


def row(*widgets: QWidget, stretch: bool = False, spacing: int = 4) -> QHBoxLayout:
    """Lay widgets side by side, of equal width or with a stretch at the end."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for widget in widgets:
        layout.addWidget(widget, 0 if stretch else 1)
    if stretch:
        layout.addStretch(1)
    return layout


def allow(button: QWidget, help_text: str, why_not: str) -> None:
    """Enable a button, or grey it out with the reason as its tooltip."""
    button.setEnabled(not why_not)
    button.setToolTip(why_not or help_text)


def muted(text: str = "") -> QLabel:
    """Make a small grey label that may wrap."""
    label = QLabel(text)
    label.setObjectName("muted")
    label.setWordWrap(True)
    return label


def tool(text: str, help_text: str = "", checkable: bool = False) -> QToolButton:
    """Make a small button that takes its share of the row."""
    button = QToolButton()
    button.setText(text)
    button.setToolTip(help_text)
    button.setCheckable(checkable)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button


def chip() -> QToolButton:
    """Make a rounded note that can be clicked for more."""
    button = QToolButton()
    button.setObjectName("chip")
    return button
