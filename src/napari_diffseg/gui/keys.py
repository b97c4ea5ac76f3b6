"""What the keys do to a panel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QAbstractButton, QWidget

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui import shortcuts
from napari_diffseg.gui.cheat_sheet import CheatSheet
from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.orientation import PRESETS
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.shortcuts import Key
from napari_diffseg.gui.views import set_window, toggle_slab, zoom_to_label
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.journal import SessionError


class PanelKeys(QObject):
    """Calls what a key stands for, on the volume that the panel works on.

    ``refresh()`` brings the buttons of the sections up to date.
    """

    def __init__(
        self, panel: QWidget, desk: Desk, sections: Sequence[Section], refresh: Callable[[], None]
    ) -> None:
        super().__init__()
        self._panel, self._viewer = panel, desk.viewer
        self._sections, self._refresh = sections, refresh
        self._act = desk.acting(self._do)
        shortcuts.install(self._viewer, self.press)
        # napari's actions know no "?", which lies elsewhere on each keyboard.
        self._canvas: QObject = self._viewer.window._qt_viewer.canvas.native
        self._canvas.installEventFilter(self)

    def release(self) -> None:
        """Leave the keys to others."""
        shortcuts.release(self._viewer)
        with suppress(RuntimeError):  # Qt has deleted it with the window
            self._canvas.removeEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Show the cheat sheet on a question mark over the picture."""
        if event.type() == QEvent.Type.KeyPress and event.text() == "?":
            self.show_all()
            return True
        return False

    def show_all(self, _: bool = False) -> None:
        """Show the cheat sheet."""
        CheatSheet(self._panel).show()

    def press(self, key: Key) -> None:
        """Do what a key stands for."""
        if key.name == "keys":
            self.show_all()
        else:
            self._act(key)

    def _do(self, workspace: Workspace, key: Key) -> None:
        if key.button:
            self._press(workspace, key.name)
        elif key.name in ("higher", "lower"):
            z = workspace.current + (1 if key.name == "higher" else -1)
            workspace.go(min(max(z, 0), len(workspace.volume.hu) - 1))
        elif key.name in PRESETS:
            set_window(workspace, *PRESETS[key.name])
        elif key.name == "prediction":
            layer: Any = workspace.layers.prediction
            if layer is not None:
                layer.visible = not layer.visible
        elif key.name == "zoom":
            zoom_to_label(workspace)
        elif key.name == "slab":
            toggle_slab(workspace)
        elif key.name == "background":
            if not workspace.paint_sync.takes_scribbles(workspace.current):
                raise SessionError(
                    "background is painted on scribbled slices only: press Scribbles"
                )
            workspace.take_brush(BACKGROUND)
        else:
            label_id = int(key.name.removeprefix("label "))
            workspace.begun.paint.label(label_id)  # or says that there is none
            workspace.take_brush(label_id)

    def _press(self, workspace: Workspace, name: str) -> None:
        """Press a button, or say why it is greyed out."""
        self._refresh()
        button: QAbstractButton = next(s.buttons[name] for s in self._sections if name in s.buttons)
        if not button.isEnabled():
            raise SessionError(button.toolTip())
        if name == "finish" and workspace.runner.running != "training":
            raise SessionError("no training is running")
        button.click()
