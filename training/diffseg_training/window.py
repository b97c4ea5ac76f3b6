"""The app's window on the sample CT, opened and driven by a program.

It needs a display, or Xvfb: Qt's platform ``offscreen`` has no OpenGL. napari and Qt are imported
when the window opens.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from diffseg_training.benchmark.speed import enlarged
from napari_diffseg.io.labels import load_names
from napari_diffseg.io.sample import sample_labels_path, sample_names_path, sample_volume_path
from napari_diffseg.io.volume import read_labels, read_volume
from napari_diffseg.session.paint import SliceState

if TYPE_CHECKING:
    from napari_diffseg.gui.panel import Panel
    from napari_diffseg.gui.workspace import Workspace

_POLL = 0.002  # s between two turns of the event loop


class WindowError(ValueError):
    """The window did not do in time what it was asked for."""


class SampleWindow:
    """napari with the panel and the sample CT; sessions go to a temporary folder.

    Parameters
    ----------
    width, height
        Size of the window in pixels.
    size
        Slices, and pixels of their sides, that the sample is brought to; as it is by default.

    Raises
    ------
    WindowError
        If napari is not installed, or the CT is not ready in time.

    Attributes
    ----------
    viewer, panel, workspace
        The napari viewer, the panel in it and what belongs to the CT.
    truth
        Labels of every voxel of the CT.
    """

    def __init__(self, width: int, height: int, size: tuple[int, int] | None = None) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="napari-diffseg-window-")
        os.environ["NAPARI_DIFFSEG_HOME"] = self._home.name

        try:
            import napari

            from napari_diffseg.gui.io import volume_layer
            from napari_diffseg.gui.panel import Panel
        except ImportError as error:
            raise WindowError(
                f'{error.name} is not installed: pip install "napari-diffseg[gui]"'
            ) from error

        volume = read_volume(sample_volume_path())
        self.truth = read_labels(sample_labels_path(), volume.geometry).mask
        if size is not None:
            volume, self.truth = enlarged(volume, self.truth, size[1], size[0])
        self.viewer: Any = napari.Viewer(show=True)
        self.viewer.window.resize(width, height)
        self.panel: Panel = Panel(self.viewer)
        self.viewer.window.add_dock_widget(
            self.panel, area="right", name="Segment CT (napari-diffseg)"
        )
        data, options, _ = volume_layer(volume)
        self.viewer.add_image(data, **options)
        desk = self.panel.desk
        self.until(lambda: desk.active is not None and desk.active.session is not None)
        assert desk.active is not None
        self.workspace: Workspace = desk.active

    def until(self, done: Callable[[], bool], limit: float = 1800.0) -> None:
        """Handle events until something is done.

        Raises
        ------
        WindowError
            If it takes more than `limit` seconds.
        """
        from qtpy.QtCore import QEvent
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + limit
        while not done():
            QApplication.processEvents()
            # Only Qt's own loop deletes what is to be deleted later, such as a patient's widgets.
            QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            time.sleep(_POLL)
            if time.monotonic() > end:
                raise WindowError(f"the window is not ready after {limit:g} s")

    def wait(self, seconds: float) -> None:
        """Handle events for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def paint(self, slices: Collection[int], names: Collection[str] | None = None) -> None:
        """Paint the sample's own labels on some slices.

        Parameters
        ----------
        slices
            Slices to paint in full.
        names
            Labels to paint, all of them by default.
        """
        session, paint = self.workspace.session, self.workspace.layers.paint
        assert session is not None
        assert paint is not None
        painted = np.zeros(256, np.uint8)
        for label_id, name in self.names().items():
            if names is None or name in names:
                painted[label_id] = session.paint.add_label(name).id
        for z in slices:
            paint.data[z] = painted[self.truth[z]]
        self.workspace.paint_sync.flush()
        for z in slices:
            # What does not come from a stroke in view is taken for scribbles.
            self.workspace.go(z)
            self.workspace.paint_sync.set_state(SliceState.PAINTED)
        self.workspace.recolour()

    @staticmethod
    def names() -> dict[int, str]:
        """Names of the labels in :attr:`truth` by id."""
        return load_names(sample_names_path())

    def close(self) -> None:
        """Close the viewer and remove the temporary folder."""
        self.viewer.close()
        self._home.cleanup()
