"""What can be done with a session that another window has open: look at it, or take it over."""

from __future__ import annotations

from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.session import Access, Session


def look(workspace: Workspace) -> None:
    """Show what is saved so far; nothing can be changed."""
    _open(workspace, "read-only")


def take_over(workspace: Workspace) -> None:
    """Go on with all that is saved; the other window can change nothing any more."""
    _open(workspace, "take over")


def _open(workspace: Workspace, access: Access) -> None:
    if not workspace.undecided or workspace.loading:
        return
    elsewhere, workspace.elsewhere = workspace.elsewhere, ""
    workspace.loading = True

    def done(session: Session) -> None:
        workspace.loading = False
        workspace.begin(session, " ".join(session.notes))

    def failed(error: Exception) -> None:
        workspace.loading, workspace.elsewhere = False, elsewhere
        workspace.fail(error)

    def found() -> Session:
        # In a thread: reading a journal and copying models take a while.
        session = Session.recover(workspace.volume, access=access)
        return Session(workspace.volume) if session is None else workspace.opened(session)

    workspace.call(found, done, failed)
    workspace.changed.emit()
