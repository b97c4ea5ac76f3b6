"""A viewer with the panel, a tiny CT and a tiny random backbone."""

import gc
import importlib

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt, QThreadPool
from qtpy.QtWidgets import QApplication
from session_tools import tiny_volume

from napari_diffseg.gui.io import volume_layer
from napari_diffseg.io import write_volume
from napari_diffseg.session import Queue


@pytest.fixture(scope="session", autouse=True)
def imported_for_good():
    """Spare the collector what imports have made: half a million objects, several times a test."""
    for name in ("napari.viewer", "napari._qt.qt_main_window", "napari_diffseg.gui.panel"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, tiny_shipped):
    """Sessions go to a folder of the test's own, and training begins at a tiny backbone."""
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NAPARI_DIFFSEG_BACKBONES", raising=False)
    return tmp_path / "home"


@pytest.fixture
def cts(tmp_path, home):
    """Three CTs in a folder, all of them in the queue."""
    folder = tmp_path / "cts"
    folder.mkdir()
    for seed, name in enumerate(("anna", "bert", "carl"), start=10):
        write_volume(folder / f"{name}.nii.gz", tiny_volume(seed))
    Queue().add([folder])
    return folder


class Window:
    """The real window, driven with real events.

    Parameters
    ----------
    viewer
        napari viewer that is shown.
    qtbot
        pytest-qt's robot.
    """

    def __init__(self, viewer, qtbot):
        from napari_diffseg.gui.widget import DiffSegWidget

        self.viewer, self.qtbot = viewer, qtbot
        widget = DiffSegWidget(viewer)
        self.dock = viewer.window.add_dock_widget(widget, area="right", name="Segment CT")
        self.until(lambda: widget.panel is not None)
        self.widget, self.panel = widget, widget.panel

    @property
    def workspace(self):
        return self.panel.desk.active

    @property
    def session(self):
        return self.workspace.session

    @property
    def sentence(self):
        self.panel.refresh()
        return self.panel.banner.sentence.text()

    def open(self, volume=None, wait=True):
        data, kwargs, _ = volume_layer(volume or tiny_volume())
        layer = self.viewer.add_image(data, **kwargs)
        if wait:
            self.until(lambda: self.workspace is not None and self.session is not None)
        return layer

    def until(self, condition, timeout=90_000):
        self.qtbot.waitUntil(condition, timeout=timeout)

    def idle(self):
        """Wait for what runs, then show the state."""
        self.until(lambda: not self.workspace.runner.running and not self.workspace.loading)
        self.panel.refresh()

    def click(self, button):
        self.panel.refresh()
        self.until(button.isEnabled, timeout=5000)
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def add_label(self, name):
        self.click(self.panel.labels.buttons["add"])
        label = self.session.paint.labels[-1]
        editor = self.panel.labels.table.viewport().findChildren(_editor())[-1]
        editor.selectAll()
        self.qtbot.keyClicks(editor, name)
        self.qtbot.keyClick(editor, Qt.Key.Key_Return)
        self.until(lambda: name in [one.name for one in self.session.paint.labels])
        return label.id

    def canvas(self):
        return self.viewer.window._qt_viewer.canvas.native

    def at(self, row, column):
        """Canvas pixel over a voxel of the slice in view."""
        _, dy, dx = self.workspace.layers.ct.scale
        camera, canvas = self.viewer.scene.camera, self.canvas()
        return QPoint(
            round((column * dx - camera.center[2]) * camera.zoom + canvas.width() / 2),
            round((row * dy - camera.center[1]) * camera.zoom + canvas.height() / 2),
        )

    def drag(self, *voxels, held=None):
        """Drag the mouse over (row, column) voxels; ``held()`` before the button is released."""
        canvas, points = self.canvas(), [self.at(*voxel) for voxel in voxels]
        self.qtbot.mouseMove(canvas, points[0])
        self.qtbot.wait(20)
        self.qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=points[0])
        for point in points[1:]:
            self.qtbot.mouseMove(canvas, point)
            self.qtbot.wait(20)
        if held is not None:
            held()
        self.qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=points[-1])
        self.qtbot.wait(20)

    def key(self, key):
        """Press Ctrl and a key over the canvas."""
        self.qtbot.keyClick(self.canvas(), key, Qt.KeyboardModifier.ControlModifier)
        self.qtbot.wait(30)

    def type(self, *keys):
        """Press keys (or the characters of texts) where the window system would send them."""
        for key in keys:
            for one in key if isinstance(key, str) else (key,):
                target = QApplication.activePopupWidget() or QApplication.focusWidget()
                press = self.qtbot.keyClicks if isinstance(one, str) else self.qtbot.keyClick
                press(target, one)
                self.qtbot.wait(10)

    def undo(self):
        self.key(Qt.Key.Key_Z)

    def paint_block(self, z, label):
        """Paint the bright block of a slice as a brush stroke would, without the mouse."""
        self.workspace.go(z)
        paint = self.workspace.layers.paint
        rows, columns = np.mgrid[8:16, 8:16]
        paint.data_setitem((np.full(64, z), rows.ravel(), columns.ravel()), label)
        self.until(lambda: bool(self.session.paint.states[z]))

    def train(self, iterations=3, seconds=None):
        form = self.panel.more.form
        form.widgets["iterations"].value = str(iterations) if iterations else ""
        form.widgets["device"].value = "cpu"
        self.click(self.panel.train.buttons["train"])

    def painted_and_trained(self):
        self.open()
        self.session.paint.add_label("liver")
        self.workspace.recolour()
        for z in (1, 4):
            self.paint_block(z, 1)
        self.train()
        self.idle()


def _editor():
    from qtpy.QtWidgets import QLineEdit

    return QLineEdit


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A shown viewer with the panel docked."""
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(1100, 700)  # a small canvas is drawn sooner
    window = Window(viewer, qtbot)
    yield window
    if window.widget.panel is not None:  # the dock was not closed
        window.panel.shut_down()
    QThreadPool.globalInstance().waitForDone(5000)
    window.__dict__.clear()  # pytest keeps the fixture's value, napari wants its viewer freed
