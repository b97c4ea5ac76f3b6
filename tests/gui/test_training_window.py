"""Training in the window: previews, stopping and finishing, quality, closing meanwhile."""

import shutil
import threading
import time

import numpy as np
import pytest
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QToolButton
from session_tools import tiny_volume

from napari_diffseg.engine.progress import Progress
from napari_diffseg.gui.train_section import BUDGETS
from napari_diffseg.session import Session


def test_stop_keeps_the_previous_model_and_prediction(window):
    window.painted_and_trained()
    session = window.session
    model, prediction = session.trainer.segmenter, session.prediction.mask.copy()
    window.train(iterations=1_000_000)
    runner = window.workspace.runner
    window.until(lambda: len(runner.losses) > 2)
    assert window.panel.train.bar.isVisible()
    assert window.panel.train.buttons["train"].toolTip().startswith("Training is running")
    window.click(window.panel.train.buttons["stop"])
    window.idle()
    assert session.trainer.segmenter is model
    assert len(session.rounds.all) == 1
    assert np.array_equal(session.prediction.mask, prediction)
    assert window.sentence.startswith("Training stopped, the model before it is kept.")
    assert window.panel.train.buttons["train"].isEnabled()

    # A failure is told in one sentence, and all goes on.
    session.trainer.predict = _fails
    window.click(window.panel.result.buttons["predict"])
    window.idle()
    assert window.sentence == "the disk is full: free some space"
    assert window.panel.guide.tone == "error"
    window.paint_block(3, 1)
    assert window.panel.guide.tone == "error"
    assert "changed since round 1" in window.sentence


def test_what_a_training_tells_is_said_at_its_end(window):
    window.painted_and_trained()
    assert "No painted pixel" not in window.sentence
    window.add_label("spleen")
    window.train()
    window.until(lambda: window.workspace.runner.running == "training")
    assert window.sentence.startswith("Learning from 2 slices.")
    window.idle()
    assert window.sentence.startswith("No painted pixel yet: spleen. ")
    window.train(iterations=1_000_000)
    window.until(lambda: len(window.workspace.runner.losses) > 2)
    window.click(window.panel.train.buttons["stop"])
    window.idle()
    assert window.sentence.startswith("Training stopped, the model before it is kept.")


def test_the_budget_is_a_minute_until_another_is_chosen(window):
    window.open()
    window.session.paint.add_label("liver")
    window.paint_block(1, 1)
    asked = []
    window.workspace.train = lambda settings, from_model: asked.append(settings.seconds)
    panel = window.panel.train
    window.click(panel.buttons["train"])
    for text, seconds in BUDGETS:
        (button,) = (b for b in panel.findChildren(QToolButton) if b.text() == text)
        assert button.isVisible()
        window.click(button)
        window.click(panel.buttons["train"])
        assert asked.pop() == seconds
    assert asked == [60]


def test_finish_keeps_what_was_learnt_and_predicts(window):
    window.painted_and_trained()
    panel, session = window.panel.train, window.session
    assert not panel.buttons["finish"].isVisible()
    button = next(b for b in panel.findChildren(QToolButton) if b.text() == "∞")
    window.click(button)
    window.train(iterations=None)
    window.panel.refresh()
    assert panel.buttons["finish"].isVisible()
    assert panel.buttons["stop"].isVisible()
    assert not panel.buttons["train"].isVisible()
    window.until(lambda: "Learning" in panel.time.text())
    assert panel.time.text().endswith("so far")
    window.click(panel.buttons["finish"])
    window.panel.refresh()
    assert panel.buttons["finish"].text() == "Finishing"
    assert not panel.buttons["finish"].isEnabled()
    window.idle()
    assert len(session.rounds.all) == 2
    assert session.rounds.all[1].settings.seconds is None
    assert session.rounds.all[1].iterations == len(window.workspace.runner.losses)
    assert session.prediction.round_of.tolist() == [2] * 6
    assert panel.buttons["train"].isVisible()
    assert not panel.buttons["finish"].isVisible()

    # The quality check cannot be finished, so it takes a minute where training takes forever.
    asked = []
    window.workspace.check = asked.append
    window.click(window.panel.result.buttons["check"])
    assert asked[0].seconds == 60

    # Before anything is learnt there is nothing to keep: the button says so.
    session.trainer.train = _learns_nothing
    window.click(panel.buttons["train"])
    window.panel.refresh()
    assert not panel.buttons["finish"].isEnabled()
    assert panel.buttons["finish"].toolTip() == "Nothing has been learnt yet."
    window.click(panel.buttons["stop"])
    window.idle()


def _learns_nothing(settings, from_model=False):
    while True:
        time.sleep(0.01)
        yield Progress("comparing slices", 1, None, 1.0, None)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("end", ["finish", "stop", "kill"])
def test_a_corrected_preview_is_kept(window, tmp_path, monkeypatch, end, trained):
    if trained:
        window.painted_and_trained()
    else:
        window.open()
        window.session.paint.add_label("liver")
        window.paint_block(1, 1)
    session, layers, z = window.session, window.workspace.layers, 3
    before = session.prediction.mask.copy()
    window.workspace.go(z)
    window.panel.more.form.widgets["recipe"].value = "paper"  # it shows a preview every two seconds
    window.train(iterations=1_000_000)
    window.until(lambda: z in layers.previewed)
    # A preview is a picture: it is neither in the session nor can it be accepted or exported.
    window.panel.refresh()
    assert window.panel.result.buttons["accept"].toolTip().startswith("This is a preview")
    assert np.array_equal(session.prediction.mask, before)
    assert np.array_equal(session.merged()[3], before[3])
    window.viewer.layers.selection.active = layers.prediction
    layers.prediction.mode = "paint"
    layers.prediction.selected_label = 1
    window.drag((20, 20), (20, 26))
    corrected = session.prediction.mask[z].copy()
    assert session.prediction.edited == {z}
    assert (corrected[20, 20:27] == 1).all()
    assert np.array_equal(layers.prediction.data[z], corrected)
    assert np.array_equal(np.delete(session.prediction.mask, z, 0), np.delete(before, z, 0))

    if end == "kill":  # the disk as a killed process would leave it
        home = tmp_path / "after"
        shutil.copytree(tmp_path / "home", home)
        window.click(window.panel.train.buttons["stop"])
        window.idle()
        monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(home))
        session = Session.recover(tiny_volume())
        assert np.array_equal(session.prediction.mask[z], corrected)
    else:
        window.click(window.panel.train.buttons[end])
        window.idle()
        assert len(session.rounds.all) == trained + (end == "finish")
        assert np.array_equal(layers.prediction.data, session.prediction.mask)
    assert session.prediction.edited == {z}
    assert np.array_equal(session.prediction.mask[z], corrected)
    if end == "stop":  # what a preview covered is back
        assert np.array_equal(np.delete(session.prediction.mask, z, 0), np.delete(before, z, 0))
    session.accept(z)
    assert np.array_equal(session.paint.mask[z], corrected)
    session.close()


def _fails(start=None):
    raise ValueError("the disk is full: free some space")
    yield


@pytest.mark.parametrize("how", ["by the user", "by the program"])
def test_closing_the_window_while_training(window, how):
    window.open()
    window.session.paint.add_label("liver")
    window.paint_block(1, 1)
    truth = window.session.paint.mask.copy()
    threads = threading.active_count()
    window.train(iterations=1_000_000)
    window.until(lambda: len(window.workspace.runner.losses) > 2)
    if how == "by the user":
        # What Qt does once napari has agreed to close; the fixture needs the window afterwards.
        window.viewer.window._qt_window.hide()
    else:
        window.viewer.close()
    assert QThreadPool.globalInstance().waitForDone(5000)
    assert threading.active_count() <= threads
    assert window.panel.desk.workspaces == []
    again = Session.recover(tiny_volume())
    assert np.array_equal(again.paint.mask, truth)
    again.close()


def test_quality_check_fills_the_table(window):
    window.painted_and_trained()
    window.panel.more.form.widgets["iterations"].value = "2"
    window.click(window.panel.result.buttons["check"])
    window.idle()
    assert set(window.session.trainer.quality) == {1}
    window.panel.refresh()
    assert window.panel.labels.table.item(0, 4).text()[0] in "01"
