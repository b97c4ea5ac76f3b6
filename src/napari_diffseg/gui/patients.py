"""From one patient to the next: the queue, the model that goes on, and what earlier ones taught.

While a patient is corrected and nothing runs, the next one of the queue is predicted in the
background.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_diffseg.gui.desk import Desk
from napari_diffseg.gui.io import volume_layer
from napari_diffseg.gui.layers import empty
from napari_diffseg.gui.learning_dialog import LearningDialog
from napari_diffseg.gui.queue_dialog import QueueDialog
from napari_diffseg.gui.runner import STOP_SECONDS
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.theme import allow, tool
from napari_diffseg.gui.worker import BackgroundCall, Task
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.io.volume import Volume, read_volume
from napari_diffseg.session.journal import SessionError, SessionInUseError
from napari_diffseg.session.log import volume_id
from napari_diffseg.session.queue import Queue, QueuedCase, queue_model

_LEARN = "Make one model from sessions of earlier patients; this patient then starts from it"
_QUEUE = "The patients that are to be segmented, and how far each of them is"


class Patients(QObject):
    """Three buttons in the title lines of two sections, and what they do."""

    changed = Signal()  # the queue, or what is known of its patients

    def __init__(self, panel: QWidget, desk: Desk, volume: Section, train: Section) -> None:
        super().__init__()
        self._panel, self.desk = panel, desk
        self.problem = ""  # why there is no queue
        self.queue: Queue | None = None
        self.learn_button, self.queue_button, self.next_button = (
            tool(text, "quiet")
            for text in ("Learn from earlier sessions…", "Queue…", "Next patient")
        )
        for section, button, action in (
            (train, self.learn_button, self.open_learning),
            (volume, self.queue_button, self.open_queue),
            (volume, self.next_button, self.go_on),
        ):
            section.body.setSpacing(3)  # which gives the height back that the title line takes
            section.header.addWidget(button)
            button.clicked.connect(action)
        self._learning: LearningDialog | None = None
        self._table: QueueDialog | None = None
        self._task: Task | None = None
        self._share = 0.0
        self._prepared: tuple[object, ...] = ()
        self._opening: QueuedCase | None = None
        self._opened: tuple[Workspace, QueuedCase] | None = None
        self._calls: list[BackgroundCall] = []
        self._closed = False
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self.refresh)
        desk.changed.connect(self._soon.start)
        self.changed.connect(self._soon.start)
        self._read_queue()
        self.refresh()

    def _read_queue(self) -> None:
        try:
            self.queue, self.problem = Queue(), ""
        except SessionError as error:
            self.queue, self.problem = None, str(error)

    # -- showing ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show what can be done now, and go on with what runs in the background."""
        if self._closed:
            return
        if self._opened is not None and self._opened[0] not in self.desk.workspaces:
            self._opened = None
        self._prepare()
        case = self.next_case()
        allow(self.learn_button, _LEARN, self._busy())
        allow(self.queue_button, _QUEUE, "")
        share = f" · {self._share:.0%}" if self._task is not None else ""
        self.next_button.setText("Opening…" if self._opening else f"Next patient{share}")
        help_text = ""
        if case is not None:
            ready = "it is being predicted meanwhile" if share else "its work is kept, too"
            help_text = f"Keep this patient's work and open {case.name}; {ready}"
        allow(self.next_button, help_text, self._why_not_next(case))

    def _why_not_next(self, case: QueuedCase | None) -> str:
        if self.queue is None or not self.queue.cases:
            return self.problem or "Add patients to the queue first."
        if case is None:
            return "Every other patient of the queue is finished."
        return self._busy() or ("The patient is being opened." if self._opening else "")

    def _busy(self) -> str:
        workspace = self.desk.active
        if workspace is None or workspace.session is None:
            return ""
        if workspace.busy:
            return "Wait until what runs has ended, or stop it first."
        return ""

    @property
    def current(self) -> QueuedCase | None:
        """The patient of the queue who is open."""
        workspace = self.desk.active
        if workspace is None or self.queue is None:
            return None
        if self._opened is not None and self._opened[0] is workspace:
            # The queue learns which volume it is only when the session is there.
            return self.queue.at(self._opened[1].path)
        return self.queue.of(volume_id(workspace.volume)) if workspace.session else None

    def next_case(self) -> QueuedCase | None:
        """Who comes next."""
        return None if self.queue is None else self.queue.next(self.current)

    # -- actions ----------------------------------------------------------------------------

    def open_learning(self, _: bool = False) -> None:
        """Show which earlier sessions can be learnt from."""
        if self._learning is None:
            self._learning = LearningDialog(self._panel, queue_model())
            self._learning.learnt.connect(self._on_learnt)
            self._learning.wanted.connect(self._use_model)
            self._learning.finished.connect(self._forget_learning)
        self._learning.show()
        self._learning.raise_()

    def _forget_learning(self, _: int = 0) -> None:
        self._learning = None

    def open_queue(self, _: bool = False) -> None:
        """Show the queue."""
        if self.queue is None:
            self._read_queue()
        if self.queue is None:
            self._fail(SessionError(self.problem))
            return
        if self._table is None:
            self._table = QueueDialog(self._panel, self.queue, lambda: self.current)
            self._table.changed.connect(self.changed)
            self._table.asked.connect(self.open_case)
            self.changed.connect(self._table.refresh)
            self._table.finished.connect(self._forget_table)
        self._table.show()
        self._table.raise_()

    def _forget_table(self, _: int = 0) -> None:
        if self._table is not None:
            self.changed.disconnect(self._table.refresh)
        self._table = None

    def go_on(self, _: bool = False) -> None:
        """Keep the work on this patient, and open the next one."""
        case = self.next_case()
        if case is not None:
            self.open_case(case, finish=True)

    def open_case(self, case: QueuedCase, finish: bool = False) -> None:
        """Open a patient of the queue in the place of the one that is open.

        ``finish`` notes that the one who is open is done, if a model was trained there.
        """
        workspace, left, queue = self.desk.active, self.current, self.queue
        if queue is None or self._opening is not None or self._busy():
            return
        session = workspace.session if workspace is not None else None
        if workspace is not None and session is not None:
            workspace.paint_sync.flush()
        trained = session is not None and any(
            one.settings is not None for one in session.rounds.all
        )
        task, self._opening = self._task, case
        self._task, self._prepared = None, ()  # it begins again if this patient stays
        if task is not None:
            task.stop()

        def work() -> Volume:
            if task is not None:
                task.wait(STOP_SECONDS)
            if session is not None:
                if not session.refusal:
                    session.save()  # or this patient stays
                    session.trainer.keep_slices()
                queue.take_model(session)
            return read_volume(case.path)

        def show(volume: Volume) -> None:
            if busy := self._busy():
                self._not_opened(SessionError(f"{case.name} was not opened. {busy}"))
                return
            try:
                if finish and left is not None and trained:
                    queue.finish(left.path)
            except SessionError as error:
                self._not_opened(error)
            else:
                self._show(workspace, case, volume)

        self._call(work, show, self._not_opened)
        self.changed.emit()

    def _not_opened(self, error: Exception) -> None:
        self._opening = None
        self._fail(error)
        self.changed.emit()

    def _show(self, before: Workspace | None, case: QueuedCase, volume: Volume) -> None:
        viewer = self.desk.viewer
        if before is not None and before.layers.ct in viewer.layers:
            viewer.layers.remove(before.layers.ct)
            empty(before.layers.ct)
        data, options, _ = volume_layer(volume)
        viewer.add_image(data, **options)
        self._opening = None
        workspace = self.desk.active
        if workspace is None:
            return
        self._opened = (workspace, case)
        workspace.changed.connect(self._restore_soon)
        workspace.ready.connect(self._begin_soon)
        # After the layers of the patient before, which are removed in the same way.
        QTimer.singleShot(0, lambda: self._bring_into_view(workspace))

    def _bring_into_view(self, workspace: Workspace) -> None:
        """Show the middle slice in full: napari stays where the patient before was."""
        if workspace in self.desk.workspaces:
            workspace.go(len(workspace.volume.hu) // 2)
            self.desk.viewer.fit_to_view()

    def _restore_soon(self) -> None:
        QTimer.singleShot(0, self._restore)

    def _begin_soon(self) -> None:
        QTimer.singleShot(0, self._begin)

    def _restore(self) -> None:
        """Bring the earlier work on a patient back: who asks for the patient asks for it, too."""
        if self._opened is not None:
            workspace, _ = self._opened
            if workspace in self.desk.workspaces and workspace.earlier is not None:
                workspace.restore_earlier()

    def _begin(self) -> None:
        """Start from the model of the last patient, where there is no work on this one."""
        if self._opened is None or self.queue is None:
            return
        workspace, case = self._opened
        if workspace not in self.desk.workspaces or workspace.session is None:
            return
        self.queue.read(case.path, volume_id(workspace.volume))
        session = workspace.session
        if session.paint.states.any():
            pass
        elif session.trainer.round is None and self.queue.model.exists():
            workspace.load_model(self.queue.model, by_name=True)
        elif session.trainer.round is not None and not workspace.predicted.all():
            workspace.runner.predict()
        cases = self.queue.cases
        done = sum(one.finished for one in cases)
        workspace.said = f"{case.name}: {done} of {len(cases)} patients are finished."
        self.changed.emit()

    def _on_learnt(self, path: Path) -> None:
        workspace = self.desk.active
        if workspace is not None and workspace.session is not None:
            if not workspace.session.paint.states.any() and not self._busy():
                self._use_model(path)
            elif self._learning is not None:
                self._learning.offer()
        self.changed.emit()

    def _use_model(self, path: Path) -> None:
        workspace = self.desk.active
        if workspace is None or workspace.session is None or self._busy():
            return
        workspace.load_model(path, by_name=True)
        workspace.said = "The model of earlier patients predicts this one."

    # -- in the background ------------------------------------------------------------------

    def _prepare(self) -> None:
        """Predict the next patient while nothing else runs; begin again with a newer model."""
        workspace, queue, case = self.desk.active, self.queue, self.next_case()
        if self._busy() or self._opening is not None or self._learns():
            if self._task is not None:
                self._task.stop()
            return
        if self._task is not None or workspace is None or queue is None or case is None:
            return
        session = workspace.session
        if session is None or session.trainer.round is None:
            return
        learnt = queue.model.stat().st_mtime if queue.model.exists() else 0.0
        wanted = (case.path, volume_id(workspace.volume), session.trainer.round.number, learnt)
        if wanted == self._prepared:
            return

        def steps() -> Generator[float, None, None]:
            queue.take_model(session)
            yield 0.0
            yield from queue.prepare(case)

        self._prepared, self._share = wanted, 0.0
        task = self._task = Task(steps)
        task.batch.connect(self._on_share)
        task.finished.connect(self._on_prepared)
        task.failed.connect(self._not_prepared)
        task.start()

    def _learns(self) -> bool:
        return self._learning is not None and self._learning.running

    def _on_share(self, shares: tuple[float, ...]) -> None:
        self._share = shares[-1]
        self._soon.start()

    def _on_prepared(self, stopped: bool) -> None:
        self._task = None
        if stopped:
            self._prepared = ()
        self.changed.emit()

    def _not_prepared(self, error: Exception) -> None:
        self._task = None
        if not isinstance(error, SessionInUseError):
            self._fail(error)
        self.changed.emit()

    def _call(
        self,
        function: Callable[[], Volume],
        done: Callable[[Volume], None],
        failed: Callable[[Exception], None],
    ) -> None:
        call = BackgroundCall(function, done, failed)
        self._calls = [one for one in self._calls if not one.over] + [call]

    def _fail(self, error: Exception) -> None:
        if self.desk.active is not None:
            self.desk.active.fail(error)
        else:
            self.problem = str(error)

    def close(self) -> None:
        """Stop what runs, keeping what it has done."""
        if self._closed:
            return
        self._closed = True
        if self._learning is not None:
            self._learning.close()
        if self._table is not None:
            self._table.close()
        if self._task is not None:
            self._task.stop()
            self._task.wait(STOP_SECONDS)
        for call in self._calls:
            call.wait(STOP_SECONDS)
