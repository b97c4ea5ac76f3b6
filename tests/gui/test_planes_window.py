"""Painting coronal planes in the window."""

import numpy as np
from qtpy.QtCore import Qt

from napari_diffseg.session import SliceState


def _coronal(window, row):
    window.viewer.dims.order = (1, 0, 2)
    ct = window.workspace.layers.ct
    window.viewer.dims.set_point(1, ct.data_to_world((0, row, 0))[1])
    window.panel.refresh()


def test_a_coronal_plane_is_marked_followed_and_taken_back(window):
    window.open()
    label = window.add_label("liver")
    session, paint = window.session, window.workspace.layers.paint
    bar = window.panel.slices.planes
    window.panel.refresh()
    assert not bar.isVisible()
    _coronal(window, 10)
    paint.brush_size = 8
    paint.paint((3, 10, 16), label)
    window.until(lambda: (session.paint.states > 0).sum() > 1)
    window.panel.refresh()
    assert bar.full.text() == "Coronal 10 painted in full"
    assert not bar.full.isChecked()
    window.qtbot.mouseClick(bar.full, Qt.MouseButton.LeftButton)
    window.panel.refresh()
    planes = session.paint.planes
    assert planes.state("coronal", 10) == SliceState.PAINTED
    np.testing.assert_array_equal(planes.mask("coronal", 10), paint.data[:, 10])
    assert bar.full.isChecked()
    assert "coronal 10" in bar.painted.text()
    assert SliceState.PAINTED not in session.paint.states

    # A later stroke on the plane, and one that erases.
    paint.paint((1, 10, 24), label)
    window.workspace.paint_sync.flush()
    np.testing.assert_array_equal(planes.mask("coronal", 10), paint.data[:, 10])
    paint.paint((3, 10, 16), 0)
    window.workspace.paint_sync.flush()
    np.testing.assert_array_equal(planes.mask("coronal", 10), paint.data[:, 10])
    assert planes.state("coronal", 10) == SliceState.PAINTED

    window.qtbot.mouseClick(bar.clear, Qt.MouseButton.LeftButton)
    assert len(planes) == 0
    window.viewer.dims.order = (0, 1, 2)
    window.panel.refresh()
    assert not bar.isVisible()


def test_strokes_beside_a_plane_leave_it_alone(window):
    window.open()
    label = window.add_label("liver")
    session, paint = window.session, window.workspace.layers.paint
    before = np.zeros((len(paint.data), paint.data.shape[2]), np.uint8)
    before[:, 12] = label
    session.paint.planes.set_plane("coronal", 10, before, SliceState.PAINTED)
    _coronal(window, 25)
    paint.brush_size = 3
    paint.paint((3, 25, 16), label)
    window.workspace.paint_sync.flush()
    np.testing.assert_array_equal(session.paint.planes.mask("coronal", 10), before)
