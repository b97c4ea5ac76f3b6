"""Learn from earlier sessions: which, what they have in common, and how far it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDialog,
    QHeaderView,
    QProgressBar,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_diffseg.engine.progress import Progress
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.gui.runner import STOP_SECONDS
from napari_diffseg.gui.theme import allow, push, row, text_label
from napari_diffseg.gui.train_section import duration
from napari_diffseg.gui.worker import BackgroundCall, Task
from napari_diffseg.session.earlier import EarlierSession, earlier_sessions
from napari_diffseg.session.learning import learn_from, matched_labels

_HEADS = ("Patient", "Labels", "Slices", "Last change")
_BUDGETS = (("1 min", 60.0), ("3 min", 180.0), ("5 min", 300.0))
_START = "Make one model of the ticked sessions"


class LearningDialog(QDialog):
    """Lists the sessions of this user; those that are ticked are learnt from.

    Parameters
    ----------
    parent
        The panel.
    path
        Where the model is written.
    """

    learnt = Signal(object)  # the model's path
    wanted = Signal(object)  # the same, by the user's own press

    def __init__(self, parent: QWidget, path: Path) -> None:
        super().__init__(parent)
        self.setWindowTitle("Learn from earlier sessions")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.settings = TrainSettings()  # but for the time
        self.sessions: tuple[EarlierSession, ...] = ()
        self._path = path
        self._task: Task | None = None
        self.table = QTableWidget(0, len(_HEADS))
        self.table.setHorizontalHeaderLabels(_HEADS)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.itemChanged.connect(self._show_labels)
        self.labels = text_label("Reading the sessions.", wrap=True)
        self.budget = QComboBox()
        self.budget.addItems([text for text, _ in _BUDGETS])
        self.budget.setCurrentIndex(1)
        self.budget.setToolTip("Learn for at most so long")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.said = text_label(wrap=True)
        self.start_button, self.stop_button = push("Learn", "primary"), push("Cancel")
        self.use_button = push("Use it for this patient")
        self.use_button.setToolTip("Replace the model here; Restore round, in More, brings it back")
        self.start_button.clicked.connect(self.start)
        self.stop_button.clicked.connect(self.cancel)
        self.use_button.clicked.connect(lambda _=False: self.wanted.emit(self._path))
        column = QVBoxLayout(self)
        for widget in (self.table, self.labels, self.bar, self.said):
            column.addWidget(widget)
        column.addLayout(row(self.budget, self.use_button, self.stop_button, self.start_button))
        self.resize(560, 420)
        self.use_button.hide()
        self._show_running()
        self.finished.connect(self._let_go)  # Escape sends no close event
        self._reading = BackgroundCall(earlier_sessions, self._show_sessions, self._fail)

    @property
    def running(self) -> bool:
        """Whether a model is being learnt."""
        return self._task is not None

    @property
    def ticked(self) -> list[EarlierSession]:
        """The sessions to learn from."""
        checked = Qt.CheckState.Checked
        return [
            session
            for index, session in enumerate(self.sessions)
            if not session.problem and self.table.item(index, 0).checkState() == checked
        ]

    def offer(self) -> None:
        """Offer to use the model for the patient who is open, whose work it would replace."""
        self.use_button.show()

    # -- showing ----------------------------------------------------------------------------

    def _show_sessions(self, sessions: tuple[EarlierSession, ...]) -> None:
        self.sessions = sessions
        self.table.blockSignals(True)
        self.table.setRowCount(len(sessions))
        for index, session in enumerate(sessions):
            names = ", ".join(label.name for label in session.labels)
            name = session.name or f"CT {session.volume[:6]}"
            slices = str(session.stored or session.painted)
            texts = (name, session.problem or names, slices, f"{session.changed:%d %b %Y, %H:%M}")
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(session.problem or names)
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsUserCheckable)
                if session.problem:
                    item.setFlags(Qt.ItemFlag.NoItemFlags)
                elif column == 0:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                    item.setCheckState(Qt.CheckState.Checked)
                self.table.setItem(index, column, item)
        self.table.blockSignals(False)
        self._show_labels()

    def _show_labels(self, _: object = None) -> None:
        chosen = self.ticked
        allow(self.start_button, _START, "" if chosen else "Tick a session first.")
        if not chosen:
            usable = any(not session.problem for session in self.sessions)
            self.labels.setText(
                "Tick the sessions to learn from."
                if usable
                else "No session keeps slices yet: paint a patient and train once."
            )
            return
        known = matched_labels([session.labels for session in chosen])
        names = ", ".join(f"{label.name} ({count})" for label, count in known)
        slices = sum(session.stored for session in chosen)
        self.labels.setText(
            f"{_count(len(chosen), 'patient')}, {_count(slices, 'slice')}. Names are matched; in "
            f"how many patients each is painted: {names}. Elsewhere it counts as unknown."
        )

    def _show_running(self) -> None:
        self.bar.setVisible(self.running)
        self.stop_button.setVisible(self.running)
        self.start_button.setVisible(not self.running)
        self.budget.setEnabled(not self.running)
        self.table.setEnabled(not self.running)
        stopping = self._task is not None and self._task.stopping
        self.stop_button.setEnabled(not stopping)
        self.stop_button.setText("Stopping" if stopping else "Cancel")

    # -- learning ---------------------------------------------------------------------------

    def start(self, _: bool = False) -> None:
        """Learn from the ticked sessions in the background."""
        chosen = self.ticked
        if self.running or not chosen:
            return
        seconds = _BUDGETS[self.budget.currentIndex()][1]
        settings = replace(self.settings, seconds=seconds)
        self.use_button.hide()
        self.bar.setRange(0, 0)  # Qt's bar for work of unknown length
        self.said.setText("Starting")
        task = self._task = Task(lambda: learn_from(chosen, self._path, settings))
        task.batch.connect(self._on_progress)
        task.finished.connect(self._on_finished)
        task.failed.connect(self._fail)
        task.start()
        self._show_running()

    def cancel(self, _: bool = False) -> None:
        """Give the training up; the model from before is kept."""
        if self._task is not None:
            self._task.stop()
            self._show_running()

    def _on_progress(self, items: tuple[Any, ...]) -> None:
        latest: Progress = items[-1]
        if latest.remaining is None:
            self.said.setText(f"{latest.stage.capitalize()} · {duration(latest.seconds)} so far")
            return
        self.bar.setRange(0, 1000)
        total = max(latest.seconds + latest.remaining, 1e-6)
        self.bar.setValue(round(1000 * latest.seconds / total))
        left = f"{duration(latest.remaining)} left at most"
        self.said.setText(f"{latest.stage.capitalize()} · step {latest.step} · {left}")

    def _on_finished(self, stopped: bool) -> None:
        self._task = None
        self._show_running()
        if stopped:
            self.said.setText("Cancelled; the model from before is kept.")
            return
        self.said.setText(
            f"Learnt from {_count(len(self.ticked), 'patient')}. The next patient starts from it."
        )
        self.learnt.emit(self._path)

    def _fail(self, error: Exception) -> None:
        self._task = None
        self._show_running()
        self.said.setText((str(error) or type(error).__name__).splitlines()[0])

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """Closing ends what runs."""
        self._let_go()
        super().closeEvent(event)

    def _let_go(self, _: int = 0) -> None:
        """Give a training up whose progress nobody can see any more."""
        if self._task is not None:
            self._task.stop()
            self._task.wait(STOP_SECONDS)
            self._task = None
        self._reading.wait(STOP_SECONDS)


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
