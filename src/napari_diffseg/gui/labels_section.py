"""The Labels section: the table, and what its rows do to the session and the brush."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QFileDialog, QToolButton

from napari_diffseg.finetune import BACKGROUND
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.labels_table import LabelsTable, rows_of
from napari_diffseg.gui.theme import Palette, Section, allow
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session import SliceState


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
        z = workspace.current
        state = session.states[z]
        scribbles = state == SliceState.SCRIBBLED or (
            state == SliceState.UNPAINTED and workspace.fresh_state == SliceState.SCRIBBLED
        )
        rows = rows_of(
            session.labels,
            workspace.slices_per_label(),
            session.quality,
            workspace.quality_before(),
            workspace.locked,
            workspace.hidden,
            scribbles,
        )
        paint = workspace.layers.paint
        brush = int(paint.selected_label) if paint is not None else None
        self.table.show_rows(rows, brush)
        chosen = self.table.selected_id()
        none = "" if chosen not in (None, BACKGROUND) else "Choose a label in the table first."
        allow(self.remove_button, "Remove the chosen label; it must not be painted", why or none)

    def _add(self) -> None:
        workspace = self._active()
        if workspace is not None:
            label_id = workspace.add_label()
            self.show_state(workspace, Guide(""))
            self.table.edit_name(label_id)

    def _pick(self, label_id: int) -> None:
        workspace = self._active()
        if workspace is not None:
            workspace.take_brush(label_id)

    def _rename(self, label_id: int, name: str) -> None:
        self._try(lambda w: w.rename_label(label_id, name))

    def _remove(self) -> None:
        label_id = self.table.selected_id()
        if label_id is not None:
            self._try(lambda w: w.remove_label(label_id))

    def _import_names(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import label names", "", "JSON (*.json)")
        if path:
            self._try(lambda w: w.import_names(path))

    def _toggle_lock(self, label_id: int) -> None:
        workspace = self._active()
        if workspace is not None:
            workspace.locked ^= {label_id}
            workspace.changed.emit()

    def _toggle_eye(self, label_id: int) -> None:
        workspace = self._active()
        if workspace is not None:
            workspace.hidden ^= {label_id}
            workspace.recolour()

    def _try(self, action: Callable[[Workspace], None]) -> None:
        workspace = self._active()
        if workspace is not None:
            try:
                action(workspace)
            except ValueError as error:
                workspace.fail(error)
