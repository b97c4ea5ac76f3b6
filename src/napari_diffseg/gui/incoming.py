"""Labels made elsewhere: asks how a file or a napari layer is to be taken, and takes it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_diffseg.gui.io import INCOMING, LABELS, read_for
from napari_diffseg.gui.theme import text_label
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.io.labels import MAX_LABEL, Label, LabelMap, ids_in, labels_for
from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.tools import Target

LABEL_FILES = (
    "Labels (*.nii *.nii.gz *.seg.nrrd *.nrrd *.nhdr *.mha *.mhd *.hdr *.img *.dcm);;All files (*)"
)


class IncomingDialog(QDialog):
    """Asks whether labels become paint or a prediction, and on which slices.

    Parameters
    ----------
    parent
        The panel.
    workspace
        What takes them.
    name
        Of the file or the layer.
    labels
        On the grid of the volume.
    how
        What else should be known, such as that they were resampled.
    """

    def __init__(
        self, parent: QWidget, workspace: Workspace, name: str, labels: LabelMap, how: str = ""
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Labels from elsewhere")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._workspace, self._name, self._labels = workspace, name, labels
        workspace.closed.connect(self.close, Qt.ConnectionType.QueuedConnection)
        holding = np.flatnonzero(labels.mask.any(axis=(1, 2)))
        names = ", ".join(label.name for label in labels.labels[:6])
        more = f" and {len(labels.labels) - 6} more" if len(labels.labels) > 6 else ""
        where = f"slices {holding[0]} to {holding[-1]}" if len(holding) else "no slice"
        self.paint = QRadioButton("Paint: true, each slice painted in full, learnt from")
        self.prediction = QRadioButton("Prediction: to be corrected and accepted")
        self.paint.setChecked(True)
        self._target = QButtonGroup(self)
        self._target.addButton(self.paint)
        self._target.addButton(self.prediction)
        self.slices = QLineEdit()
        self.slices.setPlaceholderText(f"all {len(holding)} that hold a label")
        self.slices.setToolTip("Such as 3, 10-20; a chosen slice without a label is truly empty")
        self.replace = QCheckBox("Replace the paint that is there")
        self.problem = text_label(wrap=True)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setText("Take")
        self.buttons.accepted.connect(self._take)
        self.buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        heading = text_label(f"{name}: {names}{more}, on {where}", "name", wrap=True)
        for widget in (heading, *((text_label(how, wrap=True),) if how else ())):
            column.addWidget(widget)
        for widget in (self.paint, self.prediction, text_label("Slices"), self.slices):
            column.addWidget(widget)
        for widget in (self.replace, self.problem, self.buttons):
            column.addWidget(widget)
        self.prediction.toggled.connect(self.replace.setDisabled)
        self.setMinimumWidth(420)

    def _take(self) -> None:
        target: Target = "prediction" if self.prediction.isChecked() else "paint"
        try:
            slices = parse_slices(self.slices.text())
            take_labels(self._workspace, self._labels, slices, target, self.replace.isChecked())
        except SessionError as error:
            self.problem.setText(str(error))
            return
        self.accept()


def take_labels(
    workspace: Workspace,
    labels: LabelMap,
    slices: set[int] | None,
    target: Target,
    replace: bool,
) -> None:
    """Bring labels into the session and its layers; Ctrl+Z takes them back.

    Raises
    ------
    SessionError
        If nothing can be taken.
    """
    sync = workspace.paint_sync
    sync.flush()
    left: tuple[int, ...] = ()
    taken: tuple[int, ...] = ()

    def bring() -> tuple[int, ...]:
        nonlocal taken, left
        changes = workspace.begun.tools.bring(labels, slices, target, replace)
        taken, left = changes.changed, changes.left
        return taken

    sync.change(target, bring)
    workspace.recolour()
    said = f"Labels taken on {len(taken)} slice{'s' if len(taken) > 1 else ''}"
    if left:
        said += f"; {len(left)} with paint of their own left alone"
    if workspace.current not in taken:
        workspace.go(taken[len(taken) // 2])
    workspace.error, workspace.said = "", said + "."
    workspace.suggestions.ask(workspace.session)


def foreign_layers(workspace: Workspace) -> list[Labels]:
    """Labels layers that somebody else has added."""
    layers = workspace.layers
    return [
        layer
        for layer in layers.viewer.layers
        if isinstance(layer, Labels) and not layers.has(layer) and layer is not layers.difference
    ]


def ask_layer(parent: QWidget, workspace: Workspace, layer: Labels) -> None:
    """Ask how a layer's labels are to be taken."""
    try:
        labels = labels_of(layer, workspace)
    except SessionError as error:
        workspace.fail(error)
        return
    how = str(layer.metadata.get(INCOMING, ""))
    dialog = IncomingDialog(parent, workspace, layer.name, labels, how)
    if INCOMING in layer.metadata:  # it was there to be asked about only
        viewer = workspace.layers.viewer
        dialog.accepted.connect(lambda: layer in viewer.layers and viewer.layers.remove(layer))
    dialog.show()


def labels_of(layer: Labels, workspace: Workspace) -> LabelMap:
    """Copy what a napari layer holds.

    Raises
    ------
    SessionError
        If it does not have the volume's shape, or values that are no label ids.
    """
    data = np.asarray(layer.data)
    if data.shape != workspace.volume.hu.shape:
        raise SessionError(
            f"the layer {layer.name!r} is {data.shape}, but the volume {workspace.volume.hu.shape} "
            "(z, y, x); save it to a file with its geometry, and open that"
        )
    if data.min(initial=0) < 0 or data.max(initial=0) > MAX_LABEL:
        raise SessionError(
            f"the layer {layer.name!r} holds values outside 0 to {MAX_LABEL}; renumber its labels"
        )
    mask = data.astype(np.uint8)
    ids = ids_in(mask)
    known = layer.metadata.get(LABELS, ())
    if not known and len(ids) == 1:
        red, green, blue = (round(255 * float(c)) for c in layer.get_color(ids[0])[:3])
        known = (Label(ids[0], layer.name, (red, green, blue)),)
    return LabelMap(mask, labels_for(ids, known))


def ask_file(parent: QWidget, workspace: Workspace) -> None:
    """Ask for a label file, then how it is to be taken."""
    path, _ = QFileDialog.getOpenFileName(parent, "Labels from a file", "", LABEL_FILES)
    if path:
        ask_path(parent, workspace, Path(path))


def ask_path(parent: QWidget, workspace: Workspace, path: Path) -> None:
    """Read a label file in the background, then ask how it is to be taken."""

    def ask(found: tuple[LabelMap, str]) -> None:
        IncomingDialog(parent, workspace, path.name, *found).show()

    workspace.call(lambda: read_for(path, workspace.volume), ask)


def parse_slices(text: str) -> set[int] | None:
    """Read ``"3, 10-20"``; an empty text is all slices.

    Raises
    ------
    SessionError
        If it is no list of slices.
    """
    if not text.strip():
        return None
    chosen: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:[-–]\s*(\d+)\s*)?", part)
        if not found:
            raise SessionError(f"{part.strip()!r} is no slice; write them like 3, 10-20")
        first, last = int(found[1]), int(found[2] or found[1])
        chosen |= set(range(min(first, last), max(first, last) + 1))
    return chosen
