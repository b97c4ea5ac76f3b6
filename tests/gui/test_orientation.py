"""Letters at the canvas' edges, and window presets."""

import numpy as np
import pytest

from napari_diffseg.gui.orientation import PRESETS, Letters, edge_letters, window_limits


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
