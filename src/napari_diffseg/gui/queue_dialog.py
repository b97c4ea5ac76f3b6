"""The queue of patients as a table; a row opens its patient."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QFileDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_diffseg.gui.files import VOLUMES, with_ending
from napari_diffseg.gui.runner import STOP_SECONDS
from napari_diffseg.gui.theme import allow, row, text_label, tool
from napari_diffseg.gui.train_section import duration
from napari_diffseg.gui.worker import BackgroundCall
from napari_diffseg.session.queue import CaseRow, Queue, QueuedCase

_HEADS = ("Patient", "State", "Slices", "Dice", "Training")
_STATES = {
    "waiting": "Not opened yet",
    "predicted": "Predicted by a model, and not looked at yet",
    "open": "Opened, and nothing is painted yet",
    "painted": "Painted, and not trained yet",
    "trained": "A model was trained on its paint",
    "finished": "Done",
}


class QueueDialog(QDialog):
    """Patients in their order: state, painted slices, leave-one-out Dice, time of training.

    Parameters
    ----------
    parent
        The panel.
    queue
        What is shown.
    current
        Gives the patient who is open.
    """

    changed = Signal()  # the queue
    asked = Signal(object)  # a patient to open

    def __init__(
        self, parent: QWidget, queue: Queue, current: Callable[[], QueuedCase | None]
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Queue of patients")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.queue, self._current = queue, current
        self._call: BackgroundCall | None = None
        self._again = False
        self.table = QTableWidget(0, len(_HEADS))
        self.table.setHorizontalHeaderLabels(_HEADS)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.itemActivated.connect(self.open_selected)
        self.table.itemSelectionChanged.connect(self._allow)
        self.said = text_label(wrap=True)
        self.buttons = {
            name: tool(text)
            for name, text in (
                *(("files", "Add files…"), ("folder", "Add folder…"), ("remove", "Remove")),
                *(("open", "Open"), ("finish", "Finished"), ("save", "Save table…")),
            )
        }
        self.buttons["folder"].setToolTip(
            "A DICOM series, or a folder of CTs, or of a folder for each patient"
        )
        for name, action in (
            ("files", self.add_files),
            ("folder", self.add_folder),
            ("remove", self.remove),
            ("open", self.open_selected),
            ("finish", self.finish),
            ("save", self.save),
        ):
            self.buttons[name].clicked.connect(action)
        column = QVBoxLayout(self)
        column.addWidget(self.table)
        column.addWidget(self.said)
        column.addLayout(row(*list(self.buttons.values())[:3]))
        column.addLayout(row(*list(self.buttons.values())[3:]))
        self.resize(520, 420)
        self.finished.connect(self._let_go)  # Escape sends no close event
        self.refresh()

    @property
    def selected(self) -> QueuedCase | None:
        """The patient of the row that is selected."""
        rows = self.table.selectionModel().selectedRows()
        paths = [self.table.item(index.row(), 0).data(Qt.ItemDataRole.UserRole) for index in rows]
        return next((case for case in self.queue.cases if case.path in paths), None)

    # -- showing ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read how far each patient is, in the background."""
        if self._call is not None and not self._call.over:
            self._again = True
            return
        queue = self.queue

        def read() -> tuple[tuple[QueuedCase, ...], tuple[CaseRow, ...]]:
            return queue.cases, queue.rows()

        self._call = BackgroundCall(read, self._show, self._fail)

    def _show(self, found: tuple[tuple[QueuedCase, ...], tuple[CaseRow, ...]]) -> None:
        chosen, current = self.selected, self._current()
        cases, rows = found
        self.table.setRowCount(len(rows))
        for index, (case, one) in enumerate(zip(cases, rows, strict=False)):
            here = current is not None and case.path == current.path
            dice = "–" if one.dice is None else f"{one.dice:.2f}"
            time = duration(one.seconds) if one.seconds else "–"
            texts = (("● " if here else "") + one.case, one.state, str(one.slices), dice, time)
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setData(Qt.ItemDataRole.UserRole, case.path)
                item.setToolTip(case.path if column == 0 else _STATES[one.state])
                self.table.setItem(index, column, item)
            if chosen is not None and case.path == chosen.path:
                self.table.selectRow(index)
        done = sum(one.state == "finished" for one in rows)
        self.said.setText(
            f"{done} of {len(rows)} finished. ● is open. Double-click a row to open it."
            if rows
            else "Add the CTs that are to be segmented, one after the other."
        )
        self._allow()
        if self._again:
            self._again = False
            self.refresh()

    def _allow(self) -> None:
        case, current = self.selected, self._current()
        none = "" if case is not None else "Select a patient first."
        here = case is not None and current is not None and case.path == current.path
        allow(self.buttons["remove"], "Take it off the queue; the work on it is kept", none)
        open_why = none or ("It is open." if here else "")
        allow(self.buttons["open"], "Open it in the place of the one that is open", open_why)
        finished = case is not None and case.finished
        self.buttons["finish"].setText("Not finished" if finished else "Finished")
        allow(self.buttons["finish"], "Next patient passes over those that are finished", none)
        empty = "" if self.queue.cases else "The queue is empty."
        allow(self.buttons["save"], "Save this table as CSV; it names no folder", empty)

    # -- actions ----------------------------------------------------------------------------

    def add_files(self, _: bool = False) -> None:
        """Ask for CTs."""
        paths, _filter = QFileDialog.getOpenFileNames(self, "Add CTs to the queue", "", VOLUMES)
        self._do(lambda: self.queue.add(paths) if paths else None)

    def add_folder(self, _: bool = False) -> None:
        """Ask for a folder of CTs, or a DICOM series."""
        path = QFileDialog.getExistingDirectory(self, "Add the CTs of a folder to the queue")
        self._do(lambda: self.queue.add([path]) if path else None)

    def remove(self, _: bool = False) -> None:
        """Take the selected patient off the queue."""
        case = self.selected
        if case is not None:
            self._do(lambda: self.queue.remove(case.path))

    def finish(self, _: bool = False) -> None:
        """Note that the selected patient is finished, or is not."""
        case = self.selected
        if case is not None:
            self._do(lambda: self.queue.finish(case.path, not case.finished))

    def open_selected(self, _: object = None) -> None:
        """Open the selected patient."""
        case, current = self.selected, self._current()
        if case is not None and (current is None or case.path != current.path):
            self.asked.emit(case)

    def save(self, _: bool = False) -> None:
        """Ask where to, and write the table."""
        path, chosen = QFileDialog.getSaveFileName(
            self, "Save the table", "patients.csv", "Table (*.csv)"
        )
        if path:
            file = with_ending(path, chosen, ".csv")
            if self._do(lambda: self.queue.write_table(file)):
                self.said.setText(f"Table saved as {Path(file).name}.")

    def _do(self, action: Callable[[], Any]) -> bool:
        try:
            action()
        except (ValueError, OSError) as error:
            self._fail(error)
            return False
        self.changed.emit()
        return True

    def _fail(self, error: Exception) -> None:
        self.said.setText((str(error) or type(error).__name__).splitlines()[0])

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """Closing ends what is being read."""
        self._let_go()
        super().closeEvent(event)

    def _let_go(self, _: int = 0) -> None:
        """Wait for what is being read."""
        if self._call is not None:
            self._call.wait(STOP_SECONDS)
