"""The Labels section: the table, and what its rows do to the session and the brush."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QFileDialog, QToolButton

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.labels_table import LabelsTable, rows_of
from napari_diffseg.gui.theme import Palette, Section, allow
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.session import Session


class LabelsSection(Section):
    """The second section."""

    def __init__(self, palette: Palette) -> None:
        super().__init__("Labels")
        self.add_button, self.names_button, self.remove_button = (QToolButton() for _ in range(3))
        for button, text in (
            (self.add_button, "+ Add"),
            (self.remove_button, "Remove"),
            (self.names_button, "Names…"),
        ):
            button.setText(text)
            button.setObjectName("quiet")
            self.header.addWidget(button)
        self.table = LabelsTable(palette)
        self.body.addWidget(self.table)
        self._active: Callable[[], Workspace | None] = lambda: None
        self.add_button.clicked.connect(self._add)
        self.names_button.clicked.connect(self._import_names)
        self.remove_button.clicked.connect(self._remove)
        self.table.picked.connect(self._pick)
        self.table.renamed.connect(self._rename)
        self.table.colour_asked.connect(self._ask_colour)
        self.table.lock_toggled.connect(self._toggle_lock)
        self.table.eye_toggled.connect(self._toggle_eye)

    def connect_to(self, active: Callable[[], Workspace | None]) -> None:
        """Say how to find the workspace to act on."""
        self._active = active

    def set_palette(self, palette: Palette) -> None:
        """Follow the viewer's theme."""
        self.table.set_palette(palette)

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Show the labels, and which one is in the brush."""
        why = guide.why_not("label")
        allow(self.add_button, "Add a label and paint with it", why)
        allow(self.names_button, 'Import names from a JSON file such as {"liver": 1}', why)
        session = workspace.session if workspace is not None else None
        if workspace is None or session is None:
            self.table.show_rows((), None)
            allow(self.remove_button, "", why or "Add a label first.")
            return
        rows = rows_of(
            session.labels,
            workspace.truth.slices_per_label(),
            session.quality,
            workspace.quality_before(),
            workspace.truth.locked,
            workspace.hidden,
            workspace.truth.takes_scribbles(workspace.current),
        )
        paint = workspace.layers.paint
        brush = int(paint.selected_label) if paint is not None else None
        self.table.show_rows(rows, brush)
        chosen = self.table.selected_id()
        none = "" if chosen not in (None, BACKGROUND) else "Choose a label in the table first."
        allow(self.remove_button, "Remove the chosen label; it must not be painted", why or none)

    def _add(self) -> None:
        def add(workspace: Workspace, session: Session) -> None:
            label = session.add_label()
            workspace.recolour()
            workspace.take_brush(label.id)
            self.show_state(workspace, Guide(""))
            self.table.edit_name(label.id)

        self._do(add)

    def _pick(self, label_id: int) -> None:
        workspace = self._active()
        if workspace is not None:
            workspace.take_brush(label_id)

    def _rename(self, label_id: int, name: str) -> None:
        def rename(workspace: Workspace, session: Session) -> None:
            session.rename_label(label_id, name)
            workspace.recolour()

        self._do(rename)

    def _ask_colour(self, label_id: int) -> None:
        def ask(workspace: Workspace, session: Session) -> None:
            label = next(one for one in session.labels if one.id == label_id)
            dialog = QColorDialog(QColor(*label.colour), self)
            dialog.setWindowTitle(f"Colour of {label.name}")
            dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            dialog.colorSelected.connect(
                lambda colour: self._do(
                    lambda *_: self._recolour(workspace, session, label_id, colour)
                )
            )
            dialog.show()  # the window goes on; the colour is taken when it is agreed to

        self._do(ask)

    def _recolour(
        self, workspace: Workspace, session: Session, label_id: int, colour: QColor
    ) -> None:
        session.recolour_label(label_id, colour.getRgb()[:3])
        workspace.recolour()

    def _remove(self) -> None:
        def remove(workspace: Workspace, session: Session) -> None:
            chosen = self.table.selected_id()
            if chosen is not None:
                session.remove_label(chosen)
                workspace.show_session()
                workspace.recolour()

        self._do(remove)

    def _import_names(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import label names", "", "JSON (*.json)")

        def take(workspace: Workspace, session: Session) -> None:
            session.import_names(path)
            workspace.recolour()

        if path:
            self._do(take)

    def _toggle_lock(self, label_id: int) -> None:
        def toggle(workspace: Workspace, session: Session) -> None:
            workspace.truth.locked ^= {label_id}
            workspace.changed.emit()

        self._do(toggle)

    def _toggle_eye(self, label_id: int) -> None:
        def toggle(workspace: Workspace, session: Session) -> None:
            workspace.hidden ^= {label_id}
            workspace.recolour()

        self._do(toggle)

    def _do(self, action: Callable[[Workspace, Session], None]) -> None:
        workspace = self._active()
        if workspace is None or workspace.session is None:
            return
        try:
            action(workspace, workspace.session)
        except ValueError as error:
            workspace.fail(error)
            self.table.forget()  # a name that was refused must not stay in the table
