"""The Volume section: what is open, where the network runs, the CT window."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QSizePolicy

from napari_diffseg.gui.elided import ElidedLabel
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.orientation import PRESETS
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.shortcuts import with_key
from napari_diffseg.gui.theme import group, row, text_label, tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.io.volume import Volume

_CHIP_LETTERS = 17  # at most, so that a long GPU's name leaves room for the CT's


class VolumeSection(Section):
    """Name, size, spacing, findings, chips, window presets; Open where nothing is open."""

    window = Signal(str)  # name of a preset
    open_file = Signal()
    open_folder = Signal()
    open_sample = Signal()
    card = Signal()
    chosen = Signal(int)  # index of the volume

    def __init__(self) -> None:
        super().__init__("Volume")
        self.name = ElidedLabel()
        self.name.setObjectName("name")
        self.choice = QComboBox()
        self.choice.setAccessibleName("Open volumes")
        self.choice.setToolTip("Which of the open volumes the panel works on")
        self.choice.activated.connect(self.chosen)
        self.choice.setMinimumContentsLength(8)
        self.choice.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.facts, self.notes = text_label(wrap=True), text_label(wrap=True)
        self.device, self.backbone = tool(style="chip"), tool(style="chip")
        self.device.setAccessibleName("Device")
        self.backbone.setAccessibleName("Backbone")
        self.backbone.clicked.connect(self.card)
        self.chips = group(self.device, self.backbone)
        self.chips.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Preferred)
        line = row(self.choice, self.name, self.chips)
        line.setStretch(2, 0)
        self.body.addLayout(line)
        self._presets = {name: tool(name) for name in PRESETS}
        for name, button in self._presets.items():
            button.clicked.connect(lambda _=False, n=name: self.window.emit(n))
        self.presets = group(*self._presets.values())
        file, folder, sample = tool("Open file…"), tool("DICOM folder…"), tool("Sample")
        sample.setToolTip("Open the sample CT: chest and upper abdomen, LIDC-IDRI-0001")
        file.setToolTip("Open a NIfTI, NRRD or MHA file, or a DICOM file with its series")
        folder.setToolTip("Open the CT of a folder of DICOM files")
        file.clicked.connect(self.open_file)
        folder.clicked.connect(self.open_folder)
        sample.clicked.connect(self.open_sample)
        self.openers = group(file, folder, sample)
        for widget in (
            *(self.facts, self.notes),
            *(self.presets, self.openers),
        ):
            self.body.addWidget(widget)

    def show_volume(self, volume: Volume | None, names: tuple[str, ...], index: int) -> None:
        """Show which volume is worked on."""
        there = volume is not None
        for widget in (self.facts, self.chips, self.presets):
            widget.setVisible(there)
        self.openers.setVisible(not there)
        self.choice.setVisible(len(names) > 1)
        self.name.setVisible(there and len(names) == 1)
        self.notes.setVisible(volume is not None and bool(volume.geometry.notes))
        if volume is None:
            return
        self.choice.clear()
        self.choice.addItems(names)
        self.choice.setCurrentIndex(index)
        self.name.setText(volume.name)
        z, y, x = volume.hu.shape
        dz, dy, dx = volume.geometry.spacing
        slices = "1 slice" if z == 1 else f"{z} slices"
        self.facts.setText(f"{slices} of {y} × {x} · {dz:.3g} × {dy:.3g} × {dx:.3g} mm")
        self.notes.setText("⚠ " + ", ".join(volume.geometry.notes))

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Show where the network runs, and the pre-trained network that training begins at."""
        for name, button in self._presets.items():
            width, level = PRESETS[name]
            button.setToolTip(with_key(name, f"Window W{width:g} L{level:g}"))
        device = device_text()
        metrics = self.device.fontMetrics()
        width = _CHIP_LETTERS * metrics.averageCharWidth()
        self.device.setText(metrics.elidedText(device, Qt.TextElideMode.ElideRight, width))
        self.device.setToolTip(f"Where the network runs: {device}")
        if workspace is not None:
            error = workspace.backbone_error
            unknown = "⚠ no backbone" if error else "…"
            self.backbone.setText(workspace.backbone_name or unknown)
            self.backbone.setToolTip(error or "What training begins at; click for its card")


def device_text() -> str:
    """Say where the network runs: ``"CUDA · A4000"`` or ``"CPU · 1 thread"``."""
    import torch

    if torch.cuda.is_available():
        return f"CUDA · {torch.cuda.get_device_name().removeprefix('NVIDIA ')}"
    threads = torch.get_num_threads()
    return f"CPU · {threads} thread{'s' if threads > 1 else ''}"
