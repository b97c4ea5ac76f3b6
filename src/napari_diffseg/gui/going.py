"""Going to a slice, a plane, or what is suggested to paint next."""

from __future__ import annotations

from napari_diffseg.engine.planes import ARRAY_AXIS, Axis
from napari_diffseg.engine.suggest_plane import PlaneSuggestion
from napari_diffseg.gui.plane_bar import plane_in_view
from napari_diffseg.gui.workspace import Workspace


def go_to_plane(workspace: Workspace, axis: Axis, index: int) -> None:
    """Bring a coronal or sagittal plane into view, superior on top."""
    dims, along = workspace.layers.viewer.dims, ARRAY_AXIS[axis]
    dims.ndisplay = 2
    if plane_in_view(workspace) is None or dims.ndim - 3 + along in dims.displayed:
        others = [n for n in range(dims.ndim) if n != dims.ndim - 3 + along]
        dims.order = (*others[:-2], dims.ndim - 3 + along, *others[-2:])
    at = [0, 0, 0]
    at[along] = index
    dims.set_point(dims.ndim - 3 + along, workspace.layers.ct.data_to_world(at)[along])


def go_in_view(workspace: Workspace, n: int) -> None:
    """Bring the n-th slice into view, or the n-th plane where planes of that axis are shown."""
    key = plane_in_view(workspace)
    if key is None:
        workspace.go(n)
    else:
        go_to_plane(workspace, key[0], n)


def go_to_suggestion(workspace: Workspace) -> None:
    """Show what is suggested to paint next and say why; from there, the next best one."""
    suggestions, plane = workspace.suggestions, plane_in_view(workspace)
    here = "transverse" if plane is None else plane[0]
    at = workspace.in_view if plane is None else plane[1]
    if at in suggestions.on_axis(here):
        suggestions.skip()
    best = suggestions.best
    if best is None:
        return
    if isinstance(best, PlaneSuggestion):
        go_to_plane(workspace, best.axis, best.index)
    else:
        workspace.go(best.z, transverse=True)
    workspace.said = f"{best.reason}."
