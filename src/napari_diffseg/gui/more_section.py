"""The More section, folded at first: training settings, rounds, loading a model."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_diffseg.gui.form import SettingsForm
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.theme import allow, text_label, tool
from napari_diffseg.gui.train_section import duration
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.rounds import Round

_BUTTONS = {
    "restore": ("Restore round", "Bring back this round's model and prediction"),
    "load": ("Load model…", "Go on from a model that was saved before"),
}
_ADAPT = {
    "adapt": (
        "Adapt to this CT",
        "The model of other patients learns from the pixels of this CT that it is surest of",
    ),
}


class MoreSection(Section):
    """Folded: training settings, rounds, load a model."""

    restored = Signal(int)  # number of the round
    load = Signal()
    adapt = Signal()

    def __init__(self) -> None:
        super().__init__("")
        self.fold = tool("More", "quiet")
        self.fold.setCheckable(True)
        self.fold.setToolTip("Settings of the training, rounds, models from files")
        self.fold.setArrowType(Qt.ArrowType.RightArrow)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.toggled.connect(self._on_fold)
        self.header.insertWidget(0, self.fold)
        self.form = SettingsForm()
        self.rounds = QListWidget()
        self.rounds.setMaximumHeight(96)
        self.rounds.setAccessibleName("Rounds")
        self.rounds.itemSelectionChanged.connect(self._allow_restore)
        lines = self.add_buttons(tool, _BUTTONS), self.add_buttons(tool, _ADAPT)
        self.buttons["restore"].clicked.connect(self._on_restore)
        self._content = (
            self.form.native,
            text_label("Rounds"),
            self.rounds,
            *self.buttons.values(),
        )
        for widget in self._content[:3]:
            self.body.addWidget(widget)
        for line in lines:
            self.body.addLayout(line)
        self._on_fold(False)
        self._shown: tuple[tuple[Round, ...], Round | None] = (), None
        self._why = ""

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """List the rounds, the newest first."""
        super().show_state(workspace, guide)
        self._why = guide.why_not("load")
        session = workspace.session if workspace is not None else None
        shown = (session.rounds.all, session.trainer.round) if session is not None else ((), None)
        if shown != self._shown:
            self._shown = shown
            rounds, current = shown
            self.rounds.clear()
            for made in reversed(rounds):
                mark = "● " if current is not None and made.number == current.number else "   "
                item = QListWidgetItem(mark + describe_round(made))
                item.setData(Qt.ItemDataRole.UserRole, made.number)
                self.rounds.addItem(item)
        self._allow_restore()

    def _allow_restore(self) -> None:
        none = "" if self.rounds.currentItem() is not None else "Choose a round in the list first."
        allow(self.buttons["restore"], _BUTTONS["restore"][1], self._why or none)

    def _on_fold(self, unfolded: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow
        self.fold.setArrowType(arrow)
        for widget in self._content:
            widget.setVisible(unfolded)

    def _on_restore(self) -> None:
        self.restored.emit(int(self.rounds.currentItem().data(Qt.ItemDataRole.UserRole)))


def describe_round(made: Round) -> str:
    """Say in one line how a round was trained."""
    if made.settings is None:
        what = "adapted without paint" if made.adapted else "loaded model"
        return f"Round {made.number} · {what}"
    slices = "1 slice" if len(made.slices) == 1 else f"{len(made.slices)} slices"
    text = f"Round {made.number} · {slices} · {duration(made.seconds.get('total', 0))}"
    measured = [value for value in made.quality.values() if value == value]
    if measured:
        text += f" · Dice {sum(measured) / len(measured):.2f}"
    return text
