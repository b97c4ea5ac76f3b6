"""The Tools section, folded at first: what is done to masks with more than a brush."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QToolButton,
)

from napari_diffseg.engine.edit import Edit, Kind
from napari_diffseg.gui import tools
from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.outline import Outline
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.theme import row, text_label, tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.tools import Target

_EDITS = {
    "fill holes": ("Fill holes", "Fill what the label in the brush encloses"),
    "keep largest": ("Largest", "Keep the largest piece of the label, and remove the others"),
    "remove islands": ("Islands", "Remove pieces of the label that are smaller than the area"),
}
_SIZES = {
    "smooth": ("Smooth", "Round off what is narrower than the distance"),
    "grow": ("Grow", "Add what is within the distance, where no other label is"),
    "shrink": ("Shrink", "Take off what is within the distance of the edge"),
}
_COPIES = {
    "below": ("Below", "Copy the labels of the slice below, where this one is free"),
    "above": ("Above", "Copy the labels of the slice above, where this one is free"),
    "between": (
        "Fill gap",
        "Predict the slices between painted ones from these alone, without training",
    ),
}
_FREE = {
    "outline": (
        "Edge outline",
        "Draw an outline that follows edges: click along them, double-click to fill",
    ),
    "model's": (
        "Model's prediction",
        "Take corrections back that are not accepted: show what the model predicted",
    ),
}
_HISTORY = {
    "undo": ("↶", "Take back the last change of paint or prediction, as chosen above"),
    "redo": ("↷", "Make it again"),
}


class ToolsSection(Section):
    """Target and scope, edits, copies, limits of the brush, undo and redo."""

    unfolded = Signal(bool)

    def __init__(self, desk: Desk) -> None:
        super().__init__("Tools")
        self.fold = tool("Tools", "quiet")  # stands in the title line of another section
        self.fold.setCheckable(True)
        self.fold.setToolTip("Show or hide what is done to masks with more than a brush")
        self.fold.setArrowType(Qt.ArrowType.RightArrow)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.toggled.connect(self._on_fold)
        self._workspace: Workspace | None = None
        self.drawing = Outline(self)  # a parent, as the desk has one
        self.target, paint, prediction = _choice(
            ("Paint", "Change the paint"), ("Prediction", "Change the prediction")
        )
        self.scope, here, everywhere = _choice(
            ("Slice", "On the slice in view"),
            ("Volume", "On every painted slice, or in the prediction as one volume"),
        )
        self.mm = _spin("Distance", " mm", 0.1, 50.0, 2.0, 1)
        self.mm.setToolTip("Distance for Smooth, Grow and Shrink")
        self.area = _spin("Smallest island", " mm²", 1.0, 1e6, 50.0, 0)
        self.area.setToolTip("Islands removes pieces smaller than this")
        self.fit = QCheckBox("Fit")
        self.fit.setChecked(True)
        self.fit.setToolTip("Move copied labels to where the same anatomy lies on this slice")
        self.limit = QCheckBox("HU")
        self.limit.setToolTip("Let strokes change only pixels in this range")
        self.low = _spin("Lowest HU", "", -2000, 4000, -100, 0)
        self.high = _spin("Highest HU", "", -2000, 4000, 200, 0)
        self.low.setToolTip("Lowest HU that a stroke may change")
        self.high.setToolTip("Highest HU that a stroke may change")
        self.sample = tool("Sample")
        self.sample.setToolTip("Take the range from the tissue at the next click on the picture")
        self.inside = QComboBox()
        self.inside.setMinimumContentsLength(5)
        self.inside.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.inside.setToolTip("Let strokes change only this label, and the one in the brush")
        self.inside.setAccessibleName("Where strokes may go")
        self.brush = _spin("Brush", " mm", 0.1, 200.0, 8.0, 1)
        self.brush.setPrefix("⌀ ")
        self.brush.setToolTip("Diameter of brush and eraser; Shift and the wheel change it")
        edits = self.add_buttons(tool, _EDITS)
        edits.addWidget(self.area)
        sizes = self.add_buttons(tool, _SIZES)
        sizes.addWidget(self.mm)
        copies = self.add_buttons(tool, _COPIES)
        copies.insertWidget(0, text_label("Copy"))
        copies.insertWidget(3, self.fit)
        free = self.add_buttons(tool, _FREE)
        self.buttons["outline"].setCheckable(True)
        history = self.add_buttons(partial(tool, style="quiet"), _HISTORY)
        first = row(paint, prediction, here, everywhere)
        limits = row(self.limit, self.low, self.high, self.sample)
        strokes = row(self.inside, self.brush)
        strokes.addLayout(history)
        for line in (first, edits, sizes, copies, free, limits, strokes):
            self.body.addLayout(line)
        self._connect(desk)
        self._on_fold(False)

    def _connect(self, desk: Desk) -> None:
        act = desk.acting
        for kind in (*_EDITS, *_SIZES):
            self.buttons[kind].clicked.connect(act(partial(self._edit, kind)))
        for name, step in (("below", -1), ("above", 1)):
            self.buttons[name].clicked.connect(act(partial(self._copy, step)))
        self.buttons["between"].clicked.connect(
            act(lambda w, _=False: tools.fill_between(w, self.everywhere))
        )
        for name, forward in (("undo", False), ("redo", True)):
            self.buttons[name].clicked.connect(
                act(lambda w, _=False, forward=forward: tools.step_back(w, self.chosen, forward))
            )
        self.buttons["model's"].clicked.connect(
            act(lambda w, _=False: tools.back_to_model(w, self.everywhere))
        )
        self.buttons["outline"].clicked.connect(self._on_outline)
        self.drawing.left.connect(lambda: self.buttons["outline"].setChecked(False))
        self._begin_outline = act(self.drawing.begin)
        self.sample.clicked.connect(act(lambda w, _=False: tools.sample_hu(w, self._on_sampled)))
        self.brush.valueChanged.connect(act(tools.set_brush))
        for signal in (self.limit.toggled, self.low.valueChanged, self.high.valueChanged):
            signal.connect(act(self._limit))
        self.inside.activated.connect(act(self._limit))
        for choice in (self.scope, self.target):
            choice.buttonToggled.connect(self._on_choice)

        on_wheel = act(tools.on_wheel)
        self._wheel = lambda _, event: on_wheel(event)
        desk.viewer.mouse_wheel_callbacks.append(self._wheel)

    def release(self, viewer: Any) -> None:
        """Leave mouse and wheel to others."""
        self.drawing.end()
        if self._wheel in viewer.mouse_wheel_callbacks:
            viewer.mouse_wheel_callbacks.remove(self._wheel)

    @property
    def chosen(self) -> Target:
        """What the buttons change."""
        return "prediction" if self.target.checkedId() else "paint"

    @property
    def everywhere(self) -> bool:
        """Whether they change more than the slice in view."""
        return bool(self.scope.checkedId())

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Show the brush's size and the labels that it can be kept inside of."""
        super().show_state(workspace, guide)
        begun = workspace if workspace is not None and workspace.session is not None else None
        self.setEnabled(begun is not None)
        changes, self._workspace = begun is not self._workspace, begun
        if changes:
            self.drawing.end()
        if begun is None:
            return
        limits = begun.paint_sync.limits
        self.brush.blockSignals(True)
        self.brush.setValue(tools.brush_mm(begun))
        self.brush.blockSignals(False)
        names = [("anywhere", 0)] + [(f"inside {x.name}", x.id) for x in begun.begun.paint.labels]
        count = self.inside.count()
        shown = [(self.inside.itemText(i), self.inside.itemData(i)) for i in range(count)]
        if names != shown:
            self.inside.clear()
            for name, label_id in names:
                self.inside.addItem(name, label_id)
        self.inside.setCurrentIndex(max(0, self.inside.findData(limits.inside or 0)))
        if changes:
            self.limit.blockSignals(True)
            self.limit.setChecked(limits.hu is not None)
            self.limit.blockSignals(False)

    def _on_outline(self, wanted: bool = False) -> None:
        self.drawing.end()
        if wanted:
            self._begin_outline()
        self.buttons["outline"].setChecked(self.drawing.active)

    def _edit(self, kind: str, workspace: Workspace, _: bool = False) -> None:
        amount = self.area.value() if kind == "remove islands" else self.mm.value()
        tools.edit(workspace, Edit(cast("Kind", kind), amount), self.chosen, self.everywhere)

    def _copy(self, step: int, workspace: Workspace, _: bool = False) -> None:
        tools.copy(workspace, step, self.chosen, self.fit.isChecked())

    def _limit(self, workspace: Workspace, _: Any = None) -> None:
        limits = workspace.paint_sync.limits
        low, high = sorted((self.low.value(), self.high.value()))
        limits.hu = (low, high) if self.limit.isChecked() else None
        limits.inside = self.inside.currentData() or None

    def _on_choice(self, *_: Any) -> None:
        solid = self.everywhere and self.chosen == "prediction"
        self.area.setSuffix(" mm³" if solid else " mm²")

    def _on_sampled(self, low: float, high: float) -> None:
        self.low.setValue(low)
        self.high.setValue(high)
        self.limit.setChecked(True)

    def _on_fold(self, unfolded: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow
        self.fold.setArrowType(arrow)
        self.setVisible(unfolded)
        self.unfolded.emit(unfolded)


def _choice(*texts: tuple[str, str]) -> tuple[QButtonGroup, QToolButton, QToolButton]:
    """Make two buttons, each with its help, of which one is down; the first at first."""
    choice, buttons = QButtonGroup(), []
    for number, (text, help_text) in enumerate(texts):
        button = tool(text)
        button.setCheckable(True)
        button.setToolTip(help_text)
        button.setChecked(number == 0)
        choice.addButton(button, number)
        buttons.append(button)
    return choice, buttons[0], buttons[1]


def _spin(
    name: str, suffix: str, low: float, high: float, value: float, digits: int
) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setAccessibleName(name)
    box.setDecimals(digits)
    box.setRange(low, high)
    box.setValue(value)
    box.setSuffix(suffix)
    box.setKeyboardTracking(False)
    return box
