"""Surfaces in 3D, window and level by the mouse, zoom to a label."""

import dataclasses

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from session_tools import tiny_volume


def pixels(window, colour):
    """Rows and columns of the picture that have about this colour."""
    picture = window.viewer.screenshot(flash=False)[..., :3].astype(int)
    red, green, blue = (picture[..., n] for n in range(3))
    strong = {"red": (red, green, blue), "blue": (blue, green, red)}[colour]
    rows, columns = np.nonzero((strong[0] > 60) & (strong[0] > 2 * strong[1] + 20)
                               & (strong[0] > 2 * strong[2] + 20))  # fmt: skip
    return rows, columns


def labelled(window, red, blue):
    """Two labels, each in one block of the volume."""
    window.open()
    session = window.session
    session.paint.add_label("one", (255, 0, 0))
    session.paint.add_label("two", (0, 0, 255))
    paint = window.workspace.layers.paint
    for label, box in ((1, red), (2, blue)):
        index = np.nonzero(np.ones([b.stop - b.start for b in box], bool))
        paint.data_setitem(tuple(i + b.start for i, b in zip(index, box, strict=True)), label)
    window.workspace.recolour()
    window.workspace.paint_sync.flush()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_3d_is_seen_from_the_front(window, order):
    # Red is superior and on the patient's right; blue is inferior and on the left.
    labelled(window, np.s_[4:6, 10:22, 2:10], np.s_[0:2, 10:22, 22:30])
    layers, viewer = window.workspace.layers, window.viewer
    opacity = layers.prediction.opacity
    viewer.dims.order = order
    window.qtbot.wait(20)
    zoom = viewer.scene.camera.zoom
    viewer.dims.ndisplay = 3
    window.qtbot.wait(100)
    assert not layers.ct.visible
    assert layers.paint.opacity == 1
    red, blue = pixels(window, "red"), pixels(window, "blue")
    assert len(red[0]) > 50
    assert len(blue[0]) > 50
    assert red[0].mean() < blue[0].mean()  # superior is on top
    assert red[1].mean() < blue[1].mean()  # the patient's right is on the left
    viewer.dims.ndisplay = 2
    window.qtbot.wait(50)
    assert layers.ct.visible
    assert layers.prediction.opacity == opacity
    assert layers.paint.opacity == 0.7
    assert viewer.scene.camera.zoom == pytest.approx(zoom)


def test_what_is_in_front_hides_what_is_behind(window):
    labelled(window, np.s_[1:5, 2:8, 8:24], np.s_[1:5, 24:30, 12:20])  # red is anterior
    window.viewer.dims.ndisplay = 3
    window.qtbot.wait(100)
    assert len(pixels(window, "red")[0]) > 50
    assert len(pixels(window, "blue")[0]) == 0


@pytest.mark.parametrize("mode", ["pan_zoom", "erase", "paint"])
def test_window_and_level_by_right_drag(window, mode):
    window.open()
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    layers, camera = window.workspace.layers, window.viewer.scene.camera
    window.viewer.layers.selection.active = layers.paint
    layers.paint.mode = mode
    before, zoom = tuple(layers.ct.contrast_limits), camera.zoom
    canvas, start = window.canvas(), window.at(16, 16)
    right = Qt.MouseButton.RightButton
    window.qtbot.mouseMove(canvas, start)
    window.qtbot.mousePress(canvas, right, pos=start)
    for step in (10, 20, 40):
        window.qtbot.mouseMove(canvas, start + QPoint(step, step // 2))
        window.qtbot.wait(20)
    window.qtbot.mouseRelease(canvas, right, pos=start + QPoint(40, 20))
    window.qtbot.wait(20)
    after = tuple(layers.ct.contrast_limits)
    if mode != "pan_zoom":  # napari's own right button
        assert after == before
        return
    assert camera.zoom == zoom
    assert not window.session.paint.mask.any()
    width, level = after[1] - after[0], sum(after) / 2
    assert width == pytest.approx(400 + 80, abs=4)
    assert level == pytest.approx(40 + 40, abs=4)
    assert window.viewer.help == f"W{width:.0f} L{level:.0f}"
    assert camera.mouse_pan


def test_zoom_to_the_label_in_the_brush(window):
    volume = tiny_volume()
    window.open(volume)
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    window.workspace.take_brush(1)
    canvas = window.canvas()

    def zoom():
        canvas.setFocus()
        window.qtbot.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ShiftModifier)
        window.qtbot.wait(20)

    zoom()
    assert "liver is on no slice yet" in window.sentence
    window.paint_block(2, 1)  # rows and columns 8 to 15, pixels of 2 mm
    window.workspace.go(5)
    window.viewer.scene.camera.zoom = 1
    zoom()
    assert window.workspace.current == 2
    middle = window.at(11.5, 11.5)
    assert abs(middle.x() - canvas.width() / 2) <= 2
    assert abs(middle.y() - canvas.height() / 2) <= 2
    height = window.at(15.5, 11.5).y() - window.at(7.5, 11.5).y()
    assert 0.5 < height / min(canvas.height(), canvas.width()) < 0.9


def test_a_slab_shows_what_is_bright_nearby_and_leaves_the_paint_alone(window):
    volume = tiny_volume()
    hu = volume.hu.copy()
    hu[3, 20:24, 20:24] = 900  # 5 mm above the slice in view
    window.open(dataclasses.replace(volume, hu=hu))
    window.add_label("liver")
    window.paint_block(3, 1)
    window.workspace.go(2)
    window.qtbot.wait(50)
    layers = window.workspace.layers

    def shown():
        return float(np.asarray(layers.ct._slice.image.raw).max())

    def press_slab():
        shift = Qt.KeyboardModifier.ShiftModifier
        window.qtbot.keyClick(window.canvas(), Qt.Key.Key_I, shift)

    assert shown() < 400
    press_slab()
    window.until(lambda: shown() > 800)
    assert not np.asarray(layers.paint._slice.image.raw).any()  # slice 2 alone
    press_slab()
    window.until(lambda: shown() < 400)
    assert tuple(window.viewer.dims.thickness) == (0, 0, 0)
