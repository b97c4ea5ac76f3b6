"""Several readers of one CT, from the menu of the labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu, QWidget

from napari_diffseg.gui import comparison
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.io.files import atomic_write, check_outputs
from napari_diffseg.session.journal import SessionError, saving
from napari_diffseg.session.readers import agreement_csv, read_as, readers_of, reading
from napari_diffseg.session.session import Session


def offer(menu: QMenu, parent: QWidget, workspace: Workspace) -> None:
    """Add what can be done with other readers to a menu."""
    others = [name for name in readers_of(workspace.volume) if name != workspace.reader]
    act = partial(_act, workspace)
    menu.addSeparator()
    for name in others:
        menu.addAction(f"Read as {name}", partial(act, switch, name))
    menu.addAction("Read as someone else…", partial(act, ask, parent))
    for name in others:
        menu.addAction(f"Compare with {name}", partial(act, compare_with, parent, name))
    if others:
        menu.addAction("Agreement of all readers…", partial(act, save_agreement, parent))


def _act(workspace: Workspace, action: object, *values: object) -> None:
    try:
        action(workspace, *values)  # type: ignore[operator]
    except ValueError as error:
        workspace.fail(error)


def ask(workspace: Workspace, parent: QWidget) -> None:
    """Ask who reads, and go on as they."""
    name, given = QInputDialog.getText(parent, "Read as someone else", "Name or initials:")
    if given and name.strip():
        switch(workspace, name.strip())


def switch(workspace: Workspace, name: str) -> None:
    """Put the reader's own session in the place of the one that is open, which is kept."""
    if workspace.busy:
        raise SessionError("wait for what runs, or stop it, before somebody else reads")
    workspace.paint_sync.flush()
    labels = workspace.begun.paint.labels
    workspace.loading = True

    def done(session: Session) -> None:
        workspace.loading, workspace.reader = False, name
        workspace.begin(session, f"Reading as {name}; nothing of other readers is shown.")
        workspace.show_session()
        workspace.changed.emit()

    def failed(error: Exception) -> None:
        workspace.loading = False
        workspace.fail(error)

    def open_theirs() -> Session:
        return workspace.opened(read_as(workspace.volume, name, labels))

    workspace.call(open_theirs, done, failed)
    workspace.changed.emit()


def compare_with(workspace: Workspace, parent: QWidget, name: str) -> None:
    """Compare the result with another reader's."""
    comparison.with_labels(parent, workspace, name, lambda: reading(workspace.volume, name))


def save_agreement(workspace: Workspace, parent: QWidget) -> None:
    """Write the agreement of each pair of readers as a table."""
    path, _ = QFileDialog.getSaveFileName(parent, "Agreement", "readers.csv", "CSV (*.csv)")
    if path:
        workspace.begun.save()
        workspace.save(Path(path), partial(_write, workspace), "Agreement")


def _write(workspace: Workspace, path: Path) -> None:
    check_outputs([path], [workspace.volume.geometry.source])
    text = agreement_csv(workspace.volume)
    failed = f"{path}: cannot be written ({{reason}}); choose another place"
    with saving(failed), atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
