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
_ACCENT = QColor(58, 134, 214)
_ATTENTION = QColor(240, 165, 40)
_BAD = QColor(224, 96, 80)
CONTRAST = 4.5
"""Of text and marks to what is behind them, at least: level AA of WCAG 2.2, criterion 1.4.3."""
_GREYED = 0.5  # how much of the base is in the ground of a button that cannot be pressed
_WHITE, _BLACK = QColor(255, 255, 255), QColor(0, 0, 0)


@dataclass(frozen=True)
class Palette:
    """The theme's colours that painted widgets use.

    ``accent``, ``attention`` and ``bad`` are marks on ``base``; white text goes on ``fill``.
    ``scale`` is the size of text: 1 at napari's default, more where Preferences ask for it.
    """

    text: QColor
    muted: QColor
    base: QColor
    well: QColor
    line: QColor
    fill: QColor
    accent: QColor
    attention: QColor
    bad: QColor
    scale: float = 1.0

    @classmethod
    def of(cls, viewer: Any) -> Palette:
        """Read the colours of the viewer's theme."""
        from napari.settings import get_settings
        from napari.utils.theme import get_theme

        theme = get_theme(viewer.theme)
        usual = float(get_theme("dark").font_size.removesuffix("pt"))

        def colour(value: Any) -> QColor:
            return QColor(*value.as_rgb_tuple()[:3])

        text, base, line = colour(theme.text), colour(theme.background), colour(theme.primary)
        return cls(
            text=text,
            muted=readable(mixed(text, base, 0.38), base, mixed(line, base, _GREYED)),
            base=base,
            well=colour(theme.foreground),
            line=line,
            fill=readable(_ACCENT, _WHITE),
            accent=readable(_ACCENT, base),
            attention=readable(_ATTENTION, base),
            bad=readable(_BAD, base),
            scale=get_settings().appearance.font_size / usual,
        )

    def px(self, length: float) -> int:
        """Return a length in px that grows with the text."""
        return round(length * self.scale)


def contrast(a: QColor, b: QColor) -> float:
    """Contrast ratio of two colours, 1 to 21, as WCAG 2.2 defines it."""
    dark, light = sorted((_luminance(a), _luminance(b)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: QColor) -> float:
    linear: list[float] = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (colour.redF(), colour.greenF(), colour.blueF())
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def readable(colour: QColor, *grounds: QColor) -> QColor:
    """Darken or lighten a colour as little as it takes to be read on all of the grounds."""
    away = _BLACK if contrast(grounds[0], _BLACK) > contrast(grounds[0], _WHITE) else _WHITE
    for percent in range(101):
        found = mixed(colour, away, percent / 100)
        if min(contrast(found, ground) for ground in grounds) >= CONTRAST:
            return found
    return away


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
    fill, muted, line = palette.fill.name(), palette.muted.name(), palette.line.name()
    dark, darker = palette.fill.darker(115).name(), palette.fill.darker(130).name()
    grey = mixed(palette.line, palette.base, _GREYED).name()
    hover, text = mixed(palette.line, palette.base, 0.3).name(), palette.text.name()
    on_line = readable(palette.text, palette.line).name()
    small, usual, middle, large = (f"{pt * palette.scale:.1f}pt" for pt in (8, 9, 10, 11))
    return f"""
    QWidget#panel QPushButton, QWidget#panel QToolButton {{
        padding: 4px 7px; border-radius: 3px; font-size: {usual}; }}
    QWidget#panel QToolButton {{ background: {line}; color: {on_line};
        border: 1px solid {line}; padding: 3px 6px; }}
    QWidget#panel QToolButton:hover {{ background: {hover}; color: {text}; }}
    QWidget#panel QToolButton:checked {{ background: {fill}; color: white; }}
    QWidget#panel QPushButton:checked {{ background: {fill}; color: white; }}
    QWidget#panel QToolButton:focus {{ border: 1px solid {palette.accent.name()}; }}
    QWidget#panel QPushButton:focus {{ text-decoration: underline; }}
    QWidget#panel QPushButton:disabled, QWidget#panel QToolButton:disabled {{
        background: {grey}; color: {muted}; border: 1px solid {grey}; }}
    QWidget#panel QDoubleSpinBox {{ font-size: {usual}; padding: 0;
        min-width: {palette.px(44)}px; }}
    QWidget#panel QAbstractItemView, QWidget#panel QHeaderView::section,
    QWidget#panel QCheckBox, QWidget#panel QComboBox, QWidget#panel QLineEdit,
    QWidget#panel QSpinBox {{ font-size: {usual}; }}
    QPushButton#primary {{ background: {fill}; color: white; font-weight: 600;
        font-size: {large}; padding: 7px; }}
    QPushButton#primary:hover {{ background: {dark}; color: white; }}
    QPushButton#primary:pressed {{ background: {darker}; color: white; }}
    QWidget#panel QPushButton#primary:disabled {{ background: {grey}; color: {muted}; }}
    QPushButton#stop {{ background: {line}; color: {on_line}; font-weight: 600;
        font-size: {large}; padding: 6px; border: 1px solid {palette.attention.name()}; }}
    QPushButton#stop:hover {{ background: {hover}; color: {text}; }}
    QPushButton#second {{ font-size: {large}; padding: 7px; }}
    QLabel#title {{ font-weight: 600; font-size: {usual}; color: {muted}; }}
    QLabel#muted {{ color: {muted}; font-size: {small}; }}
    QLabel#name {{ font-weight: 600; font-size: {middle}; }}
    QWidget#panel QToolButton#chip {{ padding: 1px 8px; border: 1px solid {line};
        border-radius: 9px; font-size: {small}; background: transparent; color: {text}; }}
    QWidget#panel QToolButton#quiet {{ background: transparent; color: {text};
        border: 1px solid transparent; padding: 2px 3px;
        max-height: {palette.px(14)}px; }}
    QWidget#panel QToolButton#quiet:focus {{ border: 1px solid {palette.accent.name()}; }}
    QWidget#panel QToolButton#quiet:checked {{ background: {fill}; color: white; }}
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
