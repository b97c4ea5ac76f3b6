"""The Labels section: the table, and what its rows do to the session and the brush."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QFileDialog, QMenu

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui import comparison, incoming, readers
from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.labels_table import LabelRow, LabelsTable
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.theme import Palette, allow, tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.io.labels import Label
from napari_diffseg.session.session import Session

_REMOVE = "Remove the chosen label; it must not be painted"
_BUTTONS = {
    "add": ("+ Add", "Add a label and paint with it"),
    "remove": ("Remove", _REMOVE),
    "import": (
        "Import…",
        'Labels that were made elsewhere, or their names from a JSON file such as {"liver": 1}',
    ),
}


class LabelsSection(Section):
    """The second section."""

    def __init__(self, palette: Palette, desk: Desk) -> None:
        super().__init__("Labels")
        self.header.addLayout(self.add_buttons(partial(tool, style="quiet"), _BUTTONS))
        self.table = LabelsTable(palette)
        self.body.addWidget(self.table)
        table, act = self.table, desk.acting
        for signal, action in (
            (self.buttons["add"].clicked, self._add),
            (self.buttons["remove"].clicked, self._remove),
            (self.buttons["import"].clicked, self._offer),
            (table.picked, Workspace.take_brush),
            (table.renamed, self._rename),
            (table.colour_asked, self._ask_colour),
            (table.lock_toggled, Workspace.toggle_lock),
            (table.eye_toggled, Workspace.toggle_eye),
        ):
            signal.connect(act(action))
        table.done.connect(desk.focus_canvas)
        self._act = act

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Show the labels, and which one is in the brush."""
        super().show_state(workspace, guide)
        paint = workspace.layers.paint if workspace is not None else None
        brush = int(paint.selected_label) if paint is not None else None
        self.table.show_rows(label_rows(workspace) if workspace is not None else (), brush)
        if not guide.why_not("remove"):
            chosen = self.table.selected_id() not in (None, BACKGROUND)
            none = "" if chosen else "Choose a label in the table first."
            allow(self.buttons["remove"], _REMOVE, none)

    def _add(self, workspace: Workspace, _: bool = False) -> None:
        label = workspace.begun.paint.add_label()
        workspace.recolour()
        workspace.take_brush(label.id)
        self.show_state(workspace, Guide(""))
        self.table.edit_name(label.id)

    def _rename(self, workspace: Workspace, label_id: int, name: str) -> None:
        self.table.forget()  # a name that is refused must not stay in the table
        workspace.begun.paint.rename_label(label_id, name)
        workspace.unsay()  # it may hold the old name
        workspace.recolour()

    def _ask_colour(self, workspace: Workspace, label_id: int) -> None:
        label = workspace.begun.paint.label(label_id)
        dialog = QColorDialog(QColor(*label.colour), self)
        dialog.setWindowTitle(f"Colour of {label.name}")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)

        def recolour(workspace: Workspace, colour: QColor) -> None:
            workspace.begun.paint.recolour_label(label_id, colour.getRgb()[:3])
            workspace.recolour()

        dialog.colorSelected.connect(self._act(recolour, workspace))
        workspace.closed.connect(dialog.close, Qt.ConnectionType.QueuedConnection)
        dialog.show()  # the window goes on; the colour is taken when it is agreed to

    def _remove(self, workspace: Workspace, _: bool = False) -> None:
        chosen = self.table.selected_id()
        if chosen is not None:
            workspace.begun.remove_label(chosen)
            workspace.show_session()
            workspace.recolour()

    def _import_names(self, workspace: Workspace, *_: object) -> None:
        path, _filter = QFileDialog.getOpenFileName(self, "Import label names", "", "JSON (*.json)")
        if path:
            workspace.begun.paint.import_names(path)
            workspace.recolour()

    def _offer(self, workspace: Workspace, _: bool = False) -> None:
        button = self.buttons["import"]
        menu = QMenu(button)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)  # it holds the workspace
        menu.addAction("Labels from a file…", lambda: incoming.ask_file(self, workspace))
        layers = incoming.foreign_layers(workspace)
        for layer in layers:
            menu.addAction(
                f"Labels of the layer “{layer.name}”",
                lambda one=layer: incoming.ask_layer(self, workspace, one),
            )
        menu.addAction("Names from a JSON file…", self._act(self._import_names, workspace))
        menu.addSeparator()
        menu.addAction("Compare with a file…", lambda: comparison.with_file(self, workspace))
        for layer in layers:
            with_layer = partial(comparison.with_layer, self, layer=layer)
            menu.addAction(
                f"Compare with the layer “{layer.name}”",
                self._act(lambda w, *_, compare=with_layer: compare(w), workspace),
            )
        readers.offer(menu, self, workspace)
        menu.popup(button.mapToGlobal(button.rect().bottomLeft()))


def label_rows(workspace: Workspace) -> tuple[LabelRow, ...]:
    """Describe a volume's labels; on a scribbled slice the background's brush comes last."""
    session = workspace.session
    if session is None:
        return ()
    sync, before = workspace.paint_sync, _quality_before(session)
    slices = sync.slices_per_label()
    rows = [
        LabelRow(
            label,
            slices.get(label.id, 0),
            session.trainer.quality.get(label.id),
            before.get(label.id),
            label.id in sync.locked,
            label.id in workspace.hidden,
        )
        for label in session.paint.labels
    ]
    if rows and sync.takes_scribbles(workspace.current):
        rows.append(LabelRow(Label(BACKGROUND, "background", (210, 210, 210))))
    return tuple(rows)


def _quality_before(session: Session) -> dict[int, float]:
    """Leave-one-out Dice of the last round before this one that was measured."""
    if session.trainer.round is None:
        return {}
    now = session.trainer.round.number
    measured = [r.quality for r in session.rounds.all if r.number < now and r.quality]
    return measured[-1] if measured else {}
