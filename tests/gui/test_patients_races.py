"""What happens while one patient is put away and the next is opened."""

import threading
import time

import numpy as np
import pytest
from patients_tools import anna_trained, keep, learn, ready
from qtpy.QtCore import Qt
from session_tools import LIVER, block

from napari_diffseg.io import read_volume
from napari_diffseg.session import Queue, Session, SessionError

pytestmark = pytest.mark.usefixtures("short_adaptation")


def test_escape_gives_learning_up(window):
    """Qt sends no close event then: it went on unseen, and wrote the next patient's model."""
    keep(1)
    window.open()
    dialog = learn(window, iterations=3000)
    window.click(dialog.start_button)
    window.until(lambda: "Learning" in dialog.said.text())
    task, ended = dialog._task, []
    task.finished.connect(ended.append)
    window.qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    window.until(lambda: window.panel.patients._learning is None)
    assert task.stopping
    window.qtbot.wait(100)
    assert not Queue().model.exists()


def test_escape_while_the_queue_is_read(cts, window, monkeypatch):
    """What was read came to a table that was gone."""
    patients = window.panel.patients
    reading, rows = threading.Event(), patients.queue.rows

    def slowly():
        reading.set()
        time.sleep(0.3)
        return rows()

    monkeypatch.setattr(patients.queue, "rows", slowly)
    window.click(patients.queue_button)
    window.until(reading.is_set)
    window.qtbot.keyClick(patients._table, Qt.Key.Key_Escape)
    window.until(lambda: patients._table is None)
    window.qtbot.wait(600)  # an error in a slot would fail the test


def test_who_comes_next_is_known_while_a_session_is_looked_for(cts, window, monkeypatch):
    """Which takes seconds with a large CT: Next patient went back to the first one meanwhile."""
    patients = window.panel.patients
    window.click(patients.next_button)
    ready(window, "anna")  # where nothing is trained, so that it is not finished
    looking, go_on, recover = threading.Event(), threading.Event(), Session.recover

    def slowly(*args, **kwargs):
        looking.set()
        assert go_on.wait(60)
        return recover(*args, **kwargs)

    monkeypatch.setattr(Session, "recover", slowly)
    window.click(patients.next_button)
    window.until(looking.is_set)
    assert window.workspace.volume.name == "bert"
    name = patients.next_case().name
    go_on.set()
    assert name == "carl"
    ready(window, "bert")


def test_a_patient_who_could_not_be_opened_goes_on_being_predicted(cts, window, monkeypatch):
    patients, runs = anna_trained(window), []
    window.until(lambda: bool(patients.queue.cases[1].model) and patients._task is None)

    def endless(case):
        runs.append(case.name)
        while True:
            time.sleep(0.01)
            yield 0.5

    monkeypatch.setattr(patients.queue, "prepare", endless)
    patients._prepared = ()
    patients.refresh()
    window.until(lambda: bool(runs))

    def broken(path):
        raise ValueError(f"{path}: is damaged")

    monkeypatch.setattr("napari_diffseg.gui.patients.read_volume", broken)
    window.click(patients.next_button)
    window.until(lambda: "is damaged" in window.workspace.error)
    window.until(lambda: len(runs) == 2, timeout=5000)


def test_a_patient_whose_work_cannot_be_saved_stays(cts, window, monkeypatch):
    patients = window.panel.patients
    window.click(patients.next_button)
    ready(window, "anna")

    def full():
        raise SessionError("autosave failed (No space left on device)")

    monkeypatch.setattr(window.session, "save", full)
    window.click(patients.next_button)
    window.until(lambda: patients._opening is None)
    assert window.workspace.error.startswith("autosave failed")
    assert window.workspace.volume.name == "anna"


def test_a_session_that_is_only_looked_at_is_not_written_to(cts, window):
    """Next patient keeps the painted slices, but not in the folder of another window."""
    with Session(read_volume(cts / "anna.nii.gz"), [LIVER]) as other:
        other.paint.set_slice(1, block())
        patients = window.panel.patients
        window.click(patients.next_button)
        window.until(lambda: window.workspace is not None and bool(window.workspace.elsewhere))
        window.click(window.panel.banner.look_button)
        ready(window, "anna")
        window.click(patients.next_button)
        ready(window, "bert")
        assert not (other.folder / "slices.npz").exists()


def test_who_comes_next_is_known_as_soon_as_a_patient_is_there(cts, window):
    """A click in that very moment opened the same patient again."""
    patients, names = window.panel.patients, []
    window.click(patients.next_button)
    window.until(lambda: window.workspace is not None)
    window.workspace.ready.connect(
        lambda: names.extend((patients.current.name, patients.next_case().name))
    )
    window.until(lambda: bool(names))
    assert names == ["anna", "bert"]


def test_a_training_begun_while_the_next_patient_is_read_goes_on(cts, window, monkeypatch):
    """Reading may take long: whoever presses Train meanwhile keeps the training and the patient."""
    patients = anna_trained(window)
    reading, go_on = threading.Event(), threading.Event()

    def slowly(path):
        reading.set()
        assert go_on.wait(60)
        return read_volume(path)

    monkeypatch.setattr("napari_diffseg.gui.patients.read_volume", slowly)
    window.click(patients.next_button)
    window.until(reading.is_set)
    window.train(iterations=100_000)
    window.until(lambda: window.workspace.runner.running == "training")
    go_on.set()
    window.until(lambda: "bert was not opened" in window.workspace.error)
    assert window.workspace.volume.name == "anna"
    assert window.workspace.runner.running == "training"
    assert not Queue().cases[0].finished
    window.workspace.runner.stop()
    window.idle()
    window.click(patients.next_button)
    ready(window, "bert")
    assert Queue().cases[0].finished


def test_closing_while_the_next_patient_is_predicted_keeps_what_is_done(cts, window, monkeypatch):
    patients = anna_trained(window)
    window.until(lambda: patients._task is not None or bool(patients.queue.cases[1].model))
    window.panel.shut_down()
    session = Session.recover(read_volume(cts / "bert.nii.gz"))  # no lock is left
    if session is not None:
        with session:
            assert np.isin(session.prediction.round_of, (0, 1)).all()
