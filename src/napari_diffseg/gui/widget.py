"""The dock widget that the npe2 manifest contributes: there at once, while the engine loads."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, QTimer, Signal
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_diffseg.gui.banner import Banner
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.theme import Palette
from napari_diffseg.gui.worker import BackgroundCall

if TYPE_CHECKING:
    from napari_diffseg.gui.panel import Panel

WIDTH = 340
_PANEL = "napari_diffseg.gui.panel"
_LATEST = 10_000  # ms after which the engine is loaded whether there is a picture or not


class DiffSegWidget(QWidget):
    """Holds the panel. Importing torch takes seconds: it waits for the picture, in a thread."""

    ready = Signal()  # the panel is there

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.panel: Panel | None = None  # while it is loaded
        self._viewer = napari_viewer
        self._shown = self._taken_out = False
        self.setMinimumWidth(WIDTH - 20)
        # Otherwise napari puts a stretch under it, which takes half of the height.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._banner = Banner(Palette.of(napari_viewer))
        self._banner.show_guide(Guide("Getting ready.", "busy"))
        self._column.addWidget(self._banner)
        self._column.addStretch(1)
        if _PANEL in sys.modules:
            self._build()
        else:
            # A thread that imports slows down the one that draws.
            self._draws = napari_viewer.window._qt_viewer.canvas._scene_canvas.events.draw
            self._draws.connect(self._on_draw, position="last")
            self._waiting = QTimer(self, singleShot=True, interval=_LATEST)
            self._waiting.timeout.connect(self._load)
            self._waiting.start()

    def _on_draw(self, event: object = None) -> None:
        self._waiting.start(0)  # not in the middle of the drawing

    def _load(self) -> None:
        gc.enable()  # ``napari-diffseg open`` has switched it off for the start
        self._draws.disconnect(self._on_draw)
        self._loading = BackgroundCall(lambda: import_module(_PANEL), self._build, self._fail)

    def _build(self, _: object = None) -> None:
        from napari_diffseg.gui.panel import Panel

        if self._taken_out or (self._shown and not self.window().isVisible()):
            return  # closed meanwhile
        self._banner.hide()
        self._column.takeAt(1)  # the stretch
        self.panel = Panel(self._viewer)
        self._column.addWidget(self.panel, 1)
        self.ready.emit()

    def _fail(self, error: Exception) -> None:
        self._banner.show_guide(Guide(f"The engine could not be loaded: {error}", "error"))

    def sizeHint(self) -> QSize:  # noqa: N802
        """Qt's question for a size."""
        return QSize(WIDTH, 780)

    def showEvent(self, event: QEvent) -> None:  # noqa: N802
        """Note that there is a window."""
        super().showEvent(event)
        self._shown = True

    def event(self, event: QEvent) -> bool:
        """Put the work away when the dock's x takes the panel out of the window."""
        if self._shown and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._taken_out = True
            if self.panel is not None:
                self.panel.shut_down(remove_layers=True)
                # What is connected to its buttons would hold it, and with it the session.
                self.panel.deleteLater()
                self.panel = None
        return bool(super().event(event))
