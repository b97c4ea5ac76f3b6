"""The Slices section: the navigator, and how the slice in view is painted."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSizePolicy, QToolButton

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.navigator import SliceNavigator
from napari_diffseg.gui.navigator_model import navigator_model
from napari_diffseg.gui.orientation import slice_position
from napari_diffseg.gui.plane_bar import PlaneBar
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.theme import Palette, allow, row, text_label, tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.paint import SliceState

_CLEAR = "Take all paint off this slice (Ctrl+Z brings it back)"
_BUTTONS = {
    "full": ("Painted in full", ""),
    "scribbles": ("Scribbles", ""),
    "clear": ("Clear", _CLEAR),
}
_LINKED = {
    "linked": (
        "Planes",
        "Show the other two planes below the picture: Shift and the mouse move the crosshair, "
        "and what is painted there counts",
    ),
}
_STATES = {SliceState.PAINTED: "full", SliceState.SCRIBBLED: "scribbles"}


class SlicesSection(Section):
    """The navigator, and the state of the slice in view."""

    went = Signal(int)  # the slice
    state_set = Signal(object)  # a SliceState
    linked = Signal(bool)  # whether to show the other two planes
    cleared = Signal()

    def __init__(self, palette: Palette) -> None:
        super().__init__("Slices")
        self.position = text_label()
        self.position.setToolTip(
            "How far the slice is above (S) or below (I) the zero of the patient's coordinates"
        )
        self.header.addWidget(self.position)
        self.header.insertLayout(1, self.add_buttons(_quiet, _LINKED, checkable=True))
        self.navigator = SliceNavigator(palette)
        self.navigator.went.connect(self.went)
        self.body.addWidget(self.navigator)
        ends = text_label(), text_label(), text_label()
        self.low, self.where, self.high = ends
        for label, side in zip(ends, ("Left", "HCenter", "Right"), strict=True):
            label.setAlignment(getattr(Qt.AlignmentFlag, f"Align{side}"))
        line = row(*ends)
        line.setStretch(1, 4)
        self.body.addLayout(line)
        line = self.add_buttons(tool, _BUTTONS)
        line.setStretch(2, 0)
        self.body.addLayout(line)
        self.planes = PlaneBar()
        self.body.addWidget(self.planes)
        for state, name in _STATES.items():
            self.buttons[name].setCheckable(True)
            self.buttons[name].clicked.connect(lambda _=False, s=state: self.state_set.emit(s))
        self.buttons["clear"].clicked.connect(self.cleared)
        self.buttons["clear"].setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Show the navigator and the current slice's state."""
        model = navigator_model(workspace)
        self.planes.show_state(workspace)
        self.navigator.show_model(model)
        self.low.setText(model.ends[0])
        self.high.setText(model.ends[1])
        count = len(model.states)
        state = SliceState(int(model.states[model.current])) if count else SliceState.UNPAINTED
        unpainted = state == SliceState.UNPAINTED
        notes = {SliceState.ACCEPTED: " · accepted", SliceState.UNPAINTED: " · unpainted"}
        where = f"{model.what.lower()} {model.current} of 0–{count - 1}{notes.get(state, '')}"
        self.where.setText(where if count else "")
        transverse = model.what == "Slice"
        for name in _BUTTONS:  # a plane has buttons of its own below
            self.buttons[name].setVisible(transverse)
        self.position.setText(
            slice_position(workspace.volume.geometry, model.current)
            if workspace is not None and transverse
            else ""
        )
        what = "Strokes on this slice will count as" if unpainted else "This slice is"
        self._help["full"] = f"{what} painted in full: whatever is not painted is background"
        self._help["scribbles"] = (
            f"{what} scribbles: whatever is not painted is unknown, "
            "and background is painted with its own brush"
        )
        super().show_state(workspace, guide)
        if unpainted and not guide.why_not("clear"):
            allow(self.buttons["clear"], _CLEAR, "Nothing is painted on this slice.")
        meant = state
        if state == SliceState.ACCEPTED:
            meant = SliceState.PAINTED
        if unpainted and workspace is not None and workspace.session is not None:
            meant = workspace.paint_sync.fresh_state
        for one, name in _STATES.items():
            self.buttons[name].setChecked(one == meant and not guide.why_not(name))


def _quiet(text: str) -> QToolButton:
    button = tool(text, "quiet")
    button.setFixedHeight(20)  # no higher than a title
    return button
