"""An outline that follows edges."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from session_tools import block

from napari_diffseg.gui.livewire import EdgePaths, edge_cost, filled
from napari_diffseg.session import SliceState


def test_a_path_follows_a_circle():
    y, x = np.mgrid[:128, :128] - 64.0
    radius = np.hypot(y, x)
    rng = np.random.default_rng(0)
    plane = np.where(radius < 40, 100, -50) + rng.normal(0, 15, radius.shape)
    paths = EdgePaths(edge_cost(plane, -160, 240), (64, 104))
    path = np.array(paths.to((104, 64)))  # a quarter of the way round
    assert tuple(path[0]) == (64, 104)
    assert tuple(path[-1]) == (104, 64)
    assert (np.abs(np.diff(path, axis=0)).max(axis=1) == 1).all()
    assert np.abs(radius[tuple(path.T)] - 40).max() < 2.5
    # A wide window shows no edge, and the path is about straight.
    flat = EdgePaths(edge_cost(np.zeros((128, 128)), -160, 240), (64, 104)).to((104, 64))
    assert len(flat) == 41


def test_far_ends_are_straight():
    cost = np.ones((400, 400), np.float32)
    path = EdgePaths(cost, (10, 10)).to((390, 390))
    assert path[0] == (10, 10)
    assert path[-1] == (390, 390)
    assert len(path) == 381


def test_what_is_filled():
    rows, columns = filled([(2, 2), (2, 6), (6, 6), (6, 2)], (10, 10))
    mask = np.zeros((10, 10), bool)
    mask[rows, columns] = True
    assert mask[2:7, 2:7].all()
    assert mask.sum() == 25


def ready(window):
    window.open()
    window.add_label("liver")
    window.click(window.panel.tools.fold)
    window.workspace.go(2)
    window.click(window.panel.tools.buttons["outline"])
    assert window.panel.tools.drawing.active
    return window.workspace.layers.paint


def click(window, row, column, double=False):
    canvas, point = window.canvas(), window.at(row, column)
    window.qtbot.mouseMove(canvas, point)
    window.qtbot.wait(20)
    if double:
        window.qtbot.mouseDClick(canvas, Qt.MouseButton.LeftButton, pos=point)
    else:
        window.qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=point)
    window.qtbot.wait(20)


def test_the_block_is_outlined_with_four_clicks(window):
    paint = ready(window)
    click(window, 8, 8)
    click(window, 8, 15)
    click(window, 15, 15)
    assert "outline" in window.viewer.layers
    assert window.viewer.layers.selection.active is paint
    assert not paint.data.any()
    click(window, 15, 8, double=True)
    window.until(lambda: bool(paint.data.any()))
    wanted, there = block() == 1, paint.data[2] == 1
    assert 2 * (there & wanted).sum() / (there.sum() + wanted.sum()) > 0.9
    assert window.session.paint.state(2) == SliceState.PAINTED
    assert np.array_equal(window.session.paint.mask, paint.data)
    assert "outline" not in window.viewer.layers
    # One step of undo, and the mode goes on.
    assert window.panel.tools.drawing.active
    window.undo()
    assert not paint.data.any()
    window.click(window.panel.tools.buttons["outline"])
    assert not window.panel.tools.drawing.active
    assert paint.mode == "paint"


def test_an_outline_keeps_to_the_limits_of_strokes(window):
    paint = ready(window)
    window.workspace.paint_sync.limits.hu = (50.0, 200.0)  # the block
    for corner in ((4, 4), (4, 20), (20, 20)):
        click(window, *corner)
    click(window, 20, 4, double=True)
    window.until(lambda: bool(paint.data.any()))
    assert (window.session.volume.hu[2][paint.data[2] == 1] > 0).all()
    window.undo()
    assert not paint.data.any()


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Enter])
def test_keys_of_the_mode(window, key):
    paint = ready(window)
    for row, column in ((8, 8), (8, 15), (15, 15), (28, 28)):
        click(window, row, column)
    window.canvas().setFocus()
    window.qtbot.keyClick(window.canvas(), Qt.Key.Key_Backspace)  # the last one was a slip
    window.qtbot.keyClick(window.canvas(), key)
    window.until(lambda: bool(paint.data.any()))
    assert not paint.data[2, 20:, 20:].any()
    click(window, 8, 8)
    window.qtbot.keyClick(window.canvas(), Qt.Key.Key_Escape)
    assert not window.panel.tools.drawing.active
    assert not window.panel.tools.buttons["outline"].isChecked()
    assert "outline" not in window.viewer.layers


def test_another_slice_drops_the_outline(window):
    paint = ready(window)
    click(window, 8, 8)
    click(window, 8, 15)
    window.workspace.go(4)
    assert "outline" not in window.viewer.layers
    click(window, 15, 15, double=True)
    assert not paint.data.any()


def test_a_drag_moves_the_picture(window):
    paint = ready(window)
    centre = window.viewer.scene.camera.center
    window.drag((8, 8), (12, 12), (20, 20))
    assert window.viewer.scene.camera.center != centre
    assert "outline" not in window.viewer.layers
    assert not paint.data.any()
