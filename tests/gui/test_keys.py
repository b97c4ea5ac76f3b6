"""Keys of the loop, bound through napari, so that users can change them."""

import pytest
from app_model.types import KeyBinding
from napari._qt.widgets.qt_keyboard_settings import ShortcutEditor
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QLabel, QLineEdit

from napari_diffseg.gui import shortcuts
from napari_diffseg.session import SliceState


@pytest.fixture(autouse=True)
def _settings():
    yield
    get_settings().shortcuts.reset()


def press(window, key, modifier=Qt.KeyboardModifier.NoModifier):
    canvas = window.canvas()
    canvas.setFocus()
    window.qtbot.keyClick(canvas, key, modifier)
    window.qtbot.wait(20)


SHIFT, CTRL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier


def test_the_loop_without_the_mouse(window):
    window.open()
    for name in ("liver", "spleen"):
        window.session.paint.add_label(name)
    window.workspace.recolour()
    paint = window.workspace.layers.paint
    press(window, Qt.Key.Key_2, CTRL)
    assert paint.selected_label == 2
    assert window.viewer.layers.selection.active is paint
    press(window, Qt.Key.Key_1, CTRL)
    assert paint.selected_label == 1
    press(window, Qt.Key.Key_5, CTRL)
    assert "there is no label with id 5" in window.sentence
    window.workspace.go(2)
    press(window, Qt.Key.Key_PageUp)
    assert window.workspace.current == 3
    press(window, Qt.Key.Key_PageDown)
    press(window, Qt.Key.Key_PageDown)
    assert window.workspace.current == 1

    # A key that makes no sense now says why, as the button does.
    press(window, Qt.Key.Key_T, SHIFT)
    assert window.sentence == "Paint at least one slice first."
    for z in (1, 4):
        window.paint_block(z, 1)
    press(window, Qt.Key.Key_F, SHIFT)
    assert "Nothing has been learnt yet" in window.sentence
    window.panel.more.form.widgets["iterations"].value = "1000000"
    window.panel.more.form.widgets["device"].value = "cpu"
    press(window, Qt.Key.Key_T, SHIFT)
    window.until(lambda: len(window.workspace.runner.losses) > 2)
    press(window, Qt.Key.Key_F, SHIFT)
    window.idle()
    assert window.session.prediction.round_of.all()

    layers = window.workspace.layers
    press(window, Qt.Key.Key_H)
    assert not layers.prediction.visible
    press(window, Qt.Key.Key_H)
    press(window, Qt.Key.Key_U)
    assert layers.confidence.visible
    press(window, Qt.Key.Key_C, SHIFT)
    assert layers.prediction.contour == 2
    window.until(lambda: window.workspace.suggestions.best is not None)
    press(window, Qt.Key.Key_N)
    z = window.workspace.current
    assert window.session.paint.states[z] == SliceState.UNPAINTED
    press(window, Qt.Key.Key_K)
    assert window.session.paint.state(z) == SliceState.ACCEPTED


def test_presets_and_background_have_keys(window):
    window.open()
    ct = window.workspace.layers.ct
    press(window, Qt.Key.Key_F6)
    assert tuple(ct.contrast_limits) == (-1350, 150)
    press(window, Qt.Key.Key_F5)
    assert tuple(ct.contrast_limits) == (-160, 240)
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    press(window, Qt.Key.Key_0, CTRL)
    assert "press Scribbles" in window.sentence
    window.click(window.panel.slices.buttons["scribbles"])
    press(window, Qt.Key.Key_0, CTRL)
    assert window.workspace.layers.paint.selected_label == 255


def test_opening_the_panel_warns_of_nothing(recwarn, window):
    # napari shows warnings to the user, a window for each.
    assert shortcuts.bound("Lung") == "F6"
    assert [str(one.message) for one in recwarn if "shortcut" in str(one.message)] == []


def test_no_key_is_one_of_naparis(window):
    taken = {str(key) for keys in default_shortcuts.values() for key in keys}
    ours = [KeyBinding.from_int(key.key) for key in shortcuts.KEYS]
    assert len(set(map(str, ours))) == len(ours)
    assert not taken & set(map(str, ours))
    menus = {
        KeyBinding.from_str(a.shortcut().toString()).to_text()
        for a in window.viewer.window._qt_window.findChildren(_action())
        if a.shortcut().toString() and len(a.shortcut()) == 1
    }
    assert not menus & {key.to_text() for key in ours}


def _action():
    from qtpy.QtGui import QAction

    return QAction


def test_the_user_chooses_another_key(window, qtbot):
    """In Preferences, in the table of the viewer's shortcuts."""
    window.open()
    editor = ShortcutEditor()
    qtbot.addWidget(editor)
    table = editor._table
    rows = {table.item(row, 0).text(): row for row in range(table.rowCount())}
    row = rows["Accept the prediction of this slice"]
    assert table.item(row, 2).text() == "K"
    table.item(row, 2).setText("J")
    assert shortcuts.bound("accept") == "J"
    window.panel.refresh()
    assert window.panel.result.help_of("accept").endswith("(J)")
    window.panel.shut_down()

    # The choice outlives the panel and the program.
    chosen = dict(get_settings().shortcuts.shortcuts)
    chosen["napari-diffseg:accept"] = [KeyBinding.from_str("J")]
    get_settings().shortcuts.shortcuts = chosen
    assert shortcuts.bound("accept") == ""
    shortcuts.install(window.viewer, lambda key: None)
    assert shortcuts.bound("accept") == "J"
    shortcuts.release(window.viewer)
    assert not [name for name in action_manager._actions if name.startswith("napari-diffseg")]


def test_the_cheat_sheet(window):
    window.open()
    canvas = window.canvas()
    canvas.setFocus()
    window.qtbot.keyClick(canvas, Qt.Key.Key_Question, SHIFT)
    window.until(lambda: bool(window.panel.findChildren(QDialog)))
    (sheet,) = window.panel.findChildren(QDialog)
    shown = [label.text() for label in sheet.findChildren(QLabel)]
    for text, key in (
        ("Accept the prediction of this slice", "K"),
        ("Paint with label 1 to 9", "Ctrl+1 to Ctrl+9"),
        ("Show all keys", "? or F1"),
        ("Eraser", "1 or E"),
    ):
        assert shown[shown.index(text) + 1] == key
    sheet.close()
    # In a name it is a character.
    window.click(window.panel.labels.buttons["add"])
    line = window.panel.labels.table.viewport().findChildren(QLineEdit)[-1]
    line.selectAll()
    window.qtbot.keyClick(line, Qt.Key.Key_Question, SHIFT)
    assert line.text() == "?"


def test_two_viewers_have_their_own_panels(window, make_napari_viewer):
    other = make_napari_viewer()
    pressed = []
    shortcuts.install(other, pressed.append)
    window.open()
    before = window.workspace.current
    press(window, Qt.Key.Key_PageUp)
    assert window.workspace.current == before + 1
    assert pressed == []
    shortcuts.release(other)
    press(window, Qt.Key.Key_PageUp)
    assert window.workspace.current == before + 2
