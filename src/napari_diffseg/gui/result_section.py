"""The Result and Export sections."""

from __future__ import annotations

from qtpy.QtCore import Signal

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.theme import push, tool
from napari_diffseg.gui.workspace import Workspace

_NEXT = {
    "accept": (
        "Accept slice",
        "Take this slice's prediction as truth; the next training learns from it",
    ),
    "next": (
        "Next suggestion",
        "Go to the slice, or the plane across the slices, whose paint should help most",
    ),
}
_VIEWS = {
    "confidence": ("Confidence", "Orange where the model is unsure"),
    "contour": ("Contour", "Outline instead of fill"),
    "difference": ("Difference", "White where the prediction differs from the one before"),
}
_MODEL = {
    "predict": ("Predict all", "Predict every slice again"),
    "check": (
        "Check quality",
        "Train without each painted slice in turn and compare: the Dice in the table of labels",
    ),
    "review": (
        "Review…",
        "What the newest round has changed, which labels fight, what another slice is worth",
    ),
}
_EXPORT = {
    "mask": (
        "Mask…",
        "Save paint and prediction as a mask on the source grid, read it again and compare",
    ),
    "model": ("Model…", "Save the model for other volumes"),
    "numbers": (
        "Numbers…",
        "Volume, HU, surface and axes of each label: a page with pictures, or a table",
    ),
    "report": ("Report…", "Save settings, slices, times and quality as JSON"),
}


class ResultSection(Section):
    """Accept, next suggestion, and ways to look at the prediction."""

    accept = Signal()
    next = Signal()
    check = Signal()
    review = Signal()
    predict = Signal()
    confidence = Signal(bool)  # whether to show it
    contour = Signal(bool)
    difference = Signal(bool)

    def __init__(self) -> None:
        super().__init__("Result")
        self.body.addLayout(self.add_buttons(push, _NEXT))
        self.body.addLayout(self.add_buttons(tool, _VIEWS, checkable=True))
        self.body.addLayout(self.add_buttons(tool, _MODEL))

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Enable what makes sense now, and follow what was switched in napari's layer list."""
        super().show_state(workspace, guide)
        layers = workspace.layers if workspace is not None else None
        shown = {
            "confidence": layers and layers.confidence and layers.confidence.visible,
            "contour": layers and layers.prediction and layers.prediction.contour,
            "difference": layers and layers.difference,
        }
        for name, state in shown.items():
            self.buttons[name].setChecked(bool(state))


class ExportSection(Section):
    """Mask, model, numbers, report."""

    mask = Signal()
    model = Signal()
    numbers = Signal()
    report = Signal()

    def __init__(self) -> None:
        super().__init__("Export")
        self.body.addLayout(self.add_buttons(push, _EXPORT))
