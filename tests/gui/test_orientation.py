"""Letters at the canvas' edges, and window presets."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QLineEdit

from napari_diffseg.gui.orientation import (
    PRESETS,
    Letters,
    edge_letters,
    slice_position,
    window_limits,
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


def test_presets():
    assert window_limits(*PRESETS["Soft tissue"]) == (-160, 240)
    assert window_limits(*PRESETS["Lung"]) == (-1350, 150)
    assert window_limits(*PRESETS["Bone"]) == (-500, 1300)
    assert window_limits(*PRESETS["Liver"]) == (-15, 135)


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


def test_letters_follow_the_viewer():
    from napari.components import ViewerModel

    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 4, 5)))
    letters = Letters(viewer)
    overlays = viewer.canvas.overlays

    def shown():
        edges = [overlays[f"orientation_{e}"] for e in ("top", "bottom", "left", "right")]
        return "".join(o.text for o in edges if o.visible)

    assert shown() == ""
    letters.show(True)
    assert shown() == "APRL"
    viewer.dims.order = (1, 0, 2)
    assert shown() == "ISRL"
    viewer.scene.camera.orientation2d = ("up", "right")
    assert shown() == "SIRL"
    viewer.dims.ndisplay = 3
    assert shown() == ""
    letters.close()
    assert not any(name.startswith("orientation_") for name in overlays)
