"""Labels made elsewhere, taken through the window."""

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QMenu
from session_tools import SHAPE, block, tiny_volume

from napari_diffseg.gui.incoming import IncomingDialog
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import write_mask
from napari_diffseg.session import SliceState

KIDNEY = Label(5, "kidney", (10, 200, 30))


def saved(folder, name, *slices):
    mask = np.zeros(SHAPE, np.uint8)
    for z in slices:
        mask[z] = block(5)
    write_mask(folder / name, mask, tiny_volume().geometry, [KIDNEY])
    return mask


def dialog(window):
    def shown():
        return [d for d in window.panel.findChildren(IncomingDialog) if d.isVisible()]

    window.until(lambda: bool(shown()))
    return shown()[-1]


def agree(window, asked):
    button = asked.buttons.button(QDialogButtonBox.StandardButton.Ok)
    window.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_a_dropped_label_file_is_taken_as_paint(window, tmp_path):
    mask = saved(tmp_path, "made.seg.nrrd", 1, 4)
    window.open()
    window.viewer.open([tmp_path / "made.seg.nrrd"], plugin="napari-diffseg")
    asked = dialog(window)
    assert len(window.panel.desk.workspaces) == 1  # it was not taken for a CT
    asked.slices.setText("1, 9")
    agree(window, asked)
    assert "there is no slice 9" in asked.problem.text()
    asked.slices.setText("")
    agree(window, asked)
    assert "made.seg.nrrd" not in window.viewer.layers
    session, layer = window.session, window.workspace.layers.paint
    assert [label.name for label in session.paint.labels] == ["kidney"]
    assert np.array_equal(session.paint.mask, mask)
    assert np.array_equal(layer.data, mask)
    assert [session.paint.state(z) for z in (1, 4)] == [SliceState.PAINTED] * 2
    assert window.sentence.startswith("Labels taken on 2 slices.")

    # One step of undo takes all of it back, and one of redo brings it all again.
    window.viewer.layers.selection.active = layer
    window.undo()
    window.until(lambda: not session.paint.states.any())
    layer.redo()
    window.until(lambda: session.paint.state(4) == SliceState.PAINTED)
    window.workspace.paint_sync.flush()
    assert np.array_equal(session.paint.mask, mask)
    assert session.paint.state(1) == SliceState.PAINTED


def test_an_undo_gives_a_replaced_slice_its_state_back(window, tmp_path):
    saved(tmp_path, "made.nrrd", 1)
    window.open()
    window.add_label("kidney")
    window.click(window.panel.slices.buttons["scribbles"])
    window.workspace.go(1)
    window.drag((20, 10), (20, 20))
    scribbles = window.session.paint.mask[1].copy()
    assert window.session.paint.state(1) == SliceState.SCRIBBLED
    window.viewer.open([tmp_path / "made.nrrd"], plugin="napari-diffseg")
    asked = dialog(window)
    asked.replace.setChecked(True)
    agree(window, asked)
    assert window.session.paint.state(1) == SliceState.PAINTED
    window.viewer.layers.selection.active = window.workspace.layers.paint
    window.undo()
    assert np.array_equal(window.session.paint.mask[1], scribbles)
    assert window.session.paint.state(1) == SliceState.SCRIBBLED


def test_labels_from_a_file_of_another_grid_as_prediction(window, tmp_path, monkeypatch):
    affine = np.diag([-4.0, -4.0, 5.0, 1.0])
    affine[:2, 3] = -1
    coarse = Geometry.from_affine(affine, (16, 16, 6))
    mask = np.zeros(coarse.canonical_shape, np.uint8)
    mask[2, 4:8, 4:8] = 5
    write_mask(tmp_path / "coarse.nii.gz", mask, coarse, [KIDNEY])
    window.open()
    path = str(tmp_path / "coarse.nii.gz")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (path, ""))
    choose(window, "Labels from a file…")
    asked = dialog(window)
    assert any("resampled" in label.text() for label in asked.findChildren(type(asked.problem)))
    asked.prediction.setChecked(True)
    agree(window, asked)
    session = window.session
    assert np.array_equal(session.prediction.mask[2], block(5))
    assert session.prediction.edited == {2}
    assert np.array_equal(window.workspace.layers.prediction.data, session.prediction.mask)
    assert not session.paint.states.any()


def test_labels_from_a_layer_of_the_user(window):
    window.open()
    data = np.zeros(SHAPE, np.int32)
    data[3] = block(1)
    window.viewer.add_labels(data, name="bones")
    window.viewer.add_labels(np.zeros((4, 4), int), name="other shape")
    choose(window, "Labels of the layer “other shape”")
    assert "'other shape' is (4, 4)" in window.sentence
    choose(window, "Labels of the layer “bones”")
    agree(window, dialog(window))
    assert [label.name for label in window.session.paint.labels] == ["bones"]
    assert np.array_equal(window.session.paint.mask[3], block(1))


def choose(window, text):
    """Open the menu of Import… and take an entry."""
    window.click(window.panel.labels.buttons["import"])
    window.until(lambda: isinstance(QApplication.activePopupWidget(), QMenu))
    menu = QApplication.activePopupWidget()
    (action,) = [a for a in menu.actions() if a.text() == text]
    QTimer.singleShot(0, menu.close)
    action.trigger()
    window.qtbot.wait(20)
