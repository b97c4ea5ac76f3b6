"""One open CT: its session, its layers, its strokes. No widgets here.

Everything that the panel shows is read from here, and every button calls one method of here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_diffseg.backbone import Backbone
from napari_diffseg.finetune import BACKGROUND, TrainSettings
from napari_diffseg.gui.guide import Situation
from napari_diffseg.gui.io import VOLUME
from napari_diffseg.gui.layers import VolumeLayers
from napari_diffseg.gui.runner import STOP_SECONDS, Runner
from napari_diffseg.gui.strokes import StrokeWatcher, keep_locked
from napari_diffseg.gui.worker import Errand
from napari_diffseg.session import Session, SliceState
from napari_diffseg.volume import Volume


class Workspace(QObject):
    """A CT with its session.

    Signals: ``changed`` when anything that the panel shows may differ; ``ready`` once there is a
    session.

    Parameters
    ----------
    viewer
        The napari viewer.
    ct
        An image layer with a :class:`Volume` in its metadata.
    """

    changed = Signal()
    ready = Signal()

    def __init__(self, viewer: Any, ct: Any) -> None:
        super().__init__()
        self.volume: Volume = ct.metadata[VOLUME]
        self.layers = VolumeLayers(viewer, ct, self.volume)
        self.session: Session | None = None
        self.runner: Runner | None = None
        self.earlier: Session | None = None
        self.locked: set[int] = set()
        self.hidden: set[int] = set()
        self.fresh_state = SliceState.PAINTED
        self.suggested: dict[int, str] = {}
        self.since_round: set[int] = set()
        self._present: dict[int, frozenset[int]] = {}
        self.error = self.said = ""
        self.backbone_name = ""
        self.backbone_card: dict[str, Any] = {}
        self._watcher: StrokeWatcher | None = None
        self._errands: list[Errand] = []
        self._closed = False
        self._viewer = viewer
        viewer.dims.events.current_step.connect(self._on_step)
        self.errand(self._find, self._found)

    # -- opening and closing ----------------------------------------------------------------

    def _find(self) -> tuple[Session, bool]:
        # In a thread: hashing the volume and reading a journal take a while.
        earlier = Session.recover(self.volume)
        return (Session(self.volume), False) if earlier is None else (earlier, True)

    def _found(self, found: tuple[Session, bool]) -> None:
        session, is_earlier = found
        if is_earlier:
            self.earlier = session
            self.changed.emit()
        else:
            self._begin(session)

    def restore_earlier(self) -> None:
        """Go on where the earlier session ended."""
        if self.earlier is not None:
            session, self.earlier = self.earlier, None
            self._begin(session)

    def start_fresh(self) -> None:
        """Begin anew; the earlier session stays on disk."""
        if self.earlier is not None:
            self.earlier.close()
            self.earlier = None
            self._begin(Session(self.volume))

    def _begin(self, session: Session) -> None:
        session.current = self.current
        self.session = session
        for z in np.flatnonzero(session.states):
            self._note_present(int(z))
        self.runner = Runner(session, self.layers)
        self.runner.changed.connect(self.changed)
        self.runner.began.connect(self.since_round.clear)
        self.runner.ended.connect(self._on_ended)
        self.runner.failed.connect(self.fail)
        self.said = " ".join(session.notes)
        self.put_layers_back()
        self.recolour()
        self.suggest()
        self.errand(lambda: session.backbone, self._know_backbone)
        self.ready.emit()

    def _know_backbone(self, backbone: Backbone) -> None:
        self.backbone_name, self.backbone_card = backbone.name, dict(backbone.card)
        self.changed.emit()

    def put_layers_back(self) -> None:
        """Make the layers, or those of them that the user has removed."""
        s = self.session
        if s is None or self._closed:
            return
        before = self.layers.paint, self.layers.prediction
        self.layers.ensure(s.paint, s.prediction, s.confidence)
        paint, prediction = self.layers.paint, self.layers.prediction
        assert paint is not None and prediction is not None
        if paint is not before[0]:
            if self._watcher is not None:
                self._watcher.close()
            self._watcher = StrokeWatcher(
                paint, lambda: s.paint, lambda: self.current, self._stroke
            )
        if prediction is not before[1]:
            prediction.events.paint.connect(self._on_correction)

    def close(self, remove_layers: bool) -> None:
        """Stop what runs, keep every stroke, and let go of the session.

        Parameters
        ----------
        remove_layers
            Take paint, prediction and confidence off the viewer as well.
        """
        if self._closed:
            return
        self._closed = True
        self._viewer.dims.events.current_step.disconnect(self._on_step)
        if self.runner is not None:
            self.runner.close()
        for errand in self._errands:
            errand.wait(STOP_SECONDS)
        self.flush()
        if self._watcher is not None:
            self._watcher.close()
        if remove_layers:
            self.layers.remove()
        for session in (self.session, self.earlier):
            if session is not None:
                session.close()

    # -- slices -----------------------------------------------------------------------------

    @property
    def current(self) -> int:
        """Slice in view."""
        z = self.layers.ct.world_to_data(self._viewer.dims.point[-3:])[0]
        return int(np.clip(round(float(z)), 0, len(self.volume.hu) - 1))

    def go(self, z: int) -> None:
        """Bring a slice into view."""
        world = self.layers.ct.data_to_world((z, 0, 0))[0]
        self._viewer.dims.set_point(self._viewer.dims.ndim - 3, world)

    def flush(self) -> None:
        """Bring every stroke into the session now."""
        if self._watcher is not None:
            self._watcher.flush()

    def _on_step(self, event: object = None) -> None:
        if self.session is not None:
            self.session.current = self.current
        self.changed.emit()

    def _stroke(self, z: int, after: NDArray[np.uint8]) -> None:
        s, paint = self.session, self.layers.paint
        assert s is not None and paint is not None
        if keep_locked(s.paint[z], after, self.locked):
            paint.refresh(thumbnail=False, extent=False, highlight=False)
            if np.array_equal(s.paint[z], after):
                return
        fresh = s.states[z] == SliceState.UNPAINTED
        state = self.fresh_state if fresh else None if after.any() else SliceState.UNPAINTED
        labels = len(s.labels)
        s.set_slice(z, after, state)
        if len(s.labels) != labels:
            self.recolour()
        self._truth_changed(z)

    def _on_correction(self, event: object = None) -> None:
        s = self.session
        assert s is not None
        z = self.current
        if s.predicted[z]:
            s.edit_prediction(z, s.prediction[z])
            self.error = self.said = ""
        else:
            self.error = f"Slice {z} has no prediction to correct: paint it in the paint layer."
        self.changed.emit()

    def _note_present(self, z: int) -> None:
        s = self.session
        assert s is not None
        ids = np.flatnonzero(np.bincount(s.paint[z].ravel(), minlength=256)).tolist()
        self._present[z] = frozenset(ids) - {0, BACKGROUND}

    def _truth_changed(self, z: int) -> None:
        self._note_present(z)
        self.since_round.add(z)
        self.suggested.pop(z, None)
        self.error = self.said = ""
        self.changed.emit()

    def set_state(self, state: SliceState) -> None:
        """Say how the slice in view is painted; fresh slices will be taken the same way."""
        s = self.session
        if s is not None:
            self.fresh_state, z = state, self.current
            s.set_state(z, state)
            self._truth_changed(z)

    def clear_slice(self) -> None:
        """Take the paint off the slice in view; Ctrl+Z brings it back."""
        s = self.session
        if s is not None:
            z = self.current
            s.clear_slice(z)
            self._show_truth(z)
            self._truth_changed(z)

    def accept(self) -> None:
        """Take the prediction of the slice in view as truth; scribbles on it win."""
        s = self.session
        if s is None:
            return
        self.flush()
        z = self.current
        merged = np.where(s.paint[z] != 0, s.paint[z] % BACKGROUND, s.prediction[z])
        if not np.array_equal(merged, s.prediction[z]):
            s.edit_prediction(z, merged)
        s.accept(z)
        self._show_truth(z)
        self._truth_changed(z)
        self.said = f"Slice {z} accepted."
        self.suggest()

    def _show_truth(self, z: int) -> None:
        s, paint = self.session, self.layers.paint
        assert s is not None and paint is not None
        where = np.nonzero(paint.data[z] != s.paint[z])
        if len(where[0]):
            # Through napari's own door, so that Ctrl+Z takes it back.
            paint.data_setitem((np.full(len(where[0]), z), *where), s.paint[z][where])

    def suggest(self) -> None:
        """Mark the slice whose paint should help most."""
        if self.session is not None and self.session.predicted.any():
            self.suggested = {s.z: s.reason for s in self.session.suggest(1)}
        self.changed.emit()

    def go_to_suggestion(self) -> None:
        """Show the suggested slice and say why."""
        self.suggest()
        for z, reason in self.suggested.items():
            self.go(z)
            self.said = f"{reason}."
        self.changed.emit()

    # -- labels, layers and errands ---------------------------------------------------------

    def present_names(self) -> dict[int, str]:
        """Names of the labels painted on each slice."""
        names = {label.id: label.name for label in self.session.labels} if self.session else {}
        return {
            z: ", ".join(names[i] for i in sorted(ids) if i in names)
            for z, ids in self._present.items()
        }

    def slices_per_label(self) -> Counter[int]:
        """Count the painted slices of each label."""
        return Counter(i for ids in self._present.values() for i in ids)

    def quality_before(self) -> dict[int, float]:
        """Leave-one-out Dice of the last round before this one that was measured."""
        s = self.session
        if s is None or s.round is None:
            return {}
        measured = [r.quality for r in s.rounds if r.number < s.round.number and r.quality]
        return measured[-1] if measured else {}

    def add_label(self) -> int:
        """Add a label, take it into the brush, and return its id."""
        assert self.session is not None
        label = self.session.add_label()
        self.recolour()
        self.take_brush(label.id)
        return label.id

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

    def rename_label(self, label_id: int, name: str) -> None:
        """Name a label."""
        assert self.session is not None
        self.session.rename_label(label_id, name)
        self.recolour()

    def remove_label(self, label_id: int) -> None:
        """Remove a label that is painted nowhere."""
        assert self.session is not None
        self.session.remove_label(label_id)
        self.show_session()
        self.recolour()

    def import_names(self, path: str) -> None:
        """Import names from a JSON file."""
        assert self.session is not None
        self.session.import_names(path)
        self.recolour()

    def load_model(self, path: Path) -> None:
        """Load a model in a thread, then predict with it."""
        s, runner = self.session, self.runner
        assert s is not None and runner is not None

        def done(_: object) -> None:
            self.recolour()
            runner.predict()

        self.errand(lambda: s.load_model(path), done)

    def restore_round(self, number: int) -> None:
        """Bring back a round's model and prediction."""
        s = self.session
        assert s is not None

        def done(_: object) -> None:
            self.said = f"Round {number} restored."
            self.show_session()

        self.errand(lambda: s.restore(number), done)

    def check(self, settings: TrainSettings) -> None:
        """Measure the quality."""
        if self.runner is not None and not self.runner.running:
            self.flush()
            self.runner.check(settings)

    def recolour(self) -> None:
        """Show the labels' colours, without the hidden ones."""
        if self.session is not None:
            self.layers.colour(self.session.labels, frozenset(self.hidden))
            self.changed.emit()

    def show_session(self) -> None:
        """Show what the session holds after a restore or a loaded model."""
        if self.session is not None:
            self.layers.show_paint(self.session.paint)
            self.layers.show_prediction(
                self.session.prediction, self.session.confidence, fresh=True
            )
            self.suggest()

    def show_difference(self, shown: bool) -> None:
        """Show where the prediction differs from the one before, or stop showing it."""
        s, previous = self.session, self.runner.previous if self.runner is not None else None
        if s is not None:
            known = shown and previous is not None
            self.layers.show_difference(s.prediction != previous if known else None)
            self.changed.emit()

    def errand(self, function: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run something that takes long in a thread, then go on with its result."""
        errand = Errand(function, done, self.fail)
        self._errands = [e for e in self._errands if not e.over] + [errand]

    def save(self, path: Path, write: Callable[[Path], None], what: str) -> None:
        """Export in a thread and say so."""

        def done(_: object) -> None:
            self.error, self.said = "", f"{what} saved as {path.name}."
            self.changed.emit()

        self.flush()
        self.errand(lambda: write(path), done)

    def train(self, settings: TrainSettings, from_model: bool) -> None:
        """Train on all painted slices, then predict every slice, in the background."""
        if self.runner is not None and not self.runner.running:
            self.flush()
            self.error = self.said = ""
            self.runner.train(settings, from_model)

    def _on_ended(self, sentence: str) -> None:
        self.error, self.said = "", sentence
        self.suggest()

    def fail(self, error: Exception) -> None:
        """Show an error as the sentence; one that is our own fault also in napari's manner."""
        self.error = (str(error) or type(error).__name__).splitlines()[0]
        if not isinstance(error, ValueError | OSError | MemoryError):
            from napari.utils.notifications import notification_manager

            notification_manager.receive_error(type(error), error, error.__traceback__)
        self.changed.emit()

    # -- the state in short -----------------------------------------------------------------

    def situation(self) -> Situation:
        """Describe the state for the sentence and the buttons."""
        s, runner, z = self.session, self.runner, self.current
        if s is None or runner is None:
            painted = 0 if self.earlier is None else int((self.earlier.states > 0).sum())
            return Situation(
                volume=self.volume.name,
                opening=self.earlier is None and not self.error,
                recoverable=painted,
                waiting=self.earlier is not None,
                error=self.error,
            )
        return Situation(
            volume=self.volume.name,
            labels=tuple(label.name for label in s.labels),
            painted=int((s.states > 0).sum()),
            changed=len(self.since_round),
            corrected=len(s.edited),
            model=s.segmenter is not None,
            predicted=int(self.predicted.sum()),
            slices=len(s.states),
            current=z,
            current_predicted=bool(s.predicted[z]),
            current_truth=bool(s.states[z] >= SliceState.PAINTED),
            rounds=len(s.rounds),
            comparable=runner.previous is not None,
            task=runner.running,
            done=runner.done,
            error=self.error,
            said=self.said,
        )

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """Slices ``(z,)`` that the model in use has predicted, or the user has corrected."""
        s = self.session
        if s is None or s.round is None:
            return np.zeros(len(self.volume.hu), bool)
        done = s.predicted == s.round.number
        done[list(s.edited)] = True
        return np.asarray(done)
