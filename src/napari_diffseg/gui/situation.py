"""From a workspace to the small description that the sentence and the buttons depend on."""

from __future__ import annotations

from napari_diffseg.gui.guide import Situation
from napari_diffseg.gui.plane_bar import plane_in_view
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.paint import SliceState
from napari_diffseg.session.session import Session


def situation_of(workspace: Workspace) -> Situation:
    """Describe the state of a workspace."""
    s, z = workspace.session, workspace.current
    if s is None:
        painted = 0 if workspace.earlier is None else _painted(workspace.earlier)
        return Situation(
            volume=workspace.volume.name,
            opening=workspace.earlier is None and not workspace.elsewhere,
            recoverable=painted,
            waiting=workspace.earlier is not None,
            elsewhere=workspace.elsewhere,
            error=workspace.error,
        )
    made = s.trainer.round
    return Situation(
        volume=workspace.volume.name,
        read_only=_sentence(s.refusal),
        labels=tuple(label.name for label in s.paint.labels),
        painted=_painted(s),
        changed=len(workspace.paint_sync.since_round),
        corrected=len(s.prediction.edited),
        model=s.trainer.segmenter is not None,
        taught=made is not None and (made.settings is not None or made.adapted),
        predicted=int(workspace.predicted.sum()),
        suggested=workspace.suggestions.best is not None,
        slices=len(workspace.volume.hu),
        current=z,
        current_predicted=bool(s.prediction.there[z]),
        current_preview=z in workspace.layers.previewed,
        current_truth=bool(s.paint.states[z] >= SliceState.PAINTED),
        plane=_plane(workspace, s),
        rounds=len(s.rounds.all),
        comparable=workspace.runner.previous is not None,
        task="loading" if workspace.loading else workspace.runner.running,
        done=workspace.runner.done,
        error=workspace.error,
        said=workspace.said,
    )


def _plane(workspace: Workspace, session: Session) -> str:
    key = plane_in_view(workspace)
    if key is None or session.paint.planes.state(*key) == SliceState.PAINTED:
        return ""
    return f"{key[0].capitalize()} {key[1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _painted(session: Session) -> int:
    return int((session.paint.states > 0).sum())
