"""The window, driven through its real widgets, mouse and keys."""

import json

import nibabel as nib
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QDialogButtonBox, QFileDialog
from session_tools import tiny_volume

from napari_diffseg.session import Session, SliceState


def test_paint_with_the_mouse(window):
    assert window.sentence.startswith("Drag a CT onto the viewer")
    assert window.panel.train.buttons["train"].toolTip() == "Open a CT first."
    window.open()
    assert window.sentence.startswith("Add a label")
    assert window.panel.train.buttons["train"].toolTip() == "Add a label first."
    assert [layer.name for layer in window.viewer.layers] == [
        "tiny", "confidence", "prediction", "paint",
    ]  # fmt: skip
    assert tuple(window.workspace.layers.ct.scale) == (5.0, 2.0, 2.0)

    label = window.add_label("liver")
    assert window.viewer.layers.selection.active.name == "paint"
    assert window.sentence == "Paint liver on two or three slices, then Train."

    navigator = window.panel.slices.navigator
    window.qtbot.mouseClick(
        navigator, Qt.MouseButton.LeftButton, pos=QPoint(round(navigator.centre_of(2)), 15)
    )
    assert window.workspace.current == 2
    assert window.session.trainer.current == 2
    paint = window.workspace.layers.paint
    paint.brush_size = 5
    window.drag((10, 10), (10, 20))
    assert window.session.paint.state(2) == SliceState.PAINTED
    assert (window.session.paint.mask[2, 10, 10:21] == label).all()
    assert np.array_equal(window.session.paint.mask, paint.data)
    assert (window.session.paint.mask[[0, 1, 3, 4, 5]] == 0).all()

    # An undone stroke leaves no truth behind; a redone one brings it back.
    stroke = window.session.paint.mask[2].copy()
    window.undo()
    assert not window.session.paint.mask.any()
    assert window.session.paint.state(2) == SliceState.UNPAINTED
    window.viewer.layers.selection.active.redo()
    assert np.array_equal(window.session.paint.mask[2], stroke)

    # An undo on a slice that is not in view is found, too.
    window.workspace.go(5)
    window.undo()
    window.until(lambda: not window.session.paint.mask.any())

    # Scribbles: the switch, and a brush for background.
    window.panel.refresh()
    window.click(window.panel.slices.buttons["scribbles"])
    window.panel.refresh()
    table = window.panel.labels.table
    assert table.item(1, 1).text() == "background"
    window.drag((10, 10), (10, 20))
    table.setCurrentCell(1, 1)
    assert paint.selected_label == 255
    window.drag((25, 10), (25, 20))
    assert window.session.paint.state(5) == SliceState.SCRIBBLED
    assert set(np.unique(window.session.paint.mask[5])) == {0, label, 255}
    window.click(window.panel.slices.buttons["full"])
    assert window.session.paint.state(5) == SliceState.PAINTED

    # A locked label neither gains nor loses.
    before = window.session.paint.mask[5].copy()
    table.cellClicked.emit(0, 5)
    window.drag((10, 10), (25, 10))
    assert np.array_equal(window.session.paint.mask[5] == label, before == label)
    assert np.array_equal(paint.data[5], window.session.paint.mask[5])

    # A hidden label is not drawn.
    table.cellClicked.emit(0, 6)
    assert window.workspace.layers.paint.colormap.map(label)[-1] == 0

    window.click(window.panel.slices.buttons["clear"])
    assert not window.session.paint.mask.any()
    assert not paint.data.any()


def test_the_colour_of_a_label_is_chosen(window):
    window.open()
    label = window.add_label("liver")
    window.panel.refresh()
    table = window.panel.labels.table
    where = table.visualItemRect(table.item(0, 0)).center()
    window.qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    window.qtbot.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=where)
    (dialog,) = table.window().findChildren(QColorDialog)
    assert dialog.windowTitle() == "Colour of liver"
    assert not dialog.isModal()
    dialog.setCurrentColor(QColor(10, 20, 200))
    agree = dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Ok)
    window.qtbot.mouseClick(agree, Qt.MouseButton.LeftButton)
    assert window.session.paint.labels[0].colour == (10, 20, 200)
    drawn = window.workspace.layers.paint.colormap.map(label)
    np.testing.assert_allclose(drawn, (10 / 255, 20 / 255, 200 / 255, 1), atol=1e-6)
    window.panel.refresh()
    swatch = table.item(0, 0).icon().pixmap(16, 16).toImage().pixelColor(8, 8)
    assert swatch.getRgb()[:3] == (10, 20, 200)


def test_train_predict_correct_accept_export(window, tmp_path, monkeypatch):
    window.painted_and_trained()
    session, layers = window.session, window.workspace.layers
    truth = session.paint.mask.copy()
    assert len(session.rounds.all) == 1
    assert session.rounds.all[0].slices == (1, 4)
    assert window.workspace.predicted.all()
    assert np.array_equal(layers.prediction.data, session.prediction.mask)
    assert np.array_equal(session.paint.mask, truth)
    assert np.array_equal(layers.paint.data, truth)
    recorded = [loss for _, loss in session.rounds.all[0].losses]
    np.testing.assert_allclose(window.workspace.runner.losses, recorded, atol=1e-5)
    assert window.panel.train.buttons["train"].text() == "Train again"
    assert window.panel.train.buttons["continue"].isVisible()
    assert not window.panel.train.buttons["stop"].isVisible()

    # Strokes from before a prediction must not come back into it by Ctrl+Z.
    window.workspace.go(2)
    window.viewer.layers.selection.active = layers.prediction
    layers.prediction.mode = "paint"
    layers.prediction.selected_label = 1
    window.drag((20, 20), (20, 26))
    corrected = session.prediction.mask[2].copy()
    assert session.prediction.edited == {2}
    assert (corrected[20, 20:27] == 1).all()
    assert "corrected 1 slice" in window.sentence
    window.click(window.panel.result.buttons["accept"])
    assert session.paint.state(2) == SliceState.ACCEPTED
    assert np.array_equal(session.paint.mask[2], corrected)
    assert np.array_equal(layers.paint.data[2], corrected)
    window.panel.refresh()
    assert window.panel.result.buttons["accept"].toolTip().startswith("This slice is painted or")

    window.click(window.panel.train.buttons["continue"])
    window.idle()
    assert len(session.rounds.all) == 2
    assert session.rounds.all[1].parent == 1
    after = session.prediction.mask.copy()
    window.viewer.layers.selection.active = layers.prediction
    window.undo()
    assert np.array_equal(session.prediction.mask, after)

    window.click(window.panel.result.buttons["difference"])
    changed = layers.difference.data.astype(bool)
    assert np.array_equal(changed, after != window.workspace.runner.previous)
    window.click(window.panel.result.buttons["difference"])
    assert layers.difference is None
    window.click(window.panel.result.buttons["confidence"])
    assert layers.confidence.visible
    window.click(window.panel.result.buttons["contour"])
    assert layers.prediction.contour == 2
    window.click(window.panel.result.buttons["next"])
    assert session.paint.states[window.workspace.current] == SliceState.UNPAINTED
    assert window.workspace.current in window.panel.slices.navigator.model.suggested

    def export(button, name):
        path = tmp_path / name
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
        window.click(button)
        window.until(path.exists)
        window.until(lambda: name in window.sentence)
        return path

    mask = export(window.panel.export.buttons["mask"], "mask.nii.gz")
    stored = nib.load(mask)
    geometry = window.workspace.volume.geometry
    np.testing.assert_allclose(stored.affine, geometry.affine, atol=1e-5)
    assert np.array_equal(geometry.to_canonical(np.asarray(stored.dataobj)), session.merged())
    report = json.loads(export(window.panel.export.buttons["report"], "report.json").read_text())
    assert report
    model = export(window.panel.export.buttons["model"], "model.safetensors")

    window.panel.more.fold.click()
    window.panel.more.rounds.setCurrentRow(1)
    window.click(window.panel.more.buttons["restore"])
    window.until(lambda: session.trainer.round.number == 1)
    window.idle()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(model), ""))
    window.click(window.panel.more.buttons["load"])
    window.until(lambda: len(session.rounds.all) == 3 and bool(window.workspace.predicted.all()))
    window.idle()
    assert session.trainer.round.settings is None


def test_a_stroke_in_another_plane_makes_no_slice_painted_in_full(window):
    window.open()
    label = window.add_label("liver")
    window.paint_block(1, label)
    session, paint = window.session, window.workspace.layers.paint
    window.viewer.dims.order = (1, 0, 2)  # coronal
    window.viewer.dims.set_point(1, 20)
    paint.brush_size = 8
    paint.paint((3, 10, 16), label)
    window.until(lambda: (session.paint.states > 0).sum() > 1)
    window.workspace.paint_sync.flush()
    touched = np.flatnonzero(paint.data.any(axis=(1, 2))).tolist()
    assert len(touched) > 3
    states = {z: session.paint.state(z) for z in touched}
    assert states.pop(1) == SliceState.PAINTED  # as it was
    assert set(states.values()) == {SliceState.SCRIBBLED}

    # The same stroke, undone and done again, and seen only after the view was rolled back.
    window.viewer.layers.selection.active.undo()
    window.viewer.layers.selection.active.redo()
    window.viewer.dims.order = (0, 1, 2)
    window.workspace.paint_sync.flush()
    assert {session.paint.state(z) for z in states} == {SliceState.SCRIBBLED}


def test_a_brush_that_reaches_into_other_slices_scribbles_there(window):
    window.open()
    label = window.add_label("liver")
    session, paint = window.session, window.workspace.layers.paint
    window.workspace.go(3)
    paint.n_edit_dimensions, paint.brush_size = 3, 8
    paint.paint((3, 10, 16), label)
    window.until(lambda: (session.paint.states > 0).sum() > 2)
    window.workspace.paint_sync.flush()
    assert session.paint.state(3) == SliceState.PAINTED
    assert session.paint.state(2) == session.paint.state(4) == SliceState.SCRIBBLED


def test_paint_that_an_undo_brings_back_out_of_view_is_what_it_was(window):
    window.open()
    label = window.add_label("liver")
    window.paint_block(2, label)
    window.click(window.panel.slices.buttons["clear"])
    window.workspace.go(5)
    window.viewer.layers.selection.active = window.workspace.layers.paint
    window.undo()
    window.until(lambda: bool(window.session.paint.states[2]))
    assert window.session.paint.state(2) == SliceState.PAINTED


def test_earlier_work_is_offered(window):
    ct = window.open()
    window.session.paint.add_label("liver")
    window.paint_block(2, 1)
    truth = window.session.paint.mask.copy()
    window.viewer.layers.remove(ct)
    window.until(lambda: len(window.viewer.layers) == 0)
    assert window.workspace is None
    assert window.sentence.startswith("Drag a CT")

    ct = window.open(wait=False)
    window.until(lambda: window.workspace.earlier is not None)
    assert "1 slice painted" in window.sentence
    assert window.panel.banner.choice.isVisible()
    assert window.panel.train.buttons["train"].toolTip().startswith("Restore the earlier work")
    window.click(window.panel.banner.restore_button)
    assert np.array_equal(window.session.paint.mask, truth)
    assert np.array_equal(window.workspace.layers.paint.data, truth)
    window.panel.refresh()
    assert not window.panel.banner.choice.isVisible()
    window.viewer.layers.remove(ct)

    window.open(wait=False)
    window.until(lambda: window.workspace is not None and window.workspace.earlier is not None)
    window.panel.refresh()
    window.click(window.panel.banner.fresh_button)
    assert not window.session.paint.mask.any()
    assert window.session.paint.labels == ()


def test_closing_the_panel_keeps_the_work_and_tidies_up(window):
    ct = window.open()
    window.session.paint.add_label("liver")
    window.paint_block(2, 1)
    truth = window.session.paint.mask.copy()
    window.dock.destroyOnClose()  # the x of the dock
    assert list(window.viewer.layers) == [ct]
    again = Session.recover(tiny_volume())
    assert np.array_equal(again.paint.mask, truth)
    again.close()


def test_layers_come_and_go(window):
    window.viewer.add_image(np.zeros((4, 4)), units="mm", name="photo")
    assert "“photo” was not opened by napari-diffseg" in window.sentence
    first = window.open()
    window.session.paint.add_label("liver")
    window.paint_block(2, 1)
    window.viewer.layers.remove(window.workspace.layers.paint)
    window.until(lambda: "paint" in window.viewer.layers)
    assert np.array_equal(window.workspace.layers.paint.data, window.session.paint.mask)
    window.paint_block(3, 1)
    assert window.session.paint.state(3) == SliceState.PAINTED

    second = window.open(tiny_volume(seed=1), wait=False)
    window.until(lambda: window.session is not None and window.workspace.layers.ct is second)
    assert len(window.panel.desk.workspaces) == 2
    assert window.workspace.layers.paint.name.startswith("paint · tiny")
    assert not window.session.paint.mask.any()
    window.panel.volume.chosen.emit(0)
    assert window.workspace.layers.ct is first
    assert window.session.paint.mask.any()
    assert not second.visible
    assert first.visible
    window.viewer.layers.remove(first)
    window.until(lambda: len(window.viewer.layers) == 5)
    assert window.workspace.layers.ct is second
    assert window.workspace.layers.paint.name == "paint"
