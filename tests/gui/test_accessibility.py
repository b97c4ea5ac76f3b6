"""Contrast, names and the order of Tab."""

import re

import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QHeaderView,
    QLineEdit,
)

from napari_diffseg.gui.theme import CONTRAST, Palette, contrast, style_sheet

THEMES = ("dark", "light")


def test_contrast_is_that_of_wcag():
    black, white, grey = QColor("black"), QColor("white"), QColor("#767676")
    assert contrast(black, white) == pytest.approx(21)
    assert contrast(white, white) == 1
    assert contrast(grey, white) == pytest.approx(4.54, abs=0.01)


def palette(theme):
    class Viewer:
        pass

    Viewer.theme = theme
    return Palette.of(Viewer)


@pytest.mark.parametrize("theme", THEMES)
def test_every_rule_of_the_style_sheet_can_be_read(theme):
    colours = palette(theme)
    text, base = colours.text, colours.base
    measured = 0
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style_sheet(colours)):
        rules = dict(re.findall(r"([a-z-]+):\s*([^;]+);", body))
        if not {"color", "background"} & set(rules):
            continue
        ground = QColor(rules.get("background", base.name()))
        if rules.get("background") == "transparent":
            ground = base
        ink = QColor(rules.get("color", text.name()))
        assert ground.isValid(), selector
        assert ink.isValid(), selector
        assert contrast(ink, ground) >= CONTRAST, selector.strip()
        measured += 1
    assert measured >= 15
    for mark in (colours.accent, colours.attention, colours.bad, colours.muted):
        assert contrast(mark, base) >= CONTRAST


def parts(panel, *kinds):
    return [
        one
        for kind in kinds
        for one in panel.findChildren(kind)
        if not one.objectName().startswith("qt_")
        and not (kind is QAbstractButton and isinstance(one.parent(), QAbstractItemView))
    ]


def test_what_can_be_used_has_a_name_and_says_what_it_does(window):
    window.painted_and_trained()
    panel = window.panel
    panel.tools.fold.setChecked(True)
    panel.more.fold.setChecked(True)
    panel.refresh()
    buttons = parts(panel, QAbstractButton)
    assert len(buttons) > 30
    for button in buttons:
        named = any(map(str.isalpha, button.text())) or button.accessibleName()
        assert named, button.toolTip()
        assert button.toolTip(), button.text()
    assert panel.tools.buttons["undo"].accessibleName() == "Undo"
    for one in parts(panel, QAbstractSpinBox, QComboBox, QAbstractItemView):
        inside = isinstance(one.parent(), QComboBox) or isinstance(
            one.parent().parent() if one.parent() else None, QComboBox
        )
        assert inside or isinstance(one, QHeaderView) or one.accessibleName(), one
    for line in parts(panel.more, QLineEdit):
        assert line.accessibleName(), line
    assert panel.slices.navigator.accessibleName() == "Slices"


def test_tab_goes_through_the_panel_as_it_is_read(window):
    window.painted_and_trained()
    panel = window.panel
    panel.tools.fold.setChecked(True)
    panel.refresh()
    window.qtbot.wait(50)
    stops, widget = [], panel.labels.buttons["add"]
    while panel.isAncestorOf(widget):
        line = widget.objectName().startswith("qt_")  # of a spin box
        if widget.isVisible() and widget.focusPolicy() & Qt.FocusPolicy.TabFocus and not line:
            stops.append(widget)
        widget = widget.nextInFocusChain()
    wanted = [
        *(panel.labels.buttons["add"], panel.labels.table, panel.tools.buttons["fill holes"]),
        *(panel.tools.buttons["undo"], panel.slices.navigator, panel.slices.buttons["full"]),
        *(panel.train.buttons["train"], panel.export.buttons["mask"], panel.more.fold),
    ]
    assert [stops.index(one) for one in wanted] == sorted(stops.index(one) for one in wanted)
    # Side by side as they stand, though the fields were made before the buttons.
    line = [panel.tools.buttons["remove islands"], panel.tools.area, panel.tools.buttons["smooth"]]
    first = stops.index(line[0])
    assert stops[first : first + 3] == line


def test_a_theme_that_is_chosen_later_is_followed(window):
    window.open()
    for theme in ("light", "dark"):
        window.viewer.theme = theme
        window.panel.refresh()
        expected = palette(theme).accent.name()
        assert expected in window.panel.banner.styleSheet()
