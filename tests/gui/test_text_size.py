"""The panel at 100, 150 and 200 % of napari's text size."""

import pytest
from napari.settings import get_settings
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QAbstractButton, QApplication, QLabel

from napari_diffseg.gui.elided import ElidedLabel

USUAL = 9  # pt


@pytest.fixture
def text_size():
    appearance = get_settings().appearance
    before = appearance.font_size

    def choose(percent):
        appearance.font_size = round(USUAL * percent / 100)
        for _ in range(5):
            QApplication.processEvents()

    yield choose
    appearance.font_size = before


@pytest.mark.parametrize("percent", [100, 150, 200])
def test_every_text_of_the_panel_is_shown_in_full(window, text_size, percent):
    text_size(percent)
    window.viewer.window._qt_window.resize(1440, 930)
    window.open()
    window.add_label("inferior vena cava")
    panel = window.panel
    panel.tools.fold.setChecked(True)
    panel.more.fold.setChecked(True)
    panel.refresh()
    window.qtbot.wait(200)
    measured = 0
    for one in (*panel.findChildren(QAbstractButton), *panel.findChildren(QLabel)):
        text = one.text()
        if not one.isVisible() or not text or isinstance(one, ElidedLabel):
            continue
        lines = [1] if not getattr(one, "wordWrap", lambda: False)() else []
        assert one.fontMetrics().horizontalAdvance(text) <= one.width() or not lines, text
        assert one.fontMetrics().height() <= one.height() + 2, text
        right = one.mapTo(panel, QPoint(one.width(), 0)).x()
        assert right <= panel.width(), text
        measured += 1
    assert measured > 40
    assert panel.labels.table.horizontalHeader().height() >= panel.fontMetrics().height() - 2
    assert window.viewer.window._qt_window.minimumSizeHint().width() <= 1440
    assert window.canvas().width() >= 300


def test_a_size_that_is_chosen_later_is_followed(window, text_size):
    text_size(100)
    window.open()
    button = window.panel.train.buttons["train"]
    height, size = button.sizeHint().height(), button.font().pointSizeF()
    text_size(200)
    window.qtbot.wait(100)
    assert button.font().pointSizeF() == pytest.approx(2 * size, abs=0.2)
    assert button.sizeHint().height() > 1.4 * height
