"""Radiological reading aids: letters at the edges of the canvas, and CT window presets."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_diffseg.io.geometry import Geometry

PRESETS: dict[str, tuple[float, float]] = {
    "Soft tissue": (400, 40),
    "Lung": (1500, -600),
    "Bone": (1800, 400),
    "Liver": (150, 60),
}
"""Window width and level in HU by name."""

# For the canonical axes z, y, x: the letters at their low and their high end.
_ENDS = (("I", "S"), ("A", "P"), ("R", "L"))
_POSITIONS = {
    "top": "top_center",
    "bottom": "bottom_center",
    "left": "middle_left",
    "right": "middle_right",
}


def edge_letters(
    displayed: tuple[int, ...], vertical: str = "down", horizontal: str = "right"
) -> dict[str, str]:
    """Letters at the four edges of a 2D view of a canonical volume, by edge.

    ``displayed`` are the canonical axes (0 is z, 1 is y, 2 is x) that run down and across the view,
    ``vertical`` (down or up) and ``horizontal`` (right or left) which way the camera lets them
    run. There are none when the view is not a slice, for then no letter is true.
    """
    if len(displayed) != 2:
        return {}
    down, across = _ENDS[displayed[0]], _ENDS[displayed[1]]
    if vertical == "up":
        down = down[::-1]
    if horizontal == "left":
        across = across[::-1]
    return dict(zip(_POSITIONS, (*down, *across), strict=True))


def slice_position(geometry: Geometry, z: int) -> str:
    """Write how far up the patient a slice's centre is, in mm: ``"S 12.5 mm"``.

    The zero is the source file's, as are S (superior of it) and I (inferior).
    """
    _, rows, columns = geometry.canonical_shape
    centre = geometry.canonical_affine @ (z, (rows - 1) / 2, (columns - 1) / 2, 1.0)
    height = round(float(centre[2]), 1)
    return f"{'I' if height < 0 else 'S'} {abs(height):.1f} mm"


PLANES = {0: (0, 1, 2), 1: (1, 0, 2), 2: (2, 0, 1)}
"""Order of the axes of the three planes, by the axis that the slider runs along."""


class Orientation:
    """Keeps superior on top in coronal and sagittal views, and the letters at the edges true.

    Only the viewer is turned: the order of its axes and which way the camera lets them run.
    """

    def __init__(self, viewer: Any) -> None:
        from napari.components.overlays import TextOverlay

        self._viewer = viewer
        self._shown = False
        self._order: tuple[int, ...] = tuple(viewer.dims.order)
        self._before = viewer.scene.camera.orientation
        self._overlays = {}
        for edge, position in _POSITIONS.items():
            overlay = TextOverlay(position=position, font_size=14, visible=False)
            viewer.canvas.overlays[f"orientation_{edge}"] = overlay
            self._overlays[edge] = overlay
        for event in (viewer.dims.events.order, viewer.dims.events.ndisplay):
            event.connect(self._turn)
        viewer.scene.camera.events.orientation.connect(self._update)

    def show(self, shown: bool) -> None:
        """Show the letters while a CT is open."""
        if shown != self._shown:
            self._shown = shown
            self._turn()

    def close(self) -> None:
        """Take the letters off the canvas, and leave the camera as it was found."""
        if not self._overlays:
            return
        for event in (self._viewer.dims.events.order, self._viewer.dims.events.ndisplay):
            event.disconnect(self._turn)
        self._viewer.scene.camera.events.orientation.disconnect(self._update)
        self._viewer.scene.camera.orientation = self._before
        for edge in self._overlays:
            self._viewer.canvas.overlays.pop(f"orientation_{edge}", None)
        self._overlays = {}

    def _turn(self, event: object = None) -> None:
        """Turn the view upright after another plane was chosen; later flips are the user's."""
        dims, camera = self._viewer.dims, self._viewer.scene.camera
        before, self._order = self._order, tuple(dims.order)
        if self._shown and dims.ndim == 3:
            if len(before) == 3 and self._order == before[-1:] + before[:-1]:
                # A roll, which would lay the patient down in one plane of the three.
                upright = PLANES[(before[0] - 1) % 3]
                if self._order != upright:
                    dims.order = upright
                    return  # for this was called again
            up = dims.ndisplay == 2 and dims.displayed[0] == 0
            depth, vertical, horizontal = self._before
            if dims.ndisplay == 3:
                # The axes z, y, x (towards superior, posterior, left) are left-handed: napari's
                # camera, which is right-handed, would mirror the patient.
                even = np.linalg.det(np.eye(3)[list(dims.displayed)]) > 0
                camera.orientation = ("away" if even else "towards", "down", "right")
            else:
                camera.orientation = (depth, "up" if up else vertical, horizontal)
        self._update()

    def _update(self, event: object = None) -> None:
        dims = self._viewer.dims
        letters: dict[str, str] = {}
        if self._shown and dims.ndim == 3:
            vertical, horizontal = (str(o) for o in self._viewer.scene.camera.orientation2d)
            letters = edge_letters(tuple(dims.displayed), vertical, horizontal)
        for edge, overlay in self._overlays.items():
            overlay.text = letters.get(edge, "")
            overlay.visible = bool(letters)
