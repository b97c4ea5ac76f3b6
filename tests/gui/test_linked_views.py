"""The other two planes below the picture."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from session_tools import tiny_volume

from napari_diffseg.session import SliceState


@pytest.fixture
def linked(window):
    """A window with the planes switched on, and a label in the brush."""
    window.open()
    window.label = window.add_label("liver")
    window.click(window.panel.slices.buttons["linked"])
    window.qtbot.wait(50)
    return window


def _planes(window):
    return window.panel.linked.planes


def _at(plane, z, column):
    """Canvas pixel over a voxel of the coronal plane, which has superior on top."""
    layer, camera, canvas = plane.model.layers[0], plane.model.scene.camera, _canvas(plane)
    dz, _, dx = layer.scale
    return QPoint(
        round((column * dx - camera.center[2]) * camera.zoom + canvas.width() / 2),
        round(-(z * dz - camera.center[1]) * camera.zoom + canvas.height() / 2),
    )


def _canvas(plane):
    return plane.canvas.canvas.native


def _drag(window, plane, *voxels):
    bot, canvas = window.qtbot, _canvas(plane)
    points = [_at(plane, *voxel) for voxel in voxels]
    bot.mouseMove(canvas, points[0])
    bot.wait(20)
    bot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=points[0])
    for point in points[1:]:
        bot.mouseMove(canvas, point)
        bot.wait(20)
    bot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=points[-1])
    bot.wait(50)


def test_the_planes_that_the_picture_does_not_show_follow_it(linked):
    dims, (first, second) = linked.viewer.dims, _planes(linked)
    assert [plane.model.dims.order for plane in (first, second)] == [(1, 0, 2), (2, 0, 1)]
    assert [plane.orientation._overlays["top"].text for plane in (first, second)] == ["S", "S"]
    dz, dy, dx = linked.workspace.layers.ct.scale
    dims.set_point((0, 1, 2), (4 * dz, 9 * dy, 20 * dx))
    assert first.model.dims.point[1] == pytest.approx(9 * dy)
    assert second.model.dims.point[2] == pytest.approx(20 * dx)
    # Scrolled, a plane takes the others along.
    first.model.dims.set_point(1, 12 * dy)
    assert dims.point[1] == pytest.approx(12 * dy)
    # The planes change when another one is looked at in the picture.
    dims.order = (1, 0, 2)
    assert [plane.model.dims.order for plane in (first, second)] == [(0, 1, 2), (2, 0, 1)]
    first.model.dims.set_point(0, 2 * dz)
    assert linked.workspace.current == 2
    linked.click(linked.panel.slices.buttons["linked"])
    assert not _canvas(first).isVisible()
    assert not first.model.layers


def test_shift_and_the_mouse_move_the_crosshair(linked):
    first, ct = _planes(linked)[0], linked.workspace.layers.ct
    bot, canvas = linked.qtbot, _canvas(first)
    bot.mouseMove(canvas, _at(first, 3, 10))
    bot.wait(20)
    before = tuple(linked.viewer.dims.point)
    bot.mouseMove(canvas, _at(first, 3, 12))
    bot.wait(20)
    assert tuple(linked.viewer.dims.point) == before
    # A click without a tool in hand goes there.
    linked.workspace.layers.paint.mode = "pan_zoom"
    bot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=_at(first, 4, 21))
    bot.wait(30)
    z, _, x = ct.world_to_data(linked.viewer.dims.point)
    assert (round(z), round(x)) == (4, 21)
    assert linked.workspace.current == 4


def test_a_stroke_in_a_plane_is_scribbles_and_one_step_of_undo(linked):
    session, paint = linked.session, linked.workspace.layers.paint
    dz, dy, _ = paint.scale
    linked.viewer.dims.set_point((0, 1), (2 * dz, 10 * dy))
    linked.workspace.take_brush(linked.label)
    paint.brush_size = 2
    first = _planes(linked)[0]
    _drag(linked, first, (1, 10), (4, 10))
    linked.until(lambda: session.paint.mask[4, 10, 10] == linked.label)
    touched = np.flatnonzero(session.paint.states)
    assert set(range(1, 5)) <= set(touched)
    assert (session.paint.mask.any(axis=(0, 2)).nonzero()[0] == [10]).all()  # that plane only
    # The picture shows slice 2, and nobody has painted on it in the picture.
    assert set(session.paint.states[touched]) == {SliceState.SCRIBBLED}
    np.testing.assert_array_equal(paint.data, session.paint.mask)
    linked.undo()
    linked.until(lambda: not session.paint.states.any())
    assert not paint.data.any()
    copy = next(layer for layer in first.model.layers if layer.name == "paint")
    copy.redo()
    linked.until(lambda: session.paint.mask[4, 10, 10] == linked.label)
    linked.workspace.paint_sync.flush()
    assert SliceState.PAINTED not in session.paint.states


def test_a_limited_stroke_in_a_plane_stays_scribbles(linked):
    session, paint = linked.session, linked.workspace.layers.paint
    dz, dy, _ = paint.scale
    linked.viewer.dims.set_point((0, 1), (2 * dz, 10 * dy))
    linked.workspace.paint_sync.limits.hu = (50.0, 200.0)  # the block, in columns 8 to 15
    linked.workspace.take_brush(linked.label)
    paint.brush_size = 2
    _drag(linked, _planes(linked)[0], (2, 12), (2, 25))
    linked.until(lambda: session.paint.mask[2, 10, 12] == linked.label)
    linked.qtbot.wait(100)
    linked.workspace.paint_sync.flush()
    assert not session.paint.mask[:, :, 16:].any()
    assert SliceState.PAINTED not in session.paint.states


def test_a_stroke_in_the_picture_is_painted_in_full_and_shown_in_the_planes(linked):
    session, paint = linked.session, linked.workspace.layers.paint
    linked.workspace.go(2)
    linked.workspace.take_brush(linked.label)
    linked.drag((10, 10), (10, 14))
    linked.until(lambda: session.paint.states[2] == SliceState.PAINTED)
    copy = next(layer for layer in _planes(linked)[0].model.layers if layer.name == "paint")
    assert np.shares_memory(copy.data, paint.data)
    assert copy.mode == "paint"
    assert copy.selected_label == linked.label


def test_a_prediction_is_corrected_in_a_plane(window):
    window.painted_and_trained()
    window.click(window.panel.slices.buttons["linked"])
    window.qtbot.wait(50)
    prediction = window.workspace.layers.prediction
    dz, dy, _ = prediction.scale
    window.viewer.dims.set_point((0, 1), (2 * dz, 20 * dy))
    window.viewer.layers.selection.active = prediction
    prediction.mode, prediction.selected_label, prediction.brush_size = "paint", 1, 2
    before = prediction.data.copy()
    _drag(window, _planes(window)[0], (2, 20), (3, 24))
    window.until(lambda: {2, 3} <= window.session.prediction.edited)
    np.testing.assert_array_equal(window.session.prediction.mask, prediction.data)
    window.undo()
    window.workspace.paint_sync.flush()
    np.testing.assert_array_equal(window.session.prediction.mask, before)


def test_a_plane_is_marked_below_its_picture(linked):
    paint = linked.workspace.layers.paint
    dz, dy, _ = paint.scale
    linked.viewer.dims.set_point((0, 1), (2 * dz, 10 * dy))
    linked.workspace.take_brush(linked.label)
    first, second = _planes(linked)
    _drag(linked, first, (1, 10), (4, 10))
    assert first.full.text() == "Coronal 10 painted in full"
    assert second.full.text().startswith("Sagittal")
    linked.qtbot.mouseClick(first.full, Qt.MouseButton.LeftButton)
    planes = linked.session.paint.planes
    assert planes.state("coronal", 10) == SliceState.PAINTED
    np.testing.assert_array_equal(planes.mask("coronal", 10), paint.data[:, 10])
    assert first.full.isChecked()
    linked.qtbot.mouseClick(first.full, Qt.MouseButton.LeftButton)
    assert len(planes) == 0


def test_the_planes_go_with_their_volume(linked):
    first = _planes(linked)[0]
    assert len(first.model.layers) == 4
    linked.viewer.layers.remove(linked.workspace.layers.ct)
    linked.until(lambda: not first.model.layers)
    linked.open(tiny_volume(1))
    linked.until(lambda: len(first.model.layers) == 4)


def test_the_key_shows_and_hides_them(window):
    window.open()
    window.canvas().setFocus()
    window.qtbot.keyClick(window.canvas(), Qt.Key.Key_O, Qt.KeyboardModifier.ShiftModifier)
    window.until(lambda: window.panel.linked.on)
    assert all(_canvas(plane).isVisible() for plane in _planes(window))
