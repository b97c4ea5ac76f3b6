"""The panel: seven sections, one sentence, and what connects them to a workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication, QFrame, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_diffseg.gui import files
from napari_diffseg.gui.banner import Banner
from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.guide import Guide, Situation, guide
from napari_diffseg.gui.labels_section import LabelsSection
from napari_diffseg.gui.more_section import MoreSection
from napari_diffseg.gui.navigator import StripModel
from napari_diffseg.gui.orientation import PRESETS, Letters, window_limits
from napari_diffseg.gui.result_section import ExportSection, ResultSection
from napari_diffseg.gui.situation import situation_of
from napari_diffseg.gui.slices_section import SlicesSection
from napari_diffseg.gui.theme import Palette, style_sheet
from napari_diffseg.gui.train_section import TrainPanel
from napari_diffseg.gui.volume_section import VolumeSection, device_text
from napari_diffseg.gui.worker import ThreadCap
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.paint import SliceState

_CHECK_SECONDS = 60.0  # for the quality check, where training has no limit


class Panel(QWidget):
    """All that the dock shows, once the engine is loaded.

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._window: QWidget | None = None
        self.viewer = napari_viewer
        self.guide = Guide("")
        palette = Palette.of(self.viewer)
        self.banner = Banner()
        self.volume = VolumeSection()
        self.labels = LabelsSection(palette)
        self.slices = SlicesSection(palette)
        self.train = TrainPanel(palette)
        self.result = ResultSection()
        self.export = ExportSection()
        self.more = MoreSection()
        self._lay_out()
        self._connect()
        self._threads = ThreadCap()
        self._letters = Letters(self.viewer)
        # Many signals, one refresh a turn of the event loop.
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self.refresh)
        self.desk = desk = Desk(self.viewer)
        desk.changed.connect(self._soon.start)
        desk.switched.connect(self._on_switched)
        self.viewer.events.theme.connect(self._on_theme)
        QApplication.instance().aboutToQuit.connect(self._on_quit)
        self._on_theme()
        self._on_switched()
        self.refresh()

    # -- building ---------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.setObjectName("panel")
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(10, 2, 10, 8)
        column.setSpacing(11)
        for section in (
            self.volume,
            self.labels,
            self.slices,
            self.train,
            self.result,
            self.export,
            self.more,
        ):
            column.addWidget(section)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(4)
        outer.addWidget(self.banner)
        outer.addWidget(scroll, 1)

    def _connect(self) -> None:
        self.banner.restore.connect(self._for(Workspace.restore_earlier))
        self.banner.fresh.connect(self._for(Workspace.start_fresh))
        viewer = self.viewer
        self.volume.open_file.connect(lambda: self._open(lambda: files.open_file(self, viewer)))
        self.volume.open_folder.connect(lambda: self._open(lambda: files.open_folder(self, viewer)))
        self.volume.open_sample.connect(lambda: self._open(lambda: files.open_sample(viewer)))
        self.volume.window.connect(self._set_window)
        self.volume.card.connect(self._show_card)
        self.volume.chosen.connect(lambda index: self.desk.choose(index))
        self.labels.connect_to(lambda: self.desk.active)
        self.slices.went.connect(self._for(Workspace.go))
        self.slices.state_set.connect(self._for(lambda w, state: w.truth.set_state(state)))
        self.slices.cleared.connect(self._for(lambda w: w.truth.clear_slice()))
        self.train.train.connect(self._train)
        self.train.finish.connect(self._for(lambda w: w.runner.finish()))
        self.train.stop.connect(self._for(lambda w: w.runner.stop()))
        self.result.accept.connect(self._for(Workspace.accept))
        self.result.next.connect(self._for(Workspace.go_to_suggestion))
        self.result.predict.connect(self._for(lambda w: w.runner.predict()))
        self.result.check.connect(self._check)
        self.result.confidence.connect(self._show_confidence)
        self.result.contour.connect(self._show_contour)
        self.result.difference.connect(self._show_difference)
        self.export.mask.connect(self._for(lambda w: files.save_mask(self, w)))
        self.export.model.connect(self._for(lambda w: files.save_model(self, w)))
        self.export.report.connect(self._for(lambda w: files.save_report(self, w)))
        self.more.load.connect(self._for(lambda w: files.load_model(self, w)))
        self.more.restore.connect(self._for(Workspace.restore_round))

    def _for(self, action: Any) -> Any:
        """Make a slot that acts on the active workspace and shows its errors as the sentence."""

        def slot(*values: Any) -> None:
            workspace = self.desk.active
            if workspace is not None:
                try:
                    action(workspace, *values)
                except ValueError as error:
                    workspace.fail(error)

        return slot

    # -- showing ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the state of the active volume everywhere."""
        workspace = self.desk.active
        situation = (
            Situation(foreign=self.desk.foreign) if workspace is None else situation_of(workspace)
        )
        self.guide = guide(situation)
        self.banner.show_guide(self.guide, situation.waiting)
        self._letters.show(workspace is not None)
        session = workspace.session if workspace is not None else None
        model = StripModel()
        if workspace is not None and session is not None:
            model = StripModel(
                session.states.copy(),
                workspace.predicted,
                workspace.current,
                dict(workspace.suggested),
                workspace.truth.present_names(),
            )
        elif workspace is not None:
            slices = len(workspace.volume.hu)
            blank = np.zeros(slices, np.uint8)
            model = StripModel(blank, blank.astype(bool), workspace.current)
        fresh = SliceState.PAINTED
        if workspace is not None and session is not None:
            fresh = workspace.truth.fresh_state
        self.slices.show_state(model, self.guide, fresh)
        self.labels.show_state(workspace, self.guide)
        runner = workspace.runner if workspace is not None and session is not None else None
        has_model = session is not None and session.segmenter is not None
        self.train.show_state(self.guide, runner, has_model, situation.slices)
        self.result.show_state(self.guide, situation.predicted > 0 or situation.task == "training")
        self.result.show_layers(workspace.layers if workspace is not None else None)
        self.export.show_state(self.guide)
        rounds = session.rounds if session is not None else ()
        self.more.show_state(rounds, session.round if session is not None else None, self.guide)
        self.volume.show_chips(
            device_text(),
            workspace.backbone_name if workspace is not None else "",
            workspace.backbone_error if workspace is not None else "",
        )

    def _on_switched(self) -> None:
        desk = self.desk
        workspace = desk.active
        names = tuple(w.volume.name for w in desk.workspaces)
        index = desk.workspaces.index(workspace) if workspace is not None else 0
        self.volume.show_volume(workspace.volume if workspace else None, names, index)
        self._soon.start()

    def _on_theme(self, event: object = None) -> None:
        palette = Palette.of(self.viewer)
        self.setStyleSheet(style_sheet(palette))
        for painted in (self.labels, self.slices.strip, self.train):
            painted.set_palette(palette)

    # -- actions ----------------------------------------------------------------------------

    def _train(self, from_model: bool) -> None:
        self._for(lambda w: w.train(self.more.form.settings(self.train.seconds), from_model))()

    def _check(self) -> None:
        seconds = self.train.seconds or _CHECK_SECONDS
        self._for(lambda w: w.check(self.more.form.settings(seconds)))()

    def _set_window(self, name: str) -> None:
        workspace = self.desk.active
        if workspace is not None:
            workspace.layers.ct.contrast_limits = window_limits(*PRESETS[name])

    def _show_confidence(self, shown: bool) -> None:
        workspace = self.desk.active
        if workspace is not None and workspace.layers.confidence is not None:
            workspace.layers.confidence.visible = shown
            workspace.layers.confidence.refresh()

    def _show_contour(self, shown: bool) -> None:
        workspace = self.desk.active
        if workspace is not None and workspace.layers.prediction is not None:
            workspace.layers.prediction.contour = 2 if shown else 0

    def _show_difference(self, shown: bool) -> None:
        workspace = self.desk.active
        if workspace is not None:
            workspace.show_difference(shown)

    def _show_card(self) -> None:
        workspace = self.desk.active
        if workspace is not None and workspace.backbone_card:
            files.show_card(self, workspace.backbone_name, workspace.backbone_card)

    def _open(self, how: Callable[[], None]) -> None:
        try:
            how()
        except ValueError as error:
            if self.desk.active is not None:
                self.desk.active.fail(error)
            else:
                self.banner.show_guide(Guide(str(error), "error"), False)

    # -- closing ----------------------------------------------------------------------------

    def showEvent(self, event: QEvent) -> None:  # noqa: N802
        """Watch the window that the panel is docked in."""
        super().showEvent(event)
        window: QWidget | None = self
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()  # past the dock, which may float as its own window
        if window is not None and window is not self._window:
            self._window = window
            window.installEventFilter(self)

    def _on_quit(self) -> None:
        self.shut_down()

    def resizeEvent(self, event: QEvent) -> None:  # noqa: N802
        """Give the labels the room that the other sections leave."""
        super().resizeEvent(event)
        self.labels.table.fit_into(self.height())

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Shut down when the main window was really closed, not asked to and then kept."""
        if watched is self._window and event.type() == QEvent.Type.Hide and not event.spontaneous():
            self.shut_down()
        return False

    def shut_down(self, remove_layers: bool = False) -> None:
        """Stop what runs, keep every stroke, give the cores back.

        Parameters
        ----------
        remove_layers
            The viewer stays open: take the layers off it that no panel looks after any more.
        """
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None
        self.desk.close(remove_layers)
        self._letters.close()
        self._threads.release()
