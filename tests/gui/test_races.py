"""Clicks between two states, and what outlives the CT that it was for."""

import gc
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog, QMenu
from session_tools import LIVER, block, predicting, tiny_volume

from napari_diffseg.engine.progress import Progress
from napari_diffseg.gui import tools
from napari_diffseg.gui.comparison import with_labels
from napari_diffseg.gui.incoming import IncomingDialog
from napari_diffseg.gui.readers import switch
from napari_diffseg.io.labels import LabelMap
from napari_diffseg.session import Session, SessionError


class Held:
    """A function that waits before it returns, so that something may happen meanwhile."""

    def __init__(self, function):
        self.function, self.calls = function, 0
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *args, **kwargs):
        self.calls += 1
        result = self.function(*args, **kwargs)
        self.begun.set()
        assert self.go_on.wait(60)
        return result


def twice(window, button):
    """Two clicks that the window hears in one turn, as after a moment in which it was busy."""
    window.panel.refresh()
    assert button.isEnabled()
    for _ in range(2):
        window.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_two_clicks_on_predict_all_predict_once(window, monkeypatch):
    window.painted_and_trained()
    trainer = window.session.trainer
    held = Held(trainer.predict)
    monkeypatch.setattr(trainer, "predict", held)
    twice(window, window.panel.result.buttons["predict"])
    window.until(held.begun.is_set)
    window.qtbot.wait(200)
    held.go_on.set()
    window.idle()
    assert held.calls == 1


def test_two_clicks_on_restore_round_restore_once(window, monkeypatch):
    window.painted_and_trained()
    more = window.panel.more
    more.fold.setChecked(True)
    more.rounds.setCurrentRow(0)
    held = Held(window.session.trainer.restore)
    monkeypatch.setattr(window.session.trainer, "restore", held)
    twice(window, more.buttons["restore"])
    window.until(held.begun.is_set)
    window.qtbot.wait(200)
    held.go_on.set()
    window.idle()
    assert held.calls == 1


def test_a_session_that_is_found_too_late_is_open_to_others(window, monkeypatch):
    """The CT is taken away while its session is looked for: nobody else could open it then."""
    with Session(tiny_volume(), [LIVER]) as session:
        session.paint.set_slice(1, block())
    recover, begun = Session.recover, threading.Event()

    def slowly(*args, **kwargs):
        found = recover(*args, **kwargs)
        begun.set()
        time.sleep(0.3)  # while the window waits
        return found

    monkeypatch.setattr(Session, "recover", slowly)
    gc.disable()  # which would let go of it sooner or later
    try:
        layer = window.open(wait=False)
        window.until(begun.is_set)
        window.viewer.layers.remove(layer)
        window.open(wait=False)
        workspace = window.workspace
        window.until(lambda: bool(workspace.earlier is not None or workspace.elsewhere))
        assert workspace.earlier is not None
    finally:
        gc.enable()


@pytest.mark.parametrize("menu", [False, True])
def test_a_ct_that_is_removed_takes_no_memory(window, menu):
    """Nor does one whose menu Import… was shown."""
    layer = window.open()
    window.panel.refresh()
    if menu:
        window.click(window.panel.labels.buttons["import"])
        QApplication.activePopupWidget().close()
    session = weakref.ref(window.session)
    window.viewer.layers.remove(layer)
    del layer

    def gone():
        gc.collect()
        return session() is None

    window.until(gone, timeout=5000)
    assert not window.panel.findChildren(QMenu)


@pytest.mark.parametrize("kind", ["incoming", "comparison", "review"])
def test_a_dialog_goes_with_its_ct(window, kind):
    """Labels that were taken by it afterwards were lost without a word."""
    window.painted_and_trained()
    labels = LabelMap(window.session.merged(), window.session.paint.labels)
    workspace, panel = window.workspace, window.panel
    if kind == "incoming":
        IncomingDialog(panel, workspace, "made", labels).show()
    elif kind == "comparison":
        with_labels(panel, workspace, "made", lambda: labels)
    else:
        window.click(panel.result.buttons["review"])

    def shown():
        return [dialog for dialog in panel.findChildren(QDialog) if dialog.isVisible()]

    window.until(lambda: bool(shown()))
    window.viewer.layers.remove(workspace.layers.ct)
    window.until(lambda: not shown(), timeout=5000)


def test_a_new_session_cannot_come_between_while_one_is_taken_over(window, monkeypatch):
    other = Session(tiny_volume(), [LIVER])
    other.paint.set_slice(2, block())
    window.open(wait=False)
    window.until(lambda: window.workspace is not None and bool(window.workspace.elsewhere))
    window.click(window.panel.banner.look_button)
    window.until(lambda: window.session is not None)
    seen = window.session
    held = Held(Session.recover)
    monkeypatch.setattr(Session, "recover", held)
    window.click(window.panel.banner.take_button)
    window.until(held.begun.is_set)
    window.qtbot.mouseClick(window.panel.banner.fresh_button, Qt.MouseButton.LeftButton)
    assert window.session is seen
    held.go_on.set()
    window.until(lambda: window.session is not seen)
    assert np.array_equal(window.session.paint.mask, other.paint.mask)
    other.close()


def test_a_gap_is_not_filled_in_the_session_of_another_reader(window, monkeypatch):
    window.open()
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    for z in (1, 4):
        window.paint_block(z, 1)
    workspace, first = window.workspace, window.session
    held = Held(first.tools.filled)
    monkeypatch.setattr(first.tools, "filled", held)
    tools.fill_between(workspace, everywhere=True)
    window.until(held.begun.is_set)
    switch(workspace, "second")
    window.until(lambda: window.session is not first)
    held.go_on.set()
    window.until(lambda: all(call.over for call in workspace._calls))
    assert not window.session.prediction.mask.any()
    assert not workspace.layers.prediction.data.any()


def test_a_ct_that_cannot_be_saved_keeps_nothing_else_from_closing(window, monkeypatch):
    first = window.open()
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    window.open(tiny_volume(seed=1), wait=False)
    window.until(lambda: len(window.panel.desk.workspaces) == 2 and window.session is not None)
    other, desk = window.workspace, window.panel.desk
    desk.choose(0)
    gone, said = window.workspace, []
    close = gone.session.close

    def full():
        raise SessionError("autosave failed (No space left on device)")

    monkeypatch.setattr(gone.session, "close", full)
    monkeypatch.setattr("napari_diffseg.gui.desk.show_error", said.append)
    window.viewer.layers.remove(first)
    assert said == ["autosave failed (No space left on device)"]
    assert window.workspace is other
    window.until(lambda: not gone.layers.own())

    monkeypatch.setattr(other.session, "close", full)
    third = window.open(tiny_volume(seed=2), wait=False)
    window.until(lambda: window.workspace is not other and window.session is not None)
    last = window.workspace
    window.panel.shut_down()
    assert last._closed
    assert len(said) == 2
    assert third in window.viewer.layers
    close()


def test_layers_show_the_session_where_a_prediction_fails_at_its_end(window, monkeypatch):
    """On a full disk, say: pieces astray were taken off by then, and stayed in the picture."""
    window.painted_and_trained()
    trainer = window.session.trainer
    trainer.segmenter.card = replace(trainer.segmenter.card, single_pieces=("liver",))
    astray = block()
    astray[20:22, 20:22] = 1
    monkeypatch.setattr("napari_diffseg.session.trainer.predict", predicting(astray))

    def full():
        raise SessionError("the painted slices could not be kept")

    monkeypatch.setattr(trainer, "keep_slices", full)
    window.click(window.panel.result.buttons["predict"])
    window.idle()
    assert "could not be kept" in window.sentence
    assert np.array_equal(window.session.prediction.mask[0], block())
    assert np.array_equal(window.workspace.layers.prediction.data, window.session.prediction.mask)


def test_a_stop_after_the_adaptation_says_that_it_is_kept(window, monkeypatch):
    window.painted_and_trained()
    runner, made = window.workspace.runner, window.session.rounds.all[0]

    def adapted(session):
        session.trainer.round = replace(made, number=2, settings=None, parent=1)
        yield from ()

    def registering(session):
        while True:
            time.sleep(0.01)
            yield Progress("registering planes", 1, 2, 1.0, 1.0)

    monkeypatch.setattr("napari_diffseg.gui.runner.adapt_model", adapted)
    monkeypatch.setattr("napari_diffseg.gui.runner.register_late_planes", registering)
    runner.adapt()
    window.until(lambda: runner.latest is not None)
    runner.stop()
    window.idle()
    assert "Prediction stopped." in window.sentence


def test_a_second_press_of_sample_keeps_the_brush(window):
    window.open()
    window.add_label("liver")
    section, paint = window.panel.tools, window.workspace.layers.paint
    section.fold.setChecked(True)
    for _ in range(2):
        window.click(section.sample)
    window.drag((12, 12))
    window.until(section.limit.isChecked)
    window.qtbot.wait(50)
    assert paint.mode == "paint"


def test_a_double_click_gives_one_sample(window):
    window.open()
    window.add_label("liver")
    section, paint = window.panel.tools, window.workspace.layers.paint
    section.fold.setChecked(True)
    window.click(section.sample)
    window.qtbot.wait(50)
    for _ in range(2):  # faster than the first one is answered
        window.qtbot.mousePress(window.canvas(), Qt.MouseButton.LeftButton, pos=window.at(12, 12))
        window.qtbot.mouseRelease(window.canvas(), Qt.MouseButton.LeftButton, pos=window.at(12, 12))
    window.until(section.limit.isChecked)
    window.qtbot.wait(50)  # an error in a slot would fail the test
    assert paint.mode == "paint"


def test_no_model_is_loaded_for_a_ct_that_was_put_away_meanwhile(window, monkeypatch, tmp_path):
    """The next patient comes while the file is being chosen."""
    window.painted_and_trained()
    session, ct = window.session, window.workspace.layers.ct
    session.trainer.save_model(tmp_path / "model.safetensors")

    def choose(*_):
        window.viewer.layers.remove(ct)
        return str(tmp_path / "model.safetensors"), ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", choose)
    window.panel.more.load.emit()
    window.qtbot.wait(300)
    assert len(session.rounds.all) == 1
