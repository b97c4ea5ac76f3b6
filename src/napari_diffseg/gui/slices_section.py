"""The Slices section: the strip, and how the slice in view is painted."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QSizePolicy

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.navigator import SliceStrip, StripModel
from napari_diffseg.gui.theme import Palette, Section, allow, row, tool
from napari_diffseg.session.paint import SliceState


class SlicesSection(Section):
    """The strip, and the state of the slice in view.

    Signals: ``went(z)``, ``state_set(state)``, ``cleared``.
    """

    went = Signal(int)
    state_set = Signal(object)
    cleared = Signal()

    def __init__(self, palette: Palette) -> None:
        super().__init__("Slices")
        self.strip = SliceStrip(palette)
        self.strip.went.connect(self.went)
        self.body.addWidget(self.strip)
        ends = QLabel("inferior"), QLabel(), QLabel("superior")
        self.where = ends[1]
        for label, side in zip(ends, ("Left", "HCenter", "Right"), strict=True):
            label.setObjectName("muted")
            label.setAlignment(getattr(Qt.AlignmentFlag, f"Align{side}"))
        line = row(*ends)
        line.setStretch(1, 4)
        self.body.addLayout(line)
        self.full = tool("Painted in full", checkable=True)
        self.scribbles = tool("Scribbles", checkable=True)
        self.clear = tool("Clear")
        self.clear.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        self.full.clicked.connect(lambda: self.state_set.emit(SliceState.PAINTED))
        self.scribbles.clicked.connect(lambda: self.state_set.emit(SliceState.SCRIBBLED))
        self.clear.clicked.connect(self.cleared)
        line = row(self.full, self.scribbles, self.clear)
        line.setStretch(2, 0)
        self.body.addLayout(line)

    def show_state(self, model: StripModel, guide: Guide, fresh: SliceState) -> None:
        """Show the strip and the current slice's state."""
        self.strip.show_model(model)
        count = len(model.states)
        state = SliceState(int(model.states[model.current])) if count else SliceState.UNPAINTED
        text = ""
        if count:
            text = f"slice {model.current} of 0–{count - 1}"
            if state == SliceState.ACCEPTED:
                text += " · accepted"
            elif state == SliceState.UNPAINTED:
                text += " · unpainted"
        self.where.setText(text)
        why = guide.why_not("state")
        unpainted = state == SliceState.UNPAINTED
        what = "Strokes on this slice will count as" if unpainted else "This slice is"
        allow(
            self.full,
            f"{what} painted in full: whatever is not painted is background",
            why,
        )
        allow(
            self.scribbles,
            f"{what} scribbles: whatever is not painted is unknown, "
            "and background is painted with its own brush",
            why,
        )
        allow(self.clear, "Take all paint off this slice (Ctrl+Z brings it back)",
              why or ("Nothing is painted on this slice." if unpainted else ""))  # fmt: skip
        shown = fresh if unpainted else state
        self.full.setChecked(bool(count) and not why and shown >= SliceState.PAINTED)
        self.scribbles.setChecked(bool(count) and not why and shown == SliceState.SCRIBBLED)
