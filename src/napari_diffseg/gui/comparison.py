"""Another's eye: the session's result against a mask of somebody else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QFileDialog,
    QHeaderView,
    QListWidget,
    QListWidgetItem,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_diffseg.engine.agreement import Agreement, compare, matched
from napari_diffseg.gui.incoming import LABEL_FILES, labels_of
from napari_diffseg.gui.io import read_for
from napari_diffseg.gui.theme import text_label, tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.io.files import atomic_write, check_outputs
from napari_diffseg.io.labels import LabelMap
from napari_diffseg.session.journal import saving

_HEADS = ("Label", "Dice", "HD95 mm", "Surface Dice", "Kappa")

Compared = tuple[Agreement, NDArray[np.bool_]]


class ComparisonDialog(QDialog):
    """A row for each label, and the slices that differ most first; a click goes there.

    Parameters
    ----------
    parent
        The panel.
    workspace
        What was compared.
    name
        Of the other mask.
    found
        How far they agree.
    """

    def __init__(self, parent: QWidget, workspace: Workspace, name: str, found: Agreement) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Compared with {name}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._workspace = workspace
        self.labels = QTableWidget(len(found.labels), len(_HEADS))
        self.labels.setHorizontalHeaderLabels(_HEADS)
        self.labels.verticalHeader().hide()
        self.labels.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        header = self.labels.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for row, one in enumerate(found.labels):
            scores = one.scores
            figures = (scores.dice, scores.hd95, scores.surface_dice, one.kappa)
            texts = ["–" if np.isnan(value) else f"{value:.3f}" for value in figures]
            for column, text in enumerate((scores.label.name, *texts)):
                self.labels.setItem(row, column, QTableWidgetItem(text))
        self.slices = QListWidget()
        for plane in found.slices:
            item = QListWidgetItem(
                f"Slice {plane.z} · {plane.differing_mm2:.0f} mm² differ · Dice {plane.dice:.3f}"
            )
            item.setData(Qt.ItemDataRole.UserRole, plane.z)
            self.slices.addItem(item)
        self.slices.currentItemChanged.connect(self._go)
        count = len(found.slices)
        said = f"{count} slices differ; those that differ most first" if count else "They are equal"
        self.save = tool("Save…")
        self.save.setToolTip("Save the table of labels as CSV")
        self.save.clicked.connect(lambda: self._save(found))
        column = QVBoxLayout(self)
        for widget in (self.labels, self.save, text_label(said), self.slices):
            column.addWidget(widget)
        self.resize(460, 480)
        self.finished.connect(lambda _: workspace.show_difference(False))
        workspace.closed.connect(self.close, Qt.ConnectionType.QueuedConnection)

    def _save(self, found: Agreement) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save", "agreement.csv", "CSV (*.csv)")
        if path:
            self._workspace.save(Path(path), partial(_write, self._workspace, found), "Agreement")

    def _go(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self._workspace.go(int(item.data(Qt.ItemDataRole.UserRole)))


def _write(workspace: Workspace, found: Agreement, path: Path) -> None:
    check_outputs([path], [workspace.volume.geometry.source])
    failed = f"{path}: cannot be written ({{reason}}); choose another place"
    with saving(failed), atomic_write(path) as part:
        part.write_text(found.labels_csv(), encoding="utf-8")


def with_file(parent: QWidget, workspace: Workspace) -> None:
    """Ask for a mask, and compare the result with it."""
    path, _ = QFileDialog.getOpenFileName(parent, "Compare with a mask", "", LABEL_FILES)
    if path:
        with_labels(
            parent,
            workspace,
            Path(path).name,
            lambda: read_for(Path(path), workspace.volume)[0],
        )


def with_layer(parent: QWidget, workspace: Workspace, layer: Labels) -> None:
    """Compare the result with a labels layer that somebody else has added."""
    other = labels_of(layer, workspace)
    with_labels(parent, workspace, layer.name, lambda: other)


def with_labels(
    parent: QWidget, workspace: Workspace, name: str, other: Callable[[], LabelMap]
) -> None:
    """Compare the result with labels that ``other`` finds, in a thread."""
    session = workspace.begun
    workspace.paint_sync.flush()
    own = LabelMap(session.merged(), session.paint.labels)

    def run() -> Compared:
        mask, labels = matched(own, other())
        found = compare(own.mask, mask, workspace.volume.geometry.spacing, labels)
        return found, own.mask != mask

    def show(compared: Compared) -> None:
        found, differing = compared
        workspace.layers.show_difference(differing)
        workspace.changed.emit()
        ComparisonDialog(parent, workspace, name, found).show()

    workspace.call(run, show)
