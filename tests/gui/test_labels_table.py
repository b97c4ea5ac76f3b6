"""The table of labels under real keys: names are typed, tool keys go to the picture."""

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from napari_diffseg.gui.labels_table import ID, NAME


def _activate(window):
    """Make the window the one that has the keyboard."""
    main = window.viewer.window._qt_window
    main.activateWindow()
    window.until(main.isActiveWindow, timeout=5000)


def _names(window):
    return [label.name for label in window.session.paint.labels]


def _click_row(window, row, column=NAME, double=False):
    window.panel.refresh()
    table = window.panel.labels.table
    where = table.visualItemRect(table.item(row, column)).center()
    window.qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    if double:
        window.qtbot.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)


def test_after_a_name_the_keys_are_the_tools(window):
    window.open()
    _activate(window)
    window.click(window.panel.labels.buttons["add"])
    # The completer's list is open when Enter comes, as it is for every name of an organ.
    window.type(Qt.Key.Key_Backspace, "left kidney")
    assert QApplication.activePopupWidget() is not None
    window.type(Qt.Key.Key_Return)
    assert QApplication.activePopupWidget() is None
    assert _names(window) == ["left kidney"]
    assert window.canvas().hasFocus()
    paint = window.workspace.layers.paint
    window.type("3")
    assert paint.mode == "polygon"
    window.type("2")
    assert paint.mode == "paint"
    assert _names(window) == ["left kidney"]

    # A name that the list does not know, ended with Tab, and one that is given up.
    window.click(window.panel.labels.buttons["add"])
    window.type(Qt.Key.Key_Backspace, "xyz", Qt.Key.Key_Tab, "1")
    assert _names(window) == ["left kidney", "xyz"]
    assert paint.mode == "erase"
    _click_row(window, 1, double=True)
    window.type("w", Qt.Key.Key_Escape, "4")
    assert _names(window) == ["left kidney", "xyz"]
    assert paint.mode == "fill"


def test_a_name_is_chosen_from_the_list(window):
    window.open()
    _activate(window)
    window.click(window.panel.labels.buttons["add"])
    window.type(Qt.Key.Key_Backspace, "sple")
    popup = QApplication.activePopupWidget()
    window.qtbot.mouseClick(popup.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(10, 5))
    window.until(lambda: _names(window) == ["spleen"])
    assert window.canvas().hasFocus()

    # With the arrow keys: the second name that holds "kidney".
    window.click(window.panel.labels.buttons["add"])
    window.type(Qt.Key.Key_Backspace, "kidney", Qt.Key.Key_Down, Qt.Key.Key_Down)
    window.type(Qt.Key.Key_Return, "3")
    assert _names(window) == ["spleen", "left kidney"]
    assert window.workspace.layers.paint.mode == "polygon"


def test_a_row_picked_with_the_mouse_leaves_the_keys_to_the_picture(window):
    window.open()
    _activate(window)
    window.add_label("liver")
    window.add_label("spleen")
    paint = window.workspace.layers.paint
    _click_row(window, 0)
    assert paint.selected_label == 1
    assert window.canvas().hasFocus()
    window.type("3", Qt.Key.Key_F2, "4")
    assert paint.mode == "fill"
    assert _names(window) == ["liver", "spleen"]

    _click_row(window, 0, ID, double=True)
    assert window.canvas().hasFocus()

    # A double click is the way to another name.
    _click_row(window, 0, double=True)
    window.type("left kidney", Qt.Key.Key_Return)
    assert _names(window) == ["left kidney", "spleen"]
    assert window.sentence.startswith("Paint left kidney and spleen")


def test_the_sentence_has_the_new_name(window):
    window.painted_and_trained()
    window.add_label("spleen")
    window.train()
    window.idle()
    assert window.sentence.startswith("No painted pixel yet: spleen.")
    _activate(window)
    _click_row(window, 1, double=True)
    window.type("pancreas", Qt.Key.Key_Return)
    assert "spleen" not in window.sentence

    # A name that is refused is said, until one is accepted.
    _click_row(window, 1, double=True)
    window.type("liver", Qt.Key.Key_Return)
    assert window.panel.guide.tone == "error"
    _click_row(window, 1, double=True)
    window.type("stomach", Qt.Key.Key_Return)
    assert window.panel.guide.tone == "next"
    assert _names(window) == ["liver", "stomach"]
