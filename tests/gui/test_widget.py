"""The dock is there at once, and the panel comes when the engine is loaded."""

import gc
import subprocess
import sys
import threading
import weakref

import pytest
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QLabel, QStyle
from session_tools import tiny_volume

from napari_diffseg.gui import widget as module
from napari_diffseg.gui.io import volume_layer
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.widget import WIDTH

PANEL = "napari_diffseg.gui.panel"


class SlowImport:
    """Stands in for the import of torch: it ends when the test says so."""

    def __init__(self):
        self.may_end = threading.Event()
        self.error = None

    def __call__(self, name):
        assert name == PANEL
        assert self.may_end.wait(20)
        if self.error is not None:
            raise self.error


@pytest.fixture
def slow_import(monkeypatch):
    monkeypatch.delitem(sys.modules, PANEL, raising=False)
    slow = SlowImport()
    monkeypatch.setattr(module, "import_module", slow)
    yield slow
    slow.may_end.set()
    QThreadPool.globalInstance().waitForDone(5000)


def _dock(viewer):
    dock = viewer.window.add_plugin_dock_widget("napari-diffseg")[0]
    return dock, dock.inner_widget()


def _sentences(widget):
    return [label.text() for label in widget.findChildren(QLabel) if label.isVisible()]


def test_the_panel_comes_when_it_is_loaded(make_napari_viewer, qtbot, slow_import):
    viewer = make_napari_viewer(show=True)
    _, widget = _dock(viewer)
    assert widget.panel is None
    qtbot.waitUntil(lambda: _sentences(widget) == ["Getting ready."])
    with qtbot.waitSignal(widget.ready, timeout=20_000):
        slow_import.may_end.set()
    qtbot.waitUntil(lambda: widget.panel.isVisible())
    assert "Getting ready." not in _sentences(widget)
    assert widget.panel.banner.sentence.text().startswith("Drag a CT")
    assert widget.panel.width() == widget.width()
    widget.panel.shut_down()


def test_a_second_panel_is_there_at_once_and_fills_the_dock(window):
    _, widget = _dock(window.viewer)
    panel = widget.panel
    assert panel is not None
    window.until(lambda: panel.isVisible() and panel.height() == widget.height())
    bar = panel.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
    for section in panel.findChildren(Section):
        # Else the edge of the panel is cut off, for there is no horizontal scroll bar.
        assert section.minimumSizeHint().width() <= WIDTH - bar - 20, type(section).__name__
    panel.shut_down()


def _opened_and_closed(viewer, qtbot):
    """Weak references to what a panel had that was closed."""
    dock, widget = _dock(viewer)
    qtbot.waitUntil(lambda: widget.panel is not None)
    data, options, _ = volume_layer(tiny_volume())
    viewer.add_image(data, **options)
    qtbot.waitUntil(lambda: getattr(widget.panel.desk.active, "session", None) is not None)
    active = widget.panel.desk.active
    kept = [weakref.ref(one) for one in (widget.panel, active.session, active.layers.paint)]
    dock.destroyOnClose()
    return kept


def test_a_panel_that_is_closed_is_freed_with_its_session(make_napari_viewer, qtbot):
    kept = _opened_and_closed(make_napari_viewer(show=True), qtbot)

    def freed():
        gc.collect()
        return not any(one() for one in kept)

    qtbot.waitUntil(freed, timeout=20_000)


@pytest.mark.parametrize("how", ["dock", "window"])
def test_closed_while_it_is_loaded(make_napari_viewer, qtbot, slow_import, how):
    viewer = make_napari_viewer(show=True)
    dock, widget = _dock(viewer)
    qtbot.waitUntil(lambda: widget.isVisible())
    if how == "dock":
        dock.destroyOnClose()
    else:
        viewer.window._qt_window.hide()
    slow_import.may_end.set()
    QThreadPool.globalInstance().waitForDone(5000)
    qtbot.wait(100)
    assert widget.panel is None


def test_an_engine_that_cannot_be_loaded_is_said(make_napari_viewer, qtbot, slow_import):
    viewer = make_napari_viewer(show=True)
    _, widget = _dock(viewer)
    slow_import.error = ImportError("libtorch is missing")
    slow_import.may_end.set()
    said = ["The engine could not be loaded: libtorch is missing"]
    qtbot.waitUntil(lambda: _sentences(widget) == said)
    assert widget.panel is None


def test_the_dock_itself_loads_no_engine():
    check = "import sys, napari_diffseg.gui.widget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 0
