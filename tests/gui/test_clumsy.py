"""What a new user does wrong: it is said in one sentence, and the window goes on."""

import time

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QFileDialog
from session_tools import tiny_volume

from napari_diffseg.engine.progress import Progress
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume, write_volume
from napari_diffseg.session import SliceState


def test_a_stroke_before_any_label_and_hasty_clicks(window):
    window.open()
    paint = window.workspace.layers.paint
    window.viewer.layers.selection.active = paint
    paint.mode, paint.brush_size = "paint", 5
    window.drag((10, 10), (10, 20))
    assert [label.name for label in window.session.paint.labels] == ["label 1"]
    assert window.sentence.startswith("One slice painted.")

    # Finish before anything is learnt, Stop twice and Train at once: the training is stopped.
    train, left = window.panel.train, Qt.MouseButton.LeftButton
    window.train(iterations=1_000_000)
    window.panel.refresh()
    for name in ("finish", "stop", "stop", "train"):
        window.qtbot.mouseClick(train.buttons[name], left)
    window.idle()
    assert window.sentence.startswith("Training stopped.")
    assert window.session.rounds.all == ()

    # After Stop, Finish comes too late.
    window.click(train.buttons["train"])
    window.until(lambda: len(window.workspace.runner.losses) > 1)
    window.panel.refresh()
    for name in ("stop", "finish"):
        window.qtbot.mouseClick(train.buttons[name], left)
    window.idle()
    assert window.session.rounds.all == ()


def test_a_volume_of_one_slice(window, tmp_path):
    geometry = Geometry.from_affine(np.diag([-2.0, -2.0, 5.0, 1.0]), (32, 32, 1))
    write_volume(tmp_path / "thin.nii.gz", Volume(tiny_volume().hu[:1].copy(), geometry, "thin"))
    window.viewer.open(str(tmp_path / "thin.nii.gz"), plugin="napari-diffseg")
    window.until(lambda: window.workspace is not None and window.session is not None)
    assert window.panel.volume.facts.text().startswith("1 slice of 32 × 32")
    window.add_label("liver")
    window.workspace.layers.paint.brush_size = 5
    window.drag((10, 10), (10, 14))
    assert window.session.paint.states.tolist() == [SliceState.PAINTED]
    window.train()
    window.idle()
    assert window.session.prediction.round_of.tolist() == [1]
    assert window.sentence == "Every slice is painted or accepted now: Export."
    assert window.panel.result.buttons["next"].toolTip().startswith("Every slice is painted")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("bad.nii.gz", b"\x1f\x8b junk", "is cut off or damaged"),
        ("text.nii", b"hello", "cannot be read"),
        ("gone.nii.gz", None, "no such file"),
    ],
)
def test_files_that_are_no_ct(window, tmp_path, monkeypatch, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    window.panel.volume.open_file.emit()
    said = window.panel.banner.sentence.text()
    assert name in said
    assert says in said
    assert len(window.viewer.layers) == 0


def test_a_damaged_second_file_is_said_beside_an_open_volume(window, tmp_path, monkeypatch):
    window.open()
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(b"\x1f\x8b junk")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    window.panel.volume.open_file.emit()
    assert "bad.nii.gz" in window.sentence  # which the panel shows anew
    assert window.panel.guide.tone == "error"
    window.session.paint.add_label("liver")
    window.paint_block(1, 1)
    window.train()
    assert "bad.nii.gz" not in window.sentence
    window.idle()


def test_a_second_volume_while_the_first_trains(window):
    window.open()
    first = window.workspace
    window.session.paint.add_label("liver")
    first.recolour()
    window.paint_block(1, 1)
    window.train(iterations=1_000_000)
    window.until(lambda: len(first.runner.losses) > 2)
    window.open(tiny_volume(seed=1), wait=False)
    window.until(lambda: window.workspace is not first and window.session is not None)
    second = window.workspace
    assert window.panel.train.buttons["train"].isVisible()
    assert first.runner.running == "training"

    window.panel.volume.chosen.emit(0)
    window.panel.refresh()
    assert window.workspace is first
    window.click(window.panel.train.buttons["finish"])
    window.idle()
    assert len(first.session.rounds.all) == 1
    assert first.session.prediction.round_of.all()
    assert second.session.rounds.all == ()

    # A CT that is taken away in the middle of its training takes the training along.
    window.train(iterations=1_000_000)
    window.until(lambda: len(first.runner.losses) > 2)
    window.viewer.layers.remove(first.layers.ct)
    window.until(lambda: len(window.viewer.layers) == 4)
    assert window.workspace is second
    assert first.runner.session.rounds.all[-1].number == 1
    assert window.sentence.startswith("Add a label")


def test_the_second_click_of_a_double_click_is_not_for_the_button_that_came_there(
    window, monkeypatch
):
    window.open()
    window.session.paint.add_label("liver")
    window.paint_block(1, 1)
    window.panel.refresh()
    runner, buttons = window.workspace.runner, window.panel.train.buttons
    monkeypatch.setattr(window.session.trainer, "train", _for_ever)
    top, train = window.panel.window(), buttons["train"]

    def settle():
        window.qtbot.wait(QApplication.doubleClickInterval() + 100)

    def click():  # as the window system does it: whatever widget lies there gets it
        window.qtbot.mouseClick(top.windowHandle(), Qt.MouseButton.LeftButton, pos=place)

    settle()
    place = train.mapTo(top, QPoint(train.width() - 20, train.height() // 2))  # of Stop, too
    click()
    window.until(buttons["stop"].isVisible)
    assert top.focusWidget() is window.canvas()  # and not whatever button comes next
    click()
    window.qtbot.wait(50)
    assert runner.running == "training"
    assert not runner.stopping
    settle()
    click()
    window.until(train.isVisible)
    click()
    window.qtbot.wait(50)
    assert not runner.running
    settle()
    click()
    window.until(lambda: runner.running == "training", timeout=5000)
    runner.stop()
    window.idle()


def _for_ever(settings, from_model=False):
    while True:
        time.sleep(0.01)
        yield Progress("comparing slices", 1, None, 1.0, None)
