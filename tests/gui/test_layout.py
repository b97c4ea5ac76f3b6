"""The panel stands still, and in a small window its buttons are in sight."""

from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication

from napari_diffseg.gui.elided import ElidedLabel
from napari_diffseg.gui.guide import Guide


def _places(panel):
    QApplication.processEvents()
    return [section.mapTo(panel, QPoint(0, 0)).y() for section in panel.sections]


def _hover(label):
    QApplication.sendEvent(label, QHelpEvent(QEvent.Type.ToolTip, QPoint(5, 5), QPoint(5, 5)))
    return label.toolTip()


def test_nothing_jumps_with_a_sentence_or_a_label(window):
    window.open()
    panel = window.panel
    window.until(lambda: bool(window.workspace.backbone_name))
    panel.refresh()
    window.qtbot.wait(100)  # Qt lays out in several turns of the event loop
    places = _places(panel)
    banner = panel.banner
    for sentence in ("Short.", "Rather long for one line, and so it wraps. " * 2, "words " * 90):
        banner.show_guide(Guide(sentence))
        assert _places(panel) == places
    assert len(banner.sentence.shown_lines()) == 3
    assert banner.sentence.shown_lines()[-1].endswith("…")
    assert _hover(banner.sentence) == "words " * 90
    banner.show_guide(Guide("Short."))
    assert _hover(banner.sentence) == ""
    for name in ("liver", "spleen", "pancreas", "aorta", "stomach"):
        window.add_label(name)
        panel.refresh()
        assert _places(panel) == places


def test_the_buttons_are_in_sight_in_a_small_window(window):
    window.viewer.window._qt_window.resize(1280, 720)
    window.painted_and_trained()
    for name in ("right kidney", "spleen", "pancreas", "aorta", "left kidney", "stomach"):
        window.session.paint.add_label(name)
    window.workspace.recolour()
    panel = window.panel
    panel.refresh()
    window.qtbot.wait(100)
    unfolded = [one for one in panel.sections if one not in (panel.tools, panel.more)]
    for section in unfolded:
        for name, button in section.buttons.items():
            hidden = not button.isVisible()
            whole = button.visibleRegion().boundingRect() == button.rect()
            assert whole or (hidden and name in ("finish", "stop")), name


def test_long_names_do_not_widen_the_panel(qtbot):
    label = ElidedLabel()
    qtbot.addWidget(label)
    label.setText("a-volume-with-a-name-that-is-longer-than-the-panel-is-wide" * 2)
    assert label.minimumSizeHint().width() == 0
    label.resize(120, label.sizeHint().height())
    (line,) = label.shown_lines()
    assert line.endswith("…")
    assert label.fontMetrics().horizontalAdvance(line, -1) <= 120
    assert _hover(label) == label.text()
    label.setText("short")
    assert label.shown_lines() == ["short"]
    assert label.alignment() & Qt.AlignmentFlag.AlignVCenter
