"""Painting coronal planes in the window."""

import threading

import numpy as np
from qtpy.QtCore import QPoint, Qt

from napari_diffseg.engine import registration
from napari_diffseg.engine.suggest_plane import PlaneSuggestion
from napari_diffseg.gui.plane_bar import plane_in_view
from napari_diffseg.session import SliceState


def _coronal(window, row):
    window.viewer.dims.order = (1, 0, 2)
    ct = window.workspace.layers.ct
    window.viewer.dims.set_point(1, ct.data_to_world((0, row, 0))[1])
    window.panel.refresh()


def test_a_coronal_plane_is_marked_followed_and_taken_back(window):
    window.open()
    label = window.add_label("liver")
    session, paint = window.session, window.workspace.layers.paint
    bar = window.panel.slices.planes
    window.panel.refresh()
    assert not bar.isVisible()
    _coronal(window, 10)
    paint.brush_size = 8
    paint.paint((3, 10, 16), label)
    window.until(lambda: (session.paint.states > 0).sum() > 1)
    window.panel.refresh()
    assert bar.full.text() == "Coronal 10 painted in full"
    assert not bar.full.isChecked()
    window.qtbot.mouseClick(bar.full, Qt.MouseButton.LeftButton)
    window.panel.refresh()
    planes = session.paint.planes
    assert planes.state("coronal", 10) == SliceState.PAINTED
    np.testing.assert_array_equal(planes.mask("coronal", 10), paint.data[:, 10])
    assert bar.full.isChecked()
    assert "coronal 10" in bar.painted.text()
    assert SliceState.PAINTED not in session.paint.states

    # A later stroke on the plane, and one that erases.
    paint.paint((1, 10, 24), label)
    window.workspace.paint_sync.flush()
    np.testing.assert_array_equal(planes.mask("coronal", 10), paint.data[:, 10])
    paint.paint((3, 10, 16), 0)
    window.workspace.paint_sync.flush()
    np.testing.assert_array_equal(planes.mask("coronal", 10), paint.data[:, 10])
    assert planes.state("coronal", 10) == SliceState.PAINTED

    window.qtbot.mouseClick(bar.clear, Qt.MouseButton.LeftButton)
    assert len(planes) == 0
    window.viewer.dims.order = (0, 1, 2)
    window.panel.refresh()
    assert not bar.isVisible()


def test_strokes_beside_a_plane_leave_it_alone(window):
    window.open()
    label = window.add_label("liver")
    session, paint = window.session, window.workspace.layers.paint
    before = np.zeros((len(paint.data), paint.data.shape[2]), np.uint8)
    before[:, 12] = label
    session.paint.planes.set_plane("coronal", 10, before, SliceState.PAINTED)
    _coronal(window, 25)
    paint.brush_size = 3
    paint.paint((3, 25, 16), label)
    window.workspace.paint_sync.flush()
    np.testing.assert_array_equal(session.paint.planes.mask("coronal", 10), before)


def test_the_navigator_counts_the_planes_in_view(window):
    window.open()
    label = window.add_label("liver")
    session, navigator = window.session, window.panel.slices.navigator
    volume = session.volume.hu.shape
    mask = np.zeros((volume[0], volume[2]), np.uint8)
    mask[2, 12:20] = label
    session.paint.planes.set_plane("coronal", 10, mask, SliceState.PAINTED)
    window.panel.refresh()
    assert len(navigator.model.states) == volume[0]
    assert window.panel.slices.low.text() == "inferior"
    _coronal(window, 14)
    assert len(navigator.model.states) == volume[1]
    assert navigator.model.states[10] == SliceState.PAINTED
    assert navigator.model.current == 14
    assert navigator.describe(10) == "Coronal 10 · painted in full: liver"
    slices = window.panel.slices
    assert (slices.low.text(), slices.high.text()) == ("anterior", "posterior")
    # These three are about a slice, and none is in view.
    assert not any(slices.buttons[name].isVisible() for name in ("full", "scribbles", "clear"))
    assert slices.where.text().startswith(f"coronal 14 of 0–{volume[1] - 1}")
    window.qtbot.keyClick(navigator, Qt.Key.Key_Right)
    window.panel.refresh()
    assert navigator.model.current == 15
    window.qtbot.mouseClick(
        navigator, Qt.MouseButton.LeftButton, pos=QPoint(round(navigator.centre_of(3)), 15)
    )
    window.panel.refresh()
    assert plane_in_view(window.workspace) == ("coronal", 3)
    window.viewer.dims.order = (0, 1, 2)
    window.panel.refresh()
    assert slices.buttons["full"].isVisible()


def test_a_suggested_plane_is_shown_and_the_next_one_is_a_slice(window, monkeypatch):
    window.open()
    window.add_label("liver")
    window.paint_block(1, 1)
    plane = PlaneSuggestion("sagittal", 9, "Sagittal 9 crosses gaps of up to 30 slices")
    monkeypatch.setattr(type(window.session), "suggest_plane", lambda self: plane)
    window.train()
    window.idle()
    window.until(lambda: window.workspace.suggestions.best is not None)
    window.click(window.panel.result.buttons["next"])
    window.panel.refresh()
    assert plane_in_view(window.workspace) == ("sagittal", 9)
    assert window.viewer.dims.displayed[0] == 0  # superior on top
    assert window.sentence.startswith(plane.reason)
    assert "Sagittal 9 painted in full" in window.sentence
    assert window.panel.slices.planes.full.text() == "Sagittal 9 painted in full"
    assert window.panel.slices.navigator.model.suggested == {9: plane.reason}
    window.click(window.panel.result.buttons["next"])
    window.panel.refresh()
    assert plane_in_view(window.workspace) is None
    assert window.workspace.in_view in window.panel.slices.navigator.model.suggested
    assert window.sentence.startswith(f"Slice {window.workspace.in_view}")


def test_planes_painted_after_the_training_are_registered_with_progress(window, monkeypatch):
    window.painted_and_trained()
    session, runner = window.session, window.workspace.runner
    before = session.rounds.registration
    mask = np.zeros((len(session.volume.hu), session.volume.hu.shape[2]), np.uint8)
    mask[:, 8:16] = 1
    session.paint.planes.set_plane("coronal", 10, mask, SliceState.PAINTED)
    go_on, calls, displacement = threading.Event(), [], registration.displacement

    def slow(*images):
        calls.append(len(images))
        if len(calls) > 2:  # the first step is done
            go_on.wait(60)
        return displacement(*images)

    monkeypatch.setattr(registration, "displacement", slow)
    train = window.panel.train
    window.click(window.panel.result.buttons["predict"])
    window.until(lambda: train.time.text().startswith("Registering planes · step 8 · "))
    assert train.time.text().endswith(" left")
    assert 0 < train.bar.value() < train.bar.maximum()
    window.click(train.buttons["stop"])
    go_on.set()
    window.idle()
    assert window.sentence.startswith("Prediction stopped")
    assert session.rounds.registration is before

    calls.clear()
    window.click(window.panel.result.buttons["predict"])
    window.idle()
    assert calls
    assert runner.done == len(session.volume.hu)
    calls.clear()
    window.click(window.panel.result.buttons["predict"])
    window.idle()
    assert not calls
