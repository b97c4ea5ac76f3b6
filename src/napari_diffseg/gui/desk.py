"""All CTs that are open in one viewer, and which of them the panel works on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Image
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, QTimer, Signal

from napari_diffseg.gui.io import INCOMING, VOLUME
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.journal import SessionError


class Desk(QObject):
    """Watches the layer list: a CT that comes gets a workspace, one that goes is put away."""

    changed = Signal()  # what the panel shows may differ
    switched = Signal()  # another volume is worked on
    incoming = Signal(object)  # a layer of labels that were read from a file

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.workspaces: list[Workspace] = []
        self.active: Workspace | None = None
        self._closed = False
        layers = viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removed.connect(self._on_removed)
        layers.selection.events.active.connect(self._on_active)
        for layer in list(layers):
            self._take(layer)

    @property
    def foreign(self) -> str:
        """Name of a picture that is not one of our CTs, where there is no CT."""
        if self.workspaces:
            return ""
        pictures = [layer.name for layer in self.viewer.layers if isinstance(layer, Image)]
        return str(pictures[-1]) if pictures else ""

    def acting(
        self, action: Callable[..., Any], workspace: Workspace | None = None
    ) -> Callable[..., None]:
        """Make a slot that calls ``action(workspace, *values)``; errors become the sentence.

        The workspace is the one that is active when the slot is called, unless it is given.
        """

        def slot(*values: Any) -> None:
            chosen = workspace or self.active
            if chosen is not None:
                try:
                    action(chosen, *values)
                except ValueError as error:
                    chosen.fail(error)

        return slot

    def focus_canvas(self) -> None:
        """Let keys go to the picture, where napari's tool keys are heard."""
        self.viewer.window._qt_viewer.canvas.native.setFocus()

    def choose(self, index: int) -> None:
        """Work on another volume: its layers are shown, the others' are hidden."""
        chosen = self.workspaces[index]
        for workspace in self.workspaces:
            shown = workspace is chosen
            workspace.layers.ct.visible = shown
            for layer in (workspace.layers.paint, workspace.layers.prediction):
                if layer is not None:
                    layer.visible = shown
            if workspace.layers.confidence is not None and not shown:
                workspace.layers.confidence.visible = False
        self._activate(chosen)
        self.viewer.layers.selection.active = chosen.layers.paint or chosen.layers.ct

    def close(self, remove_layers: bool = False) -> None:
        """Put all volumes away; strokes are kept, and what runs is stopped."""
        if self._closed:
            return
        self._closed = True
        layers = self.viewer.layers
        layers.events.inserted.disconnect(self._on_inserted)
        layers.events.removed.disconnect(self._on_removed)
        layers.selection.events.active.disconnect(self._on_active)
        for workspace in self.workspaces:
            self._put_away(workspace)
            if remove_layers:
                workspace.layers.remove()
        self.workspaces, self.active = [], None

    def _put_away(self, workspace: Workspace) -> None:
        try:
            workspace.close()
        except SessionError as error:  # a full disk must not keep the rest open
            show_error(str(error))

    def _take(self, layer: Any) -> None:
        if isinstance(layer, Image) and VOLUME in layer.metadata:
            workspace = Workspace(self.viewer, layer)
            workspace.changed.connect(self.changed)
            workspace.ready.connect(self._name_layers)
            self.workspaces.append(workspace)
            self._name_layers()
            self._activate(workspace)

    def _on_inserted(self, event: Any) -> None:
        self._take(event.value)
        if INCOMING in event.value.metadata:
            # napari is in the middle of adding it.
            QTimer.singleShot(0, lambda: self.incoming.emit(event.value))
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        gone = event.value
        for workspace in list(self.workspaces):
            if gone is workspace.layers.ct:
                self.workspaces.remove(workspace)
                self._put_away(workspace)
                # napari is in the middle of a removal; the volume's other layers go afterwards.
                QTimer.singleShot(0, workspace.layers.remove)
                if workspace is self.active:
                    self._activate(self.workspaces[-1] if self.workspaces else None)
                self._name_layers()
            elif workspace.layers.made(gone):
                QTimer.singleShot(0, workspace.put_layers_back)
        self.changed.emit()

    def _on_active(self, event: Any) -> None:
        for workspace in self.workspaces:
            if workspace is not self.active and workspace.layers.has(event.value):
                self._activate(workspace)

    def _activate(self, workspace: Workspace | None) -> None:
        self.active = workspace
        self.switched.emit()
        self.changed.emit()

    def _name_layers(self) -> None:
        several = len(self.workspaces) > 1
        for workspace in self.workspaces:
            workspace.layers.rename(f" · {workspace.volume.name}" if several else "")
