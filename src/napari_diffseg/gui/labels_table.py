"""The labels: colour, name, id, painted slices, quality, lock and eye; a row is the brush."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from qtpy.QtCore import QEvent, QModelIndex, QObject, QSize, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCompleter,
    QHeaderView,
    QLineEdit,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui.icons import eye_icon, lock_icon, swatch
from napari_diffseg.gui.theme import Palette
from napari_diffseg.io.labels import Label

COLOUR, NAME, ID, SLICES, QUALITY, LOCK, EYE = range(7)
_WIDTHS = {COLOUR: 24, ID: 30, SLICES: 38, QUALITY: 58, LOCK: 24, EYE: 24}
_HEADERS = ("", "Name", "Id", "Slices", "Dice", "", "")
_HELP = {
    COLOUR: "Double-click to change the colour",
    NAME: "Double-click to rename",
    ID: "Value in the exported mask",
    SLICES: "Slices on which it is painted",
    QUALITY: "Dice on painted slices left out of training; the arrow compares with the last round",
    LOCK: "Locked: strokes neither add to it nor take from it",
    EYE: "Show or hide",
}
_ROW_HEIGHT = 25
_FEWEST_ROWS, _MOST_ROWS = 3, 13
_OTHER_HEIGHT = 690  # px that the rest of the panel takes after a training

# FLARE22's organs, offered while a name is typed.
ORGANS = (
    "liver", "right kidney", "spleen", "pancreas", "aorta", "inferior vena cava",
    "right adrenal gland", "left adrenal gland", "gallbladder", "esophagus", "stomach",
    "duodenum", "left kidney",
)  # fmt: skip


@dataclass(frozen=True)
class LabelRow:
    """One line of the table."""

    label: Label
    slices: int = 0  # painted slices that hold it
    quality: float | None = None  # leave-one-out Dice; None where not measured
    before: float | None = None  # the same in the round before
    locked: bool = False
    hidden: bool = False


class LabelsTable(QTableWidget):
    """Table of the labels; all signals but ``done`` begin with the label's id."""

    picked = Signal(int)
    renamed = Signal(int, str)
    colour_asked = Signal(int)
    lock_toggled = Signal(int)
    eye_toggled = Signal(int)
    done = Signal()  # a row was clicked or a name was typed: the keys belong to the picture again

    def __init__(self, palette: Palette) -> None:
        super().__init__(0, len(_HEADERS))
        self._palette = palette
        self._rows: tuple[LabelRow, ...] = ()
        self.setAccessibleName("Labels")
        self.setTabKeyNavigation(False)  # Tab leaves the table; the arrow keys move in it
        self.setHorizontalHeaderLabels(_HEADERS)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(20)
        for column in _WIDTHS:
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, text in _HELP.items():
            self.horizontalHeaderItem(column).setToolTip(text)
        self.horizontalHeaderItem(NAME).setTextAlignment(Qt.AlignmentFlag.AlignLeft)
        self.verticalHeader().hide()
        self.setShowGrid(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setItemDelegateForColumn(NAME, _NameDelegate(self))
        # No key begins an edit: napari's tool keys are single letters and digits.
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.cellClicked.connect(self._on_click)
        self.cellDoubleClicked.connect(self._on_double_click)
        self.itemSelectionChanged.connect(self._on_selection)
        self.itemChanged.connect(self._on_edit)
        self._height = 0
        self.set_palette(palette)

    def set_palette(self, palette: Palette) -> None:
        """Follow the viewer's theme, and the size of its text."""
        self._palette = palette
        self.horizontalHeader().setFixedHeight(palette.px(20))
        self.verticalHeader().setDefaultSectionSize(palette.px(_ROW_HEIGHT))
        self.setIconSize(QSize(palette.px(16), palette.px(16)))
        for column, width in _WIDTHS.items():
            self.setColumnWidth(column, palette.px(width))
        self.fit_into(self._height)
        rows, self._rows = self._rows, ()
        self.show_rows(rows, self.selected_id())

    def fit_into(self, height: int) -> None:
        """Take as many rows as a panel of this height in px has room for; the rest scrolls.

        The height does not depend on the labels, so that nothing below moves with a new one.
        """
        self._height, px = height, self._palette.px
        room = (height - px(_OTHER_HEIGHT)) // px(_ROW_HEIGHT)
        rows = min(max(room, _FEWEST_ROWS), _MOST_ROWS)
        self.setFixedHeight(px(20) + rows * px(_ROW_HEIGHT) + 4)

    def selected_id(self) -> int | None:
        """Id of the selected row."""
        row = self.currentRow()
        return self._rows[row].label.id if 0 <= row < len(self._rows) else None

    def show_rows(self, rows: tuple[LabelRow, ...], selected: int | None) -> None:
        """Show these labels and mark the one in the brush."""
        if self.state() == QAbstractItemView.State.EditingState:
            return  # never take a name away from under the typing hand
        self.blockSignals(True)
        if rows != self._rows:
            self._rows = rows
            self.setRowCount(len(rows))
            for index, row in enumerate(rows):
                self._fill(index, row)
        ids = [row.label.id for row in rows]
        if selected in ids:
            self.setCurrentCell(ids.index(selected), NAME)
        else:
            self.setCurrentCell(-1, -1)
        self.blockSignals(False)

    def forget(self) -> None:
        """Fill every cell anew the next time."""
        self._rows = ()

    def edit_name(self, label_id: int) -> None:
        """Let the user type the name of a label."""
        for index, row in enumerate(self._rows):
            if row.label.id == label_id:
                self.setCurrentCell(index, NAME)
                self.editItem(self.item(index, NAME))

    def closeEditor(  # noqa: N802
        self, editor: QWidget, hint: QStyledItemDelegate.EndEditHint
    ) -> None:
        """Put the editor of a name away, and begin no other one, as Tab would."""
        super().closeEditor(editor, QStyledItemDelegate.EndEditHint.NoHint)
        self.done.emit()

    def _fill(self, index: int, row: LabelRow) -> None:
        background = row.label.id == BACKGROUND
        texts = {
            NAME: row.label.name,
            ID: "" if background else str(row.label.id),
            SLICES: str(row.slices) if row.slices else "–",
            QUALITY: _quality_text(row),
        }
        for column in range(len(_HEADERS)):
            item = QTableWidgetItem(texts.get(column, ""))
            item.setToolTip(_HELP[column])
            flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
            if column == NAME and not background:
                flags |= Qt.ItemFlag.ItemIsEditable
            item.setFlags(flags)
            if column in (ID, SLICES, QUALITY):
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            self.setItem(index, column, item)
        self.item(index, COLOUR).setIcon(swatch(QColor(*row.label.colour)))
        if background:
            self.item(index, NAME).setToolTip(
                "Paint what is certainly none of the labels; only for scribbled slices"
            )
            return
        ink = self._palette.text
        faint = self._palette.muted
        self.item(index, LOCK).setIcon(lock_icon(row.locked, ink if row.locked else faint))
        self.item(index, EYE).setIcon(eye_icon(not row.hidden, faint if row.hidden else ink))

    def _on_click(self, row: int, column: int) -> None:
        if row < len(self._rows) and self._rows[row].label.id != BACKGROUND:
            signal = {LOCK: self.lock_toggled, EYE: self.eye_toggled}.get(column)
            if signal is not None:
                signal.emit(self._rows[row].label.id)
        self._on_selection()
        self._let_go()

    def _on_double_click(self, row: int, column: int) -> None:
        if column == COLOUR and self._rows[row].label.id != BACKGROUND:
            self.colour_asked.emit(self._rows[row].label.id)
        self._let_go()

    def _let_go(self) -> None:
        if self.state() != QAbstractItemView.State.EditingState:
            self.done.emit()

    def _on_selection(self) -> None:
        if self.selected_id() is not None:
            self.picked.emit(self.selected_id())

    def _on_edit(self, item: QTableWidgetItem) -> None:
        if item.column() == NAME:
            self.renamed.emit(self._rows[item.row()].label.id, item.text())


class _NameDelegate(QStyledItemDelegate):
    def createEditor(  # noqa: N802
        self, parent: QWidget, option: QStyleOptionViewItem, index: QModelIndex
    ) -> QLineEdit:
        editor = QLineEdit(parent)
        completer = QCompleter(list(ORGANS), editor)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        editor.setCompleter(completer)
        # While the completer's list is open it takes Enter, and the delegate never sees it.
        editor.returnPressed.connect(partial(self._end, editor))
        completer.activated.connect(partial(self._end, editor))
        return editor

    def eventFilter(self, editor: QObject, event: QEvent) -> bool:  # noqa: N802
        """End the edit with Enter at once, where Qt would end it a second time later."""
        enter = (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        if event.type() == QEvent.Type.KeyPress and event.key() in enter:
            self._end(editor)
            return True
        return bool(super().eventFilter(editor, event))

    def _end(self, editor: QLineEdit, text: str | None = None) -> None:
        if text is not None:
            editor.setText(text)
        editor.completer().popup().hide()
        self.commitData.emit(editor)
        self.closeEditor.emit(editor, QStyledItemDelegate.EndEditHint.NoHint)


def _quality_text(row: LabelRow) -> str:
    if row.quality is None or row.quality != row.quality:
        return "–"
    arrow = ""
    if row.before is not None and abs(row.quality - row.before) >= 0.005:
        arrow = " ▲" if row.quality > row.before else " ▼"
    return f"{row.quality:.2f}{arrow}"
