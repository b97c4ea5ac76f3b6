"""The panel: eight sections, one sentence, and what connects them to a workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.settings import get_settings
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication, QFrame, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_diffseg.gui import elsewhere, files, incoming
from napari_diffseg.gui.banner import Banner, Choice
from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.going import go_in_view, go_to_suggestion
from napari_diffseg.gui.guide import Guide, Situation, guide
from napari_diffseg.gui.keys import PanelKeys
from napari_diffseg.gui.labels_section import LabelsSection
from napari_diffseg.gui.linked_views import LinkedViews
from napari_diffseg.gui.more_section import MoreSection
from napari_diffseg.gui.orientation import PRESETS, Orientation
from napari_diffseg.gui.patients import Patients
from napari_diffseg.gui.plane_bar import mark_plane
from napari_diffseg.gui.result_section import ExportSection, ResultSection
from napari_diffseg.gui.review_dialog import show_review
from napari_diffseg.gui.situation import situation_of
from napari_diffseg.gui.slices_section import SlicesSection
from napari_diffseg.gui.tab_order import set_tab_order
from napari_diffseg.gui.theme import Palette, style_sheet
from napari_diffseg.gui.tools_section import ToolsSection
from napari_diffseg.gui.train_section import TrainSection
from napari_diffseg.gui.views import Views, set_window
from napari_diffseg.gui.volume_section import VolumeSection
from napari_diffseg.gui.worker import ThreadCap
from napari_diffseg.gui.workspace import Workspace

_TOOLS_HEIGHT = 235  # px of the tools when they are unfolded
_ROOM_FOR_TOOLS = 890  # px of a panel that holds them beside all other sections
_CHECK_SECONDS = 60.0  # for the quality check, where training has no limit
_LEAST_WIDTH = 320  # px at napari's usual size of text


class Panel(QWidget):
    """All that the dock shows, once the engine is loaded."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self._window: QWidget | None = None
        self.viewer = napari_viewer
        self.guide = Guide("")
        palette = Palette.of(self.viewer)
        # Without a parent it would outlive the panel: Qt holds the functions that are connected to
        # its signals, these hold desk and panel, and Python's collector sees nothing of that.
        self.desk = Desk(self.viewer, self)
        self.banner = Banner(palette)
        self.volume = VolumeSection()
        self.labels = LabelsSection(palette, self.desk)
        self.tools = ToolsSection(self.desk)
        self.slices = SlicesSection(palette)
        self.train = TrainSection(palette)
        self.result = ResultSection()
        self.export = ExportSection()
        self.more = MoreSection()
        self.sections = (
            *(self.volume, self.labels, self.tools, self.slices, self.train),
            *(self.result, self.export, self.more),
        )
        self._lay_out()
        self.patients = Patients(self, self.desk, self.volume, self.train)
        self._connect()
        self._threads = ThreadCap()
        self._orientation = Orientation(self.viewer)
        self._views = Views(self.viewer, self.desk)
        self.keys = PanelKeys(self, self.desk, self.sections, self.refresh)
        self.linked = LinkedViews(self.viewer, self.desk, self.keys.press)
        self.slices.linked.connect(self.linked.show)
        # Many signals, one refresh a turn of the event loop.
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self.refresh)
        self.desk.changed.connect(self._soon.start)
        self.desk.switched.connect(self._on_switched)
        self.desk.incoming.connect(self.desk.acting(self._on_incoming))
        self.viewer.events.theme.connect(self._on_theme)
        get_settings().appearance.events.font_size.connect(self._on_theme)
        self.viewer.dims.events.order.connect(self._on_view)
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
        column.setSpacing(7)
        for section in self.sections:
            column.addWidget(section)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        self.slices.header.insertWidget(1, self.tools.fold)
        self.tools.unfolded.connect(self._share_height)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(4)
        outer.addWidget(self.banner)
        outer.addWidget(scroll, 1)
        set_tab_order(self.banner, *self.sections)

    def _connect(self) -> None:
        viewer = self.viewer
        self.volume.open_file.connect(lambda: self._open(lambda: files.open_file(self, viewer)))
        self.volume.open_folder.connect(lambda: self._open(lambda: files.open_folder(self, viewer)))
        self.volume.open_sample.connect(lambda: self._open(lambda: files.open_sample(viewer)))
        self.volume.chosen.connect(self.desk.choose)
        self.train.left.connect(self.desk.focus_canvas)
        for signal, action in (
            (self.banner.restore, Workspace.restore_earlier),
            (self.banner.look, elsewhere.look),
            (self.banner.take_over, elsewhere.take_over),
            (self.banner.fresh, Workspace.start_fresh),
            (self.volume.window, self._set_window),
            (self.volume.card, self._show_card),
            (self.slices.went, go_in_view),
            (self.slices.state_set, lambda w, state: w.paint_sync.set_state(state)),
            (self.slices.cleared, lambda w: w.paint_sync.clear_slice()),
            (self.slices.planes.marked, mark_plane),
            (self.train.train, self._train),
            (self.train.finish, lambda w: w.runner.finish()),
            (self.train.stop, lambda w: w.runner.stop()),
            (self.result.accept, Workspace.accept),
            (self.result.next, go_to_suggestion),
            (self.result.predict, lambda w: w.busy or w.runner.predict()),
            (self.result.check, self._check),
            (self.result.review, lambda w: show_review(self, w, self.result.check)),
            (self.result.confidence, lambda w, shown: w.layers.show_confidence(shown)),
            (self.result.contour, lambda w, shown: w.layers.show_contour(shown)),
            (self.result.difference, Workspace.show_difference),
            (self.export.mask, lambda w: files.export(self, w, "Mask")),
            (self.export.model, lambda w: files.export(self, w, "Model")),
            (self.export.numbers, lambda w: files.export(self, w, "Numbers")),
            (self.export.report, lambda w: files.export(self, w, "Report")),
            (self.more.load, lambda w: files.load_model(self, w)),
            (self.more.adapt, lambda w: w.busy or w.runner.adapt()),
            (self.more.restored, Workspace.restore_round),
        ):
            signal.connect(self.desk.acting(action))

    # -- showing ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show the state of the active volume everywhere."""
        workspace = self.desk.active
        situation = (
            Situation(foreign=self.desk.foreign) if workspace is None else situation_of(workspace)
        )
        self.guide = guide(situation)
        choice: Choice = "earlier" if situation.waiting else ""
        if situation.elsewhere or situation.read_only:
            choice = "elsewhere" if situation.elsewhere else "read-only"
        self.banner.show_guide(self.guide, choice)
        self._orientation.show(workspace is not None)
        self.linked.show_state()
        for section in self.sections:
            section.show_state(workspace, self.guide)

    def _on_switched(self) -> None:
        desk = self.desk
        workspace = desk.active
        self.linked.follow()
        names = tuple(w.volume.name for w in desk.workspaces)
        index = desk.workspaces.index(workspace) if workspace is not None else 0
        self.volume.show_volume(workspace.volume if workspace else None, names, index)
        self._soon.start()

    def _on_view(self, event: object = None) -> None:
        self._soon.start()

    def _on_theme(self, event: object = None) -> None:
        palette = Palette.of(self.viewer)
        self.setStyleSheet(style_sheet(palette))
        self.setMinimumWidth(palette.px(_LEAST_WIDTH))
        for painted in (self.banner, self.labels.table, self.slices.navigator, self.train.curve):
            painted.set_palette(palette)
        self._soon.start()

    # -- actions ----------------------------------------------------------------------------

    def _train(self, workspace: Workspace, from_model: bool) -> None:
        workspace.train(self.more.form.settings(self.train.seconds), from_model)

    def _check(self, workspace: Workspace) -> None:
        workspace.check(self.more.form.settings(self.train.seconds or _CHECK_SECONDS))

    def _set_window(self, workspace: Workspace, preset: str) -> None:
        set_window(workspace, *PRESETS[preset])

    def _on_incoming(self, workspace: Workspace, layer: Any) -> None:
        if workspace.session is not None:
            incoming.ask_layer(self, workspace, layer)

    def _show_card(self, workspace: Workspace) -> None:
        if workspace.backbone_card:
            files.show_card(self, workspace.backbone_name, workspace.backbone_card)

    def _open(self, how: Callable[[], None]) -> None:
        try:
            how()
        except ValueError as error:
            if self.desk.active is not None:
                self.desk.active.fail(error)
            else:
                self.banner.show_guide(Guide(str(error), "error"))

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
        """Share the height out, so that the buttons of every section are in sight."""
        super().resizeEvent(event)
        self._share_height()

    def _share_height(self) -> None:
        tools = _TOOLS_HEIGHT if self.tools.fold.isChecked() else 0
        self.labels.table.fit_into(self.height() - tools)
        self.train.fit_into(self.height() - tools)
        # In a small window, what is used least while one corrects makes room for the tools.
        for part in (self.volume, self.result, self.train.budgets):
            part.setVisible(not tools or self.height() >= _ROOM_FOR_TOOLS)

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
        self.patients.close()
        self.desk.close(remove_layers)
        self.linked.close()
        self.keys.release()
        self._views.close()
        self._orientation.close()
        self.tools.release(self.viewer)
        self._threads.release()
