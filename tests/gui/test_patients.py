"""From one patient to the next: earlier sessions, the queue, what is predicted meanwhile."""

import gc
import weakref

import numpy as np
import pytest
from patients_tools import anna_trained, keep, learn, predicted, ready
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from session_tools import LIVER, SPLEEN, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.io import write_volume
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume
from napari_diffseg.session import Queue, Session, earlier_sessions

pytestmark = pytest.mark.usefixtures("short_adaptation")


def test_the_next_patient_starts_from_earlier_sessions(window):
    keep(1)
    keep(2, (SPLEEN, LIVER))
    keep(3, train=False)
    window.open()
    dialog = learn(window, iterations=60)
    texts = [[dialog.table.item(row, column).text() for column in range(3)] for row in range(3)]
    assert texts[0][1] == "It keeps no slices yet: open its volume and train once."
    assert texts[1:] == [["tiny", "liver", "2"], ["tiny", "liver", "2"]]
    assert not dialog.table.item(0, 0).flags() & Qt.ItemFlag.ItemIsEnabled
    assert "2 patients, 4 slices" in dialog.labels.text()
    assert "liver (2)" in dialog.labels.text()
    dialog.table.item(1, 0).setCheckState(Qt.CheckState.Unchecked)
    assert "1 patient, 2 slices" in dialog.labels.text()
    dialog.table.item(2, 0).setCheckState(Qt.CheckState.Unchecked)
    assert not dialog.start_button.isEnabled()
    dialog.table.item(2, 0).setCheckState(Qt.CheckState.Checked)
    window.click(dialog.start_button)
    window.until(lambda: not dialog.running)
    window.until(lambda: window.session.trainer.round is not None)
    predicted(window)
    assert [label.name for label in window.session.paint.labels] == ["liver"]
    assert (window.workspace.layers.prediction.data == window.session.prediction.mask).all()
    assert "correct a slice and Accept it" in window.sentence
    window.paint_block(1, 1)
    window.train()
    window.idle()
    assert window.session.rounds.all[-1].parent == 2  # Train begins at what was learnt and adapted


def test_a_model_does_not_replace_the_work_on_a_patient_unasked(window):
    keep(1)
    window.painted_and_trained()
    dialog = learn(window)
    window.click(dialog.start_button)
    window.until(lambda: not dialog.running)
    window.until(dialog.use_button.isVisible)
    assert window.session.trainer.round.number == 1
    window.click(dialog.use_button)
    window.until(lambda: window.session.trainer.round.number == 2)
    predicted(window)


def test_learning_can_be_cancelled(window):
    keep(1)
    window.open()
    dialog = learn(window, iterations=100_000)
    window.click(dialog.start_button)
    window.until(lambda: "Learning" in dialog.said.text())
    window.click(dialog.stop_button)
    window.until(lambda: not dialog.running)
    assert "Cancelled" in dialog.said.text()
    assert not Queue().model.exists()
    assert window.session.trainer.round is None


def test_the_next_patient_is_predicted_while_one_is_corrected(cts, window):
    patients = anna_trained(window, 1, 4)
    window.until(lambda: bool(patients.queue.cases[1].model))  # nobody has opened it
    assert window.workspace.volume.name == "anna"
    window.click(patients.next_button)
    ready(window, "bert")
    assert [layer.name for layer in window.viewer.layers if "anna" in layer.name] == []
    predicted(window)
    assert window.session.rounds.all[0].settings is None
    assert [label.name for label in window.session.paint.labels] == ["liver"]
    assert [case.finished for case in patients.queue.cases] == [True, False, False]
    assert "A model of other patients predicted this one" in window.sentence
    assert [case.finished for case in Queue().cases] == [True, False, False]
    assert {found.name for found in earlier_sessions()} >= {"anna"}


def test_a_loaded_model_is_for_the_next_patient_too(cts, window, tmp_path):
    """Although it has adapted to the one who is open, which fits nobody else."""
    with Session(tiny_volume(3), [LIVER], tiny_backbone(), folder=False) as other:
        trained(other)
        other.trainer.save_model(tmp_path / "earlier.safetensors")
    patients = window.panel.patients
    window.click(patients.next_button)
    ready(window, "anna")
    window.workspace.load_model(tmp_path / "earlier.safetensors", by_name=True)
    predicted(window)
    window.until(lambda: bool(patients.queue.cases[1].model))
    assert not window.workspace.error


def test_work_on_a_patient_is_there_again_and_the_queue_survives(cts, window):
    patients = window.panel.patients
    window.click(patients.next_button)
    ready(window, "anna")
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    window.paint_block(2, 1)
    window.click(patients.queue_button)
    table = patients._table
    window.until(lambda: table.table.rowCount() == 3)
    table.table.selectRow(2)
    window.click(table.buttons["open"])
    ready(window, "carl")
    window.until(lambda: table.table.item(2, 0).text() == "● carl")
    assert table.table.item(0, 1).text() == "painted"
    table.table.selectRow(0)
    table.table.itemActivated.emit(table.table.item(0, 0))
    ready(window, "anna")  # without being asked whether to restore it
    assert (window.workspace.layers.paint.data[2] == block()).all()
    assert [row.state for row in Queue().rows()] == ["painted", "waiting", "waiting"]


def test_the_next_patient_is_shown_in_full(cts, window):
    """A CT of another size and place: the camera goes there, and to the middle slice."""
    small = tiny_volume(11)
    affine = small.geometry.affine @ np.diag([0.25, 0.25, 2, 1])
    affine[:3, 3] += (300, -200, 500)
    hu = np.concatenate([small.hu] * 2)
    geometry = Geometry.from_affine(affine, hu.transpose().shape)
    write_volume(cts / "bert.nii.gz", Volume(hu, geometry, "bert"))
    window.click(window.panel.patients.next_button)
    ready(window, "anna")
    camera = window.viewer.scene.camera
    before = camera.zoom
    window.click(window.panel.patients.next_button)
    ready(window, "bert")
    window.until(lambda: camera.zoom != before)
    ct = window.workspace.layers.ct
    low, high = ct.extent.world[:, 1:]
    np.testing.assert_allclose(camera.center[1:], (low + high) / 2, atol=1)
    assert camera.zoom == pytest.approx(4 * before, rel=0.1)
    assert window.viewer.dims.current_step[0] == len(hu) // 2


def test_a_patient_who_is_put_away_takes_no_memory(cts, window):
    anna_trained(window)
    voxels = [
        weakref.ref(layer.data)
        for layer in (window.workspace.layers.ct, *window.workspace.layers.own())
    ]
    assert len(voxels) == 4
    sessions = [weakref.ref(window.session)]
    for name in ("bert", "carl"):
        window.click(window.panel.patients.next_button)
        ready(window, name)
        predicted(window)
        sessions.append(weakref.ref(window.session))

    def gone():
        gc.collect()
        return all(one() is None for one in (*voxels, *sessions[:-1]))

    window.until(gone)


def test_the_queue_dialog(cts, window, tmp_path, monkeypatch):
    patients = window.panel.patients
    write_volume(tmp_path / "dora.nii.gz", tiny_volume(20))
    window.click(patients.queue_button)
    dialog = patients._table
    window.until(lambda: dialog.table.rowCount() == 3)
    assert not dialog.buttons["open"].isEnabled()
    chosen = lambda *_: ([str(tmp_path / "dora.nii.gz")], "")  # noqa: E731
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", chosen)
    window.click(dialog.buttons["files"])
    window.until(lambda: dialog.table.rowCount() == 4)
    dialog.table.selectRow(0)
    window.click(dialog.buttons["finish"])
    window.until(lambda: dialog.table.item(0, 1).text() == "finished")
    assert dialog.buttons["finish"].text() == "Not finished"
    dialog.table.selectRow(1)
    window.click(dialog.buttons["remove"])
    window.until(lambda: dialog.table.rowCount() == 3)
    assert [case.name for case in Queue().cases] == ["anna", "carl", "dora"]
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "table"), "Table (*.csv)")
    )
    window.click(dialog.buttons["save"])
    assert (tmp_path / "table.csv").read_text().splitlines()[1].startswith("anna,finished")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    window.click(dialog.buttons["folder"])
    assert len(patients.queue.cases) == 3


def test_a_volume_that_is_gone_is_said_and_nothing_is_lost(cts, window):
    patients = window.panel.patients
    window.click(patients.next_button)
    ready(window, "anna")
    (cts / "bert.nii.gz").unlink()
    window.click(patients.next_button)
    window.until(lambda: "bert.nii.gz" in window.sentence)
    assert window.workspace.volume.name == "anna"
    assert window.workspace.session is not None


def test_without_a_queue_the_buttons_say_why(window):
    window.open()
    patients = window.panel.patients
    window.panel.refresh()
    patients.refresh()
    assert not patients.next_button.isEnabled()
    assert patients.next_button.toolTip() == "Add patients to the queue first."
    assert patients.queue_button.isEnabled()


def test_pieces_astray_are_removed_in_a_step_that_undo_takes_back(window, monkeypatch, tmp_path):
    from dataclasses import replace

    from session_tools import predicting

    from napari_diffseg.session import trainer

    window.painted_and_trained()
    session = window.session
    segmenter = session.trainer.segmenter
    segmenter.card = replace(segmenter.card, single_pieces=("liver",))
    astray = block()
    astray[20:22, 20:22] = 1
    monkeypatch.setattr(trainer, "predict", predicting(astray))
    window.click(window.panel.result.buttons["predict"])
    window.idle()
    layer = window.workspace.layers.prediction
    assert (layer.data == block()).all()
    assert "Ctrl+Z brings them back" in window.sentence
    assert not session.prediction.edited
    layer.undo()
    window.until(lambda: (session.prediction.mask[0] == astray).all())
    assert session.prediction.edited  # it is the user's word now
