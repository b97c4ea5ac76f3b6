"""Letters at the canvas' edges, and window presets."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QLineEdit
from session_tools import tiny_volume

from napari_diffseg.gui.orientation import (
    Orientation,
    edge_letters,
    slice_position,
)
from napari_diffseg.io.geometry import Geometry


@pytest.mark.parametrize(
    ("displayed", "flips", "letters"),
    [
        ((1, 2), ("down", "right"), "APRL"),  # transverse, as radiologists look at it
        ((0, 2), ("up", "right"), "SIRL"),  # coronal, head up
        ((0, 1), ("up", "left"), "SIPA"),
        ((2, 1), ("down", "right"), "RLAP"),
        ((0, 1, 2), ("down", "right"), ""),
    ],
)
def test_letters_of_a_view(displayed, flips, letters):
    shown = edge_letters(displayed, *flips)
    assert "".join(shown.get(edge, "") for edge in ("top", "bottom", "left", "right")) == letters


@pytest.mark.parametrize("k_up", [True, False])
def test_position_of_a_slice(k_up):
    # Slices of 5 mm; the lowest lies 12.5 mm below the zero of the patient's coordinates.
    affine = np.diag([-2.0, -2.0, 5.0 if k_up else -5.0, 1.0])
    affine[2, 3] = -12.5 if k_up else 12.5
    geometry = Geometry.from_affine(affine, (32, 32, 6))
    texts = [slice_position(geometry, z) for z in range(6)]
    assert texts[:4] == ["I 12.5 mm", "I 7.5 mm", "I 2.5 mm", "S 2.5 mm"]
    assert texts[5] == "S 12.5 mm"


def test_a_tilted_slice_is_where_its_centre_is():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[2, 1] = 0.1  # a gantry tilt: a row further back is 0.1 mm higher
    assert slice_position(Geometry.from_affine(affine, (5, 41, 3)), 1) == "S 3.0 mm"


def test_axes_and_slices_have_names(window):
    window.open()
    assert window.viewer.dims.axis_labels == ("z", "y", "x")
    labels = window.viewer.window._qt_window.findChildren(QLineEdit, "axis_label")
    assert [label.text() for label in labels if label.isVisible()] == ["z"]
    window.qtbot.mouseClick(
        window.panel.slices.navigator,
        Qt.MouseButton.LeftButton,
        pos=QPoint(round(window.panel.slices.navigator.centre_of(4)), 15),
    )
    window.panel.refresh()
    assert window.viewer.dims.current_step[0] == 4  # the number at napari's slider
    assert window.panel.slices.where.text().startswith("slice 4 of 0–5")
    assert window.panel.slices.position.text() == "S 20.0 mm"


def _viewer_with_letters():
    from napari.components import ViewerModel

    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 4, 5)))
    orientation = Orientation(viewer)
    return viewer, orientation


def _shown(viewer):
    edges = [
        viewer.canvas.overlays[f"orientation_{edge}"] for edge in ("top", "bottom", "left", "right")
    ]
    return "".join(o.text for o in edges if o.visible)


def test_letters_follow_the_viewer():
    viewer, orientation = _viewer_with_letters()
    assert _shown(viewer) == ""
    orientation.show(True)
    assert _shown(viewer) == "APRL"
    viewer.dims.order = (1, 0, 2)
    assert _shown(viewer) == "SIRL"
    viewer.scene.camera.orientation2d = ("down", "left")  # the user's own flips stay
    assert _shown(viewer) == "ISLR"
    viewer.dims.set_point(1, 2)
    orientation.show(True)
    assert _shown(viewer) == "ISLR"
    viewer.dims.ndisplay = 3
    assert _shown(viewer) == ""
    assert viewer.scene.camera.handedness == "right"  # else the patient would be mirrored
    viewer.dims.order = (
        0,
        1,
        2,
    )  # these axes, towards superior, posterior and left, are left-handed
    assert viewer.scene.camera.handedness == "left"
    viewer.dims.order = (1, 0, 2)
    viewer.dims.ndisplay = 2
    assert _shown(viewer) == "SIRL"
    orientation.close()
    assert not any(name.startswith("orientation_") for name in viewer.canvas.overlays)
    assert tuple(viewer.scene.camera.orientation2d) == ("down", "right")


def test_rolling_goes_through_three_upright_planes():
    viewer, orientation = _viewer_with_letters()
    orientation.show(True)
    seen = []
    for _ in range(4):
        seen.append((viewer.dims.order, _shown(viewer)))
        viewer.dims.roll()
    assert seen[:3] == [((0, 1, 2), "APRL"), ((2, 0, 1), "SIAP"), ((1, 0, 2), "SIRL")]
    assert seen[3] == seen[0]
    viewer.dims.order = (1, 0, 2)
    viewer.dims.transpose()  # asked for: the letters say what is shown
    assert viewer.dims.order == (1, 2, 0)
    assert _shown(viewer) == "RLIS"


def test_a_coronal_view_has_the_head_up_and_can_be_painted(window):
    volume = tiny_volume()
    volume.hu[5] = 1000  # the highest slice is bright
    window.open(volume)
    hu = window.workspace.layers.ct.data.copy()
    label = window.add_label("liver")
    canvas, viewer = window.canvas(), window.viewer
    canvas.setFocus()
    for _ in range(2):
        window.key(Qt.Key.Key_E)  # napari's key to roll the axes
    assert viewer.dims.displayed == (0, 2)
    window.qtbot.wait(100)
    picture = viewer.screenshot(flash=False)[..., 0].astype(int)
    lit = np.flatnonzero((picture > 200).mean(axis=1) > 0.1)
    assert lit.size
    assert lit.max() < len(picture) / 2
    paint = window.workspace.layers.paint
    paint.brush_size = 1
    # Two clicks high up in the picture mark the bright slice.
    where = QPoint(canvas.width() // 2, int(lit.mean() / len(picture) * canvas.height()))
    window.qtbot.mouseMove(canvas, where)
    window.qtbot.wait(20)
    window.qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=where)
    window.qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=where)
    window.until(lambda: paint.data.any(), timeout=5000)
    assert set(np.flatnonzero((paint.data == label).any(axis=(1, 2)))) == {5}
    assert np.array_equal(window.workspace.layers.ct.data, hu)
