"""File dialogs: opening a CT, exporting mask, model and report, loading a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QFileDialog, QInputDialog, QTextBrowser, QVBoxLayout, QWidget

from napari_diffseg.gui.io import volume_layer
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.io.dicom import list_series
from napari_diffseg.io.sample import sample_volume_path
from napari_diffseg.io.volume import read_volume
from napari_diffseg.session.session import Session

VOLUMES = "CT volumes (*.nii *.nii.gz *.hdr *.img *.nrrd *.nhdr *.mha *.mhd *.dcm);;All files (*)"
_MASKS = ";;".join(
    (
        "NIfTI (*.nii.gz)",
        "3D Slicer segmentation (*.seg.nrrd)",
        "NRRD (*.nrrd)",
        "MetaImage (*.mha)",
        "NIfTI, not compressed (*.nii)",
        "DICOM-SEG, which names the patient (*.dcm)",
        "RTSTRUCT, which names the patient (*.rtstruct.dcm)",
    )
)
_MODELS = "Model (*.safetensors)"
_EXPORTS: dict[str, tuple[str, str, str, str, Callable[[Session, Path], Any]]] = {
    "Mask": ("Export the mask", "{}-mask", ".nii.gz", _MASKS, Session.export_mask),
    "Model": (
        *("Save the model", "model", ".safetensors", _MODELS),
        lambda session, path: session.trainer.save_model(path),
    ),
    "Numbers": (
        *("Export the numbers", "{}-numbers", ".html"),
        *("Page with pictures (*.html);;Table (*.csv)", Session.export_numbers),
    ),
    "Report": ("Export the report", "{}-report", ".json", "Report (*.json)", Session.export_report),
}
"""Title of the dialog, file name, ending, filters, and what writes the file."""


def open_file(parent: QWidget, viewer: Any) -> None:
    """Ask for a file and open it."""
    path, _ = QFileDialog.getOpenFileName(parent, "Open a CT", "", VOLUMES)
    if path:
        open_path(viewer, Path(path))


def open_folder(parent: QWidget, viewer: Any) -> None:
    """Ask for a DICOM folder, and for the series where there are several."""
    path = QFileDialog.getExistingDirectory(parent, "Open a DICOM folder")
    if not path:
        return
    series = list_series(path)
    uid = None
    if len(series) > 1:
        texts = [f"{n + 1}. {s.description} · {s.slices} slices" for n, s in enumerate(series)]
        text, agreed = QInputDialog.getItem(
            parent, "Open a DICOM folder", "The folder holds several series:", texts, 0, False
        )
        if not agreed:
            return
        uid = series[texts.index(text)].uid
    open_path(viewer, Path(path), uid)


def open_path(viewer: Any, path: Path, series: str | None = None) -> None:
    """Read a CT and add its layer.

    Raises
    ------
    VolumeError
        If there is no usable volume at the path.
    """
    data, kwargs, _ = volume_layer(read_volume(path, series))
    viewer.add_image(data, **kwargs)


def open_sample(viewer: Any) -> None:
    """Open the sample CT."""
    open_path(viewer, sample_volume_path())


def show_card(parent: QWidget, name: str, card: dict[str, Any]) -> None:
    """Show a backbone's card beside the window, without holding it up."""
    text = QTextBrowser()
    text.setMarkdown("\n".join(f"- **{key}**: {value}" for key, value in card.items()))
    dialog = QDialog(parent)
    dialog.setWindowTitle(f"Backbone {name}")
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    QVBoxLayout(dialog).addWidget(text)
    dialog.resize(460, 420)
    dialog.show()


def export(parent: QWidget, workspace: Workspace, what: str) -> None:
    """Ask where to, and write the ``Mask``, ``Model``, ``Numbers`` or ``Report``."""
    title, name, ending, filters, write = _EXPORTS[what]
    suggested = name.format(workspace.volume.name) + ending
    path, chosen = QFileDialog.getSaveFileName(parent, title, suggested, filters)
    if path:
        session = workspace.begun
        workspace.save(with_ending(path, chosen, ending), lambda p: write(session, p), what)


def load_model(parent: QWidget, workspace: Workspace) -> None:
    """Ask for a saved model, and predict with it."""
    path, _ = QFileDialog.getOpenFileName(parent, "Load a model", "", _MODELS)
    if path:
        workspace.load_model(Path(path))


def with_ending(path: str, chosen: str, default: str) -> Path:
    """Complete a file name that has no ending with that of the chosen filter.

    The filter is a text such as ``"NRRD (*.nrrd)"``; where it names no ending, it is ``default``.
    """
    known = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd", ".dcm", ".safetensors",
             ".json", ".html", ".csv")  # fmt: skip
    if path.lower().endswith(known):
        return Path(path)
    ending = chosen.partition("(*")[2].partition(")")[0] or default
    return Path(path + ending)
