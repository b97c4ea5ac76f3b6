"""What the newest round has brought, to click through."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QDialog, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_diffseg.gui.theme import text_label, tool
from napari_diffseg.gui.workspace import Workspace
from napari_diffseg.session.review import RoundReview, review_round, worth_text

_MOST = 40  # slices that are listed


class ReviewDialog(QDialog):
    """Quality, what another slice is worth, labels that fight, slices that changed.

    Parameters
    ----------
    parent
        The panel.
    workspace
        What was trained.
    found
        What its newest round has brought.
    """

    check = Signal()  # measure the quality

    def __init__(self, parent: QWidget, workspace: Workspace, found: RoundReview) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Round {found.number}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        workspace.closed.connect(self.close, Qt.ConnectionType.QueuedConnection)
        self._workspace = workspace
        self._names = {label.id: label.name for label in workspace.begun.paint.labels}
        self.quality = text_label(self._quality(found), wrap=True)
        self.measure = tool("Check quality")
        self.measure.setToolTip("Train without each painted slice in turn, and compare")
        self.measure.clicked.connect(self._on_check)
        self.measure.setVisible(not found.quality)
        self.fights, self.changed = QListWidget(), QListWidget()
        self.fights.setAccessibleName("Labels that fight")
        self.changed.setAccessibleName("Slices that changed")
        for fight in found.fights:
            one, other = (self._names.get(i, str(i)) for i in fight.labels)
            text = f"{one} and {other} · {fight.mm2 / 100:.1f} cm² · most on slice {fight.z}"
            self._add(self.fights, text, fight.z)
        for change in found.changed[:_MOST]:
            self._add(self.changed, f"Slice {change.z} · {change.mm2 / 100:.1f} cm²", change.z)
        fights = "Labels that touch where the model is sure of neither" if found.fights else (
            "No labels touch where the model is sure of neither."
        )  # fmt: skip
        count = len(found.changed)
        changed = f"{count} slices changed since the round before" if count else (
            "No slice changed since the round before, or there is none."
        )  # fmt: skip
        column = QVBoxLayout(self)
        for widget in (
            *(self.quality, self.measure),
            *(text_label(fights), self.fights, text_label(changed), self.changed),
        ):
            column.addWidget(widget)
        self.fights.setVisible(bool(found.fights))
        self.changed.setVisible(bool(found.changed))
        self.fights.setMaximumHeight(130)
        self.resize(420, 460)

    def _quality(self, found: RoundReview) -> str:
        if found.worth is None:
            return "The quality of this round was not measured."
        worst = min(found.quality, key=lambda key: found.quality[key])
        mean = sum(found.quality.values()) / len(found.quality)
        return (
            f"Leave-one-out Dice {mean:.2f}, lowest {self._names.get(worst, worst)} "
            f"({found.quality[worst]:.2f}). {worth_text(found.worth)}"
        )

    def _add(self, shown: QListWidget, text: str, z: int) -> None:
        item = QListWidgetItem(text)
        item.setData(Qt.ItemDataRole.UserRole, z)
        shown.addItem(item)
        if shown.count() == 1:
            shown.currentItemChanged.connect(self._go)

    def _go(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self._workspace.go(int(item.data(Qt.ItemDataRole.UserRole)))

    def _on_check(self) -> None:
        self.check.emit()
        self.close()


def show_review(parent: QWidget, workspace: Workspace, check: Signal) -> None:
    """Look at the newest round in a thread, then show what it has brought."""

    def show(found: RoundReview) -> None:
        dialog = ReviewDialog(parent, workspace, found)
        dialog.check.connect(check)
        dialog.show()

    workspace.paint_sync.flush()
    workspace.call(lambda: review_round(workspace.begun), show)
