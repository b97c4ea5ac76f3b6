"""One open CT: its session, its layers, what is painted and what runs. No widgets here.

Everything that the panel shows is read from here, and every button calls one method of here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.gui.io import VOLUME
from napari_diffseg.gui.layers import VolumeLayers
from napari_diffseg.gui.paint_sync import PaintSync
from napari_diffseg.gui.runner import STOP_SECONDS, Runner
from napari_diffseg.gui.suggestions import Suggestions
from napari_diffseg.gui.worker import BackgroundCall
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone
from napari_diffseg.session.journal import ReadOnlyError, SessionError, SessionInUseError
from napari_diffseg.session.readers import FIRST
from napari_diffseg.session.session import Session

T = TypeVar("T")


class Workspace(QObject):
    """A CT with its session; ``ct`` is an image layer with a volume in its metadata."""

    changed = Signal()  # anything that the panel shows may differ
    ready = Signal()  # there is a session
    closed = Signal()  # it is put away; dialogs about it go, too

    def __init__(self, viewer: Any, ct: Any) -> None:
        super().__init__()
        self.volume: Volume = ct.metadata[VOLUME]
        self.layers = VolumeLayers(viewer, ct, self.volume)
        self.session: Session | None = None
        self.earlier: Session | None = None  # waits for the user's choice
        self._opened: Session | None = None  # by a thread, and not begun yet
        self.elsewhere = ""  # the process that has the session open; waits for the user's choice
        self.hidden: set[int] = set()  # labels that are not drawn
        self.suggestions = Suggestions(self.call, self.changed.emit)
        self.error = self.said = ""
        self.reader = FIRST
        self.loading = self._closed = False
        self.backbone_name = self.backbone_error = ""
        self.backbone_card: dict[str, Any] = {}
        self._paint_sync: PaintSync | None = None
        self._runner: Runner | None = None
        self._calls: list[BackgroundCall] = []
        self._viewer = viewer
        viewer.dims.events.current_step.connect(self._on_step)
        self.find_earlier()

    # -- opening and closing ----------------------------------------------------------------

    def find_earlier(self) -> None:
        """Look for earlier work on this CT; where another window has it, the user chooses."""
        self.elsewhere = ""
        self.call(self._find, self._found, self._not_found)
        self.changed.emit()

    def _not_found(self, error: Exception) -> None:
        if isinstance(error, SessionInUseError):
            self.elsewhere = error.process
            self.changed.emit()
        else:
            self.fail(error)

    def _find(self) -> tuple[Session, bool, str]:
        # In a thread: hashing the volume and reading a journal take a while.
        note = ""
        try:
            earlier = Session.recover(self.volume)
        except SessionInUseError:
            raise
        except SessionError as error:
            earlier, note = None, f"A new session was begun: {error}."
        if earlier is None:
            return Session(self.volume), False, note
        paint = self.opened(earlier).paint
        return earlier, bool(paint.states.any() or paint.labels or earlier.rounds.all), note

    def opened(self, session: Session) -> Session:
        """Note a session that a thread has opened, so that closing closes it though not begun."""
        self._opened = session
        return session

    def _found(self, found: tuple[Session, bool, str]) -> None:
        session, is_earlier, note = found
        if is_earlier:
            self.earlier = session
            self.changed.emit()
        else:
            self.begin(session, note)

    def restore_earlier(self) -> None:
        """Go on where the earlier session ended."""
        if self.earlier is not None:
            session, self.earlier = self.earlier, None
            self.begin(session, " ".join(session.notes))

    def start_fresh(self) -> None:
        """Begin anew; the other session stays on disk, and in the window that has it open."""
        if self.undecided and not self.loading:
            self.begin(Session(self.volume), "")

    @property
    def undecided(self) -> bool:
        """Whether the user may choose another session: none is begun, or it cannot be changed."""
        if self.session is not None:
            return bool(self.session.refusal)
        return self.earlier is not None or bool(self.elsewhere)

    def begin(self, session: Session, note: str) -> None:
        """Work on a session, in the place of the one before if there is one."""
        self._opened = None
        self._put_away()
        self.earlier, self.elsewhere = None, ""
        self.suggestions.clear()
        session.trainer.current = self.current
        self.unsay()
        self.session, self.said = session, note
        self.layers.show_paint(session.paint.mask)
        self.layers.show_prediction(session.prediction.mask, session.prediction.confidence)
        sync = PaintSync(session, self.layers, lambda: self.current, lambda: self.in_view)
        sync.changed.connect(self._on_stroke)
        sync.corrected.connect(self._on_stroke)
        sync.labelled.connect(self.recolour)
        sync.failed.connect(self.fail)
        runner = Runner(session, self.layers)
        runner.changed.connect(self.changed)
        runner.ended.connect(self._on_ended)
        runner.failed.connect(self.fail)
        self._paint_sync, self._runner = sync, runner
        self.put_layers_back()
        self.recolour()
        self.suggestions.ask(self.session)
        self.call(lambda: session.trainer.backbone, self._know_backbone, self._lack_backbone)
        self.layers.let_edit(not session.refusal)
        self.ready.emit()

    def _know_backbone(self, backbone: Backbone) -> None:
        self.backbone_name, self.backbone_card = backbone.name, dict(backbone.card)
        self.changed.emit()

    def _lack_backbone(self, error: Exception) -> None:
        # Shown in the chip only: painting, and training from scratch, need none.
        self.backbone_error = str(error)
        self.changed.emit()

    def put_layers_back(self) -> None:
        """Make the layers, or those of them that the user has removed."""
        if self.session is not None and not self._closed:
            prediction = self.session.prediction
            self.layers.ensure(self.session.paint.mask, prediction.mask, prediction.confidence)
            self.paint_sync.watch()

    def close(self) -> None:
        """Stop what runs, keep every stroke, and let go of the session."""
        if self._closed:
            return
        self._closed = True
        self.closed.emit()
        self._viewer.dims.events.current_step.disconnect(self._on_step)
        for call in self._calls:
            call.wait(STOP_SECONDS)
        self._put_away()

    def _put_away(self) -> None:
        if self._runner is not None:
            self._runner.close()
        if self._paint_sync is not None:
            self._paint_sync.close()
        for session in (self.session, self.earlier, self._opened):
            if session is not None:
                session.close()

    # There is a session, and what works on it, once `ready` was emitted.

    @property
    def begun(self) -> Session:
        """The session."""
        return _made(self.session)

    @property
    def paint_sync(self) -> PaintSync:
        """Strokes and slice states."""
        return _made(self._paint_sync)

    @property
    def runner(self) -> Runner:
        """What runs in the background."""
        return _made(self._runner)

    @property
    def current(self) -> int:
        """Slice in view."""
        z = self.layers.ct.world_to_data(self._viewer.dims.point[-3:])[0]
        return int(np.clip(round(float(z)), 0, len(self.volume.hu) - 1))

    @property
    def in_view(self) -> int | None:
        """Transverse slice in view; ``None`` in another plane or in 3D, where no slice is."""
        dims = self._viewer.dims
        return self.current if dims.displayed == (dims.ndim - 2, dims.ndim - 1) else None

    def go(self, z: int, transverse: bool = False) -> None:
        """Bring a slice into view, ``transverse``: whatever plane is in view."""
        if transverse and self.in_view is None:
            self._viewer.dims.ndisplay = 2
            self._viewer.dims.order = tuple(range(self._viewer.dims.ndim))
        world = self.layers.ct.data_to_world((z, 0, 0))[0]
        self._viewer.dims.set_point(self._viewer.dims.ndim - 3, world)

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Slices ``(z,)`` that the model in use has predicted, or the user has corrected."""
        done = np.zeros(len(self.volume.hu), bool)
        s = self.session
        if s is not None:
            if s.trainer.round is not None:
                done |= s.prediction.round_of == s.trainer.round.number
            done[list(s.prediction.edited)] = True
        return done

    def _on_step(self, event: object = None) -> None:
        if self.session is not None:
            self.session.trainer.current = self.current
        self.changed.emit()

    def _on_stroke(self, z: int) -> None:
        self.suggestions.drop(z)
        self.unsay()
        self.changed.emit()

    def accept(self) -> None:
        """Take the prediction of the slice in view as truth, and mark where to go next."""
        self.paint_sync.accept()
        self.suggestions.ask(self.session)
        self.said = f"Slice {self.current} accepted."

    # -- labels and layers ------------------------------------------------------------------

    def recolour(self) -> None:
        """Show the labels' colours, without the hidden ones."""
        if self.session is not None:
            self.layers.colour(self.session.paint.labels, frozenset(self.hidden))
            self.changed.emit()

    def toggle_eye(self, label_id: int) -> None:
        """Hide a label, or show it again."""
        self.hidden ^= {label_id}
        self.recolour()

    def toggle_lock(self, label_id: int) -> None:
        """Keep strokes from changing a label, or let them again."""
        self.paint_sync.locked ^= {label_id}
        self.changed.emit()

    def take_brush(self, label_id: int) -> None:
        """Paint with a label from now on."""
        paint = self.layers.paint
        if paint is None:
            return
        self._viewer.layers.selection.active = paint
        paint.selected_label = label_id
        if paint.mode not in ("paint", "fill", "polygon"):
            paint.mode = "paint"
        self.changed.emit()

    def show_session(self) -> None:
        """Show what the session holds after a restore or a removed label."""
        s = self.begun
        self.layers.show_paint(s.paint.mask)
        self.layers.show_prediction(s.prediction.mask, s.prediction.confidence)
        self.suggestions.ask(self.session)

    def show_difference(self, shown: bool) -> None:
        """Show where the prediction differs from the one before, or stop showing it."""
        now, previous = self.begun.prediction.mask, self.runner.previous
        changed = now != previous if shown and previous is not None else None
        self.layers.show_difference(changed)
        self.changed.emit()

    # -- what takes long --------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether nothing may begin with the model; buttons know it a turn of the loop later."""
        return self._closed or self.loading or bool(self.runner.running)

    def train(self, settings: TrainSettings, from_model: bool) -> None:
        """Train on all painted slices, then predict every slice, in the background."""
        if not self.busy:
            self._flush()
            self.paint_sync.since_round.clear()
            self.runner.train(settings, from_model)

    def check(self, settings: TrainSettings) -> None:
        """Measure the quality by leaving each painted slice out once."""
        if not self.busy:
            self._flush()
            self.runner.check(settings)

    def load_model(self, path: Path, by_name: bool = False) -> None:
        """Load a model, then predict with it.

        One of earlier patients, whose labels are matched ``by_name``, adapts to this CT first.
        """
        after = self.runner.adapt if by_name else self.runner.predict
        self._load(lambda: self.begun.trainer.load_model(path, by_name), after)

    def restore_round(self, number: int) -> None:
        """Bring back a round's model and prediction."""

        def done() -> None:
            self.said = f"Round {number} restored."
            self.show_session()

        self._load(lambda: self.begun.trainer.restore(number), done)

    def _load(self, load: Callable[[], None], then: Callable[[], None]) -> None:
        def done(_: object) -> None:
            self.loading = False
            self.recolour()
            then()

        def failed(error: Exception) -> None:
            self.loading = False
            self.fail(error)

        if self.busy:
            return
        self._flush()
        self.loading = True
        self.call(load, done, failed)
        self.changed.emit()

    def save(self, path: Path, write: Callable[[Path], Any], what: str) -> None:
        """Export and say so."""

        def done(_: object) -> None:
            self.error, self.said = "", f"{what} saved as {path.name}."
            self.changed.emit()

        self.paint_sync.flush()
        self.call(lambda: write(path), done)

    def _flush(self) -> None:
        """Bring every stroke into the session, and clear the sentence, before something begins."""
        self.paint_sync.flush()
        self.unsay()

    def unsay(self) -> None:
        """Clear what the sentence says of the past, which no longer holds."""
        self.error = self.said = ""

    def call(
        self,
        function: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Run something that takes long in a thread, then go on with its result."""
        call = BackgroundCall(function, done, failed or self.fail)
        self._calls = [c for c in self._calls if not c.over] + [call]

    def _on_ended(self, sentence: str) -> None:
        self.error, self.said = "", sentence
        stray, self.begun.trainer.stray = self.begun.trainer.stray, ()
        if stray:  # as a step that Ctrl+Z takes back
            self.paint_sync.change("prediction", lambda: stray)
            self.said = f"{sentence} Pieces astray were removed; Ctrl+Z brings them back.".strip()
        self.suggestions.ask(self.session)

    def fail(self, error: Exception) -> None:
        """Show an error as the sentence; one that is our own fault also in napari's manner."""
        self.error = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, ReadOnlyError):
            self.error = ""  # the sentence says so anyway, for as long as it holds
            self.layers.let_edit(False)
        if not isinstance(error, ValueError | OSError | MemoryError):
            from napari.utils.notifications import notification_manager

            notification_manager.receive_error(type(error), error, error.__traceback__)
        self.changed.emit()


def _made(part: T | None) -> T:
    if part is None:
        raise SessionError("The CT is still being made ready.")
    return part
