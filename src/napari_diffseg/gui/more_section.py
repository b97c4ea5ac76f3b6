"""The More section, folded at first: training settings, rounds, loading a model."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QToolButton, QWidget

from napari_diffseg.gui.form import SettingsForm
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.theme import Section, allow, muted, row, tool
from napari_diffseg.gui.train_section import duration
from napari_diffseg.session.rounds import Round


class MoreSection(Section):
    """Folded: training settings, rounds, load a model.

    Signals: ``restore(number)``, ``load``.
    """

    restore = Signal(int)
    load = Signal()

    def __init__(self) -> None:
        super().__init__("")
        self.fold = QToolButton()
        self.fold.setObjectName("quiet")
        self.fold.setText("More")
        self.fold.setCheckable(True)
        self.fold.setArrowType(Qt.ArrowType.RightArrow)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.toggled.connect(self._on_fold)
        self.header.insertWidget(0, self.fold)
        self.form = SettingsForm()
        self.rounds = QListWidget()
        self.rounds.setMaximumHeight(96)
        self.restore_button, self.load_button = tool("Restore round"), tool("Load model…")
        self.restore_button.clicked.connect(self._on_restore)
        self.load_button.clicked.connect(self.load)
        self.rounds.itemSelectionChanged.connect(self._allow_restore)
        self.content = (self.form.native, muted("Rounds"), self.rounds)
        self.buttons = QWidget()
        self.buttons.setLayout(row(self.restore_button, self.load_button))
        for widget in (*self.content, self.buttons):
            self.body.addWidget(widget)
            widget.hide()
        self._shown: tuple[Round, ...] = ()
        self._why = ""

    def show_state(self, rounds: tuple[Round, ...], current: Round | None, guide: Guide) -> None:
        """List the rounds, the newest first."""
        self._why = guide.why_not("load")
        allow(self.load_button, "Go on from a model that was saved before", self._why)
        if rounds != self._shown or self._current != current:
            self._shown, self._current = rounds, current
            self.rounds.clear()
            for made in reversed(rounds):
                mark = "● " if current is not None and made.number == current.number else "   "
                item = QListWidgetItem(mark + describe_round(made))
                item.setData(Qt.ItemDataRole.UserRole, made.number)
                self.rounds.addItem(item)
        self._allow_restore()

    _current: Round | None = None

    def _allow_restore(self) -> None:
        chosen = self.rounds.currentItem() is not None
        why = self._why or ("" if chosen else "Choose a round in the list first.")
        allow(self.restore_button, "Bring back this round's model and prediction", why)

    def _on_fold(self, unfolded: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow
        self.fold.setArrowType(arrow)
        for widget in (*self.content, self.buttons):
            widget.setVisible(unfolded)

    def _on_restore(self) -> None:
        item = self.rounds.currentItem()
        if item is not None:
            self.restore.emit(int(item.data(Qt.ItemDataRole.UserRole)))


def describe_round(made: Round) -> str:
    """Say in one line how a round was trained."""
    if made.settings is None:
        return f"Round {made.number} · loaded model"
    slices = "1 slice" if len(made.slices) == 1 else f"{len(made.slices)} slices"
    text = f"Round {made.number} · {slices} · {duration(made.seconds.get('total', 0))}"
    measured = [value for value in made.quality.values() if value == value]
    if measured:
        text += f" · Dice {sum(measured) / len(measured):.2f}"
    return text
