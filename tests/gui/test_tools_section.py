"""The tools: brush in mm, limits of strokes, edits, copies, undo and redo."""

import numpy as np
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication
from session_tools import block

from napari_diffseg.session import Session, SliceState


def ready(window, *slices):
    """A volume with a liver painted on some slices, and the tools unfolded."""
    window.open()
    window.add_label("liver")
    for z in slices:
        window.paint_block(z, 1)
    window.click(window.panel.tools.fold)
    return window.panel.tools


def press(window, name):
    """Press a tool and wait for what it does."""
    window.workspace.said = ""
    window.click(window.panel.tools.buttons[name])
    workspace = window.workspace
    window.until(lambda: workspace.said.endswith("changed.") or bool(workspace.error))


def test_edits_are_one_step_of_undo_and_survive_a_kill(window, home):
    tools = ready(window, 2)
    session, paint = window.session, window.workspace.layers.paint
    paint.data_setitem((np.array([2, 2]), np.array([11, 24]), np.array([11, 24])), [0, 1])
    window.until(lambda: session.paint.mask[2, 24, 24] == 1)
    rough = session.paint.mask[2].copy()
    window.workspace.go(2)
    press(window, "fill holes")
    press(window, "keep largest")
    assert np.array_equal(session.paint.mask[2], block())
    assert np.array_equal(paint.data, session.paint.mask)
    tools.mm.setValue(4.0)
    press(window, "grow")
    assert (session.paint.mask[2, 8:16, 6:8] == 1).all()
    press(window, "shrink")
    assert np.array_equal(session.paint.mask[2], block())

    # From another slice, undo goes back to where the change was.
    window.workspace.go(5)
    for _ in range(4):
        window.click(tools.buttons["undo"])
    assert window.workspace.current == 2
    assert np.array_equal(session.paint.mask[2], rough)
    assert "Undone on slice 2." in window.sentence
    for _ in range(2):
        window.click(tools.buttons["redo"])
    assert np.array_equal(session.paint.mask[2], block())
    assert session.paint.state(2) == SliceState.PAINTED
    window.panel.shut_down()
    found = Session.recover(session.volume, home / "sessions")
    assert np.array_equal(found.paint.mask[2], block())
    found.close()


def test_prediction_and_paint_are_apart(window):
    tools = ready(window, 1, 4)
    session, layers = window.session, window.workspace.layers
    window.workspace.go(2)
    press(window, "between")
    assert session.prediction.edited == {2, 3}
    assert np.array_equal(layers.prediction.data, session.prediction.mask)
    painted = session.paint.mask.copy()
    window.qtbot.mouseClick(tools.target.buttons()[1], Qt.MouseButton.LeftButton)
    window.qtbot.mouseClick(tools.scope.buttons()[1], Qt.MouseButton.LeftButton)
    assert tools.area.suffix() == " mm³"
    before = session.prediction.mask.copy()
    tools.mm.setValue(2.0)
    press(window, "grow")
    assert (session.prediction.mask == 1).sum() > (before == 1).sum()
    window.click(tools.buttons["undo"])
    assert np.array_equal(session.prediction.mask, before)
    assert np.array_equal(session.paint.mask, painted)
    assert np.array_equal(layers.paint.data, painted)


def test_back_to_the_models_prediction(window):
    window.painted_and_trained()
    window.workspace.go(2)
    session, layers = window.session, window.workspace.layers
    tools = window.panel.tools
    window.click(tools.fold)
    model = session.prediction.mask.copy()
    assert tools.buttons["model's"].toolTip() == "No prediction is corrected."
    layers.prediction.data_setitem((np.array([2, 3]), np.array([4, 4]), np.array([4, 4])), 1)
    window.until(lambda: session.prediction.edited == {2, 3})
    corrected = session.prediction.mask.copy()
    press(window, "model's")
    assert np.array_equal(session.prediction.mask[2], model[2])
    assert np.array_equal(layers.prediction.data[2], model[2])
    assert session.prediction.edited == {3}
    window.qtbot.mouseClick(tools.scope.buttons()[1], Qt.MouseButton.LeftButton)
    press(window, "model's")
    assert np.array_equal(session.prediction.mask, model)
    assert session.prediction.edited == frozenset()
    # An undo is a correction again.
    window.qtbot.mouseClick(tools.target.buttons()[1], Qt.MouseButton.LeftButton)
    for _ in range(2):
        window.click(tools.buttons["undo"])
    assert np.array_equal(session.prediction.mask, corrected)
    assert session.prediction.edited == {2, 3}


def test_a_slice_is_copied_from_below(window):
    tools = ready(window, 2)
    window.workspace.go(3)
    press(window, "below")
    assert window.session.paint.state(3) == SliceState.PAINTED
    there = window.session.paint.mask[3] == 1
    wanted = block() == 1
    assert 2 * (there & wanted).sum() / (there.sum() + wanted.sum()) > 0.9
    window.click(tools.buttons["undo"])
    assert window.session.paint.state(3) == SliceState.UNPAINTED
    window.workspace.go(0)
    press(window, "below")
    assert "there is no slice -1" in window.sentence


def test_strokes_stay_in_a_range_of_hu(window):
    tools = ready(window)
    session, paint = window.session, window.workspace.layers.paint
    window.workspace.go(2)
    # One click into the bright block, which lies at 100 HU in fat at -80, gives the range.
    tools.fit.setFocus()
    window.click(tools.sample)
    window.drag((12, 12))
    window.until(tools.limit.isChecked)
    assert not session.paint.mask.any()  # the click did not paint
    assert 50 < tools.low.value() < 100 < tools.high.value() < 150
    paint.brush_size = 5
    bright = session.volume.hu[2] > 0

    def while_drawing():
        assert (paint.data[2, 12, 12:16] == 1).all()
        assert not paint.data[2][~bright].any()

    window.drag((12, 12), (12, 20), (12, 24), held=while_drawing)
    window.until(lambda: bool(session.paint.mask[2].any()))
    window.workspace.paint_sync.flush()
    assert (session.paint.mask[2, 12, 12:16] == 1).all()
    assert not session.paint.mask[2][~bright].any()
    stroke = session.paint.mask[2].copy()
    window.undo()
    assert not session.paint.mask.any()
    paint.redo()
    window.workspace.paint_sync.flush()
    assert np.array_equal(session.paint.mask[2], stroke)
    window.drag((20, 20), (20, 24))  # nothing of it is allowed
    window.qtbot.wait(50)
    assert np.array_equal(paint.data[2], stroke)
    assert np.array_equal(session.paint.mask[2], stroke)


def test_limits_are_those_of_strokes_and_not_of_the_tools(window):
    tools = ready(window, 2)
    session, paint = window.session, window.workspace.layers.paint
    window.workspace.go(2)
    window.workspace.paint_sync.limits.hu = (2000.0, 3000.0)  # nothing at all
    before = paint.data[2].copy()
    press(window, "grow")
    assert np.count_nonzero(session.paint.mask[2]) > np.count_nonzero(before)
    assert np.array_equal(paint.data, session.paint.mask)
    window.click(tools.buttons["undo"])
    assert np.array_equal(session.paint.mask[2], before)


def test_a_locked_label_is_spared_while_the_stroke_is_drawn(window):
    ready(window, 2)
    session, paint = window.session, window.workspace.layers.paint
    tumour = window.add_label("tumour")
    window.workspace.go(2)
    window.workspace.toggle_lock(1)
    paint.brush_size = 3
    before = paint.data[2].copy()

    def while_drawing():
        assert np.array_equal(paint.data[2] == 1, before == 1)
        assert (paint.data[2, 12, 18:24] == tumour).all()

    window.drag((12, 12), (12, 18), (12, 24), held=while_drawing)
    window.until(lambda: bool((session.paint.mask[2] == tumour).any()))
    window.undo()
    assert np.array_equal(paint.data[2], before)
    window.workspace.take_brush(1)
    window.drag(
        (20, 20), (20, 24), held=lambda: np.testing.assert_array_equal(paint.data[2], before)
    )
    paint.mode = "erase"
    window.drag(
        (12, 12), (12, 18), held=lambda: np.testing.assert_array_equal(paint.data[2], before)
    )
    window.workspace.toggle_lock(1)
    window.drag((12, 12), (12, 18))
    assert (paint.data[2] == 1).sum() < (before == 1).sum()


def test_strokes_stay_inside_another_label(window):
    tools = ready(window, 2)
    tumour = window.add_label("tumour")
    window.panel.refresh()
    tools.inside.setCurrentIndex(tools.inside.findText("inside liver"))
    tools.inside.activated.emit(tools.inside.currentIndex())
    window.workspace.go(2)
    window.workspace.layers.paint.brush_size = 3
    paint, mask = window.workspace.layers.paint, window.session.paint.mask

    def while_drawing():
        assert not paint.data[2, :, 16:].any()

    window.drag((12, 12), (12, 24), held=while_drawing)
    window.until(lambda: bool((mask[2] == tumour).any()))
    assert not mask[2, :, 16:].any()
    assert (mask[2, 12, 12:16] == tumour).all()
    assert ((mask[2] != 0) == (block() != 0)).all()


def test_the_wheel_changes_the_brush_in_mm(window):
    tools = ready(window)
    paint = window.workspace.layers.paint
    tools.brush.setValue(20.0)
    assert paint.brush_size == 10  # pixels of 2 mm
    assert window.workspace.layers.prediction.brush_size == 10
    canvas, middle = window.canvas(), window.at(16, 16)
    current = window.workspace.current
    zoom = window.viewer.scene.camera.zoom
    for _ in range(3):
        event = QWheelEvent(
            QPointF(middle),
            QPointF(canvas.mapToGlobal(middle)),
            QPoint(),
            QPoint(0, 120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.ShiftModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(canvas, event)
    window.panel.refresh()
    assert paint.brush_size > 12
    assert tools.brush.value() == 2 * paint.brush_size
    assert window.viewer.scene.camera.zoom == zoom
    assert window.workspace.current == current


def test_the_most_used_buttons_are_in_sight_beside_the_tools(window):
    window.viewer.window._qt_window.resize(1280, 720)
    tools = ready(window, 1, 4)
    window.qtbot.wait(100)
    panel = window.panel
    panel.refresh()
    shown = [
        *tools.buttons.values(),
        *(tools.sample, tools.brush, tools.inside, tools.mm, tools.area),
        *(panel.train.buttons[name] for name in ("train",)),
        *panel.export.buttons.values(),
    ]
    for widget in shown:
        assert widget.visibleRegion().boundingRect() == widget.rect(), widget.toolTip()
    window.click(tools.fold)
    window.qtbot.wait(50)
    assert panel.volume.isVisible()
    assert panel.result.isVisible()
