"""All keys at a glance: ours as they are bound now, and napari's that matter here."""

from __future__ import annotations

from napari.utils.action_manager import action_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QGridLayout, QLabel, QWidget

from napari_diffseg.gui.shortcuts import KEYS, LABEL_KEYS, bound
from napari_diffseg.gui.theme import text_label

_NAPARI = (
    ("Brush", "napari:activate_labels_paint_mode"),
    ("Eraser", "napari:activate_labels_erase_mode"),
    ("Polygon", "napari:activate_labels_polygon_mode"),
    ("Fill", "napari:activate_labels_fill_mode"),
    ("Pick the label under the mouse", "napari:activate_labels_picker_mode"),
    ("Smaller brush", "napari:decrease_brush_size"),
    ("Larger brush", "napari:increase_brush_size"),
    ("Move the picture while held", "napari:hold_for_pan_zoom"),
    ("Slices or volume (2D, 3D)", "napari:toggle_ndisplay"),
    ("Transverse, sagittal, coronal", "napari:roll_axes"),
)
_MOUSE = (
    ("Window and level", "right-drag; with a tool, hold Space"),
    ("Size of the brush", "Shift+wheel"),
    ("Through the slices", "Ctrl+wheel"),
    ("Undo, redo", "Ctrl+Z, Ctrl+Shift+Z"),
)


def lines() -> list[tuple[str, str]]:
    """What there is and its key, ours first."""
    found = [(key.text, bound(key.name)) for key in KEYS if not key.name.startswith("label ")]
    first, last = bound("label 1"), bound(f"label {LABEL_KEYS}")
    found[-1] = (found[-1][0], f"? or {found[-1][1]}")
    found.insert(10, (f"Paint with label 1 to {LABEL_KEYS}", f"{first} to {last}"))
    for text, name in _NAPARI:
        keys = " or ".join(str(key) for key in action_manager._shortcuts.get(name, ()))
        found.append((text, keys))
    return [*found, *_MOUSE]


class CheatSheet(QDialog):
    """A window with the keys, in two columns; any key that closes dialogs closes it."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keys")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        grid = QGridLayout(self)
        grid.setHorizontalSpacing(14)
        shown = lines()
        half = (len(shown) + 1) // 2
        for n, (text, keys) in enumerate(shown):
            row, column = n % half, 3 * (n // half)
            label = QLabel(keys or "–")
            label.setStyleSheet("font-weight: 600;")
            grid.addWidget(QLabel(text), row, column)
            grid.addWidget(label, row, column + 1)
        grid.setColumnMinimumWidth(2, 20)
        note = text_label("Change them in File → Preferences → Shortcuts, in the viewer's group.")
        grid.addWidget(note, half, 0, 1, 5)
