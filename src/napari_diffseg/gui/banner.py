"""The one sentence that says what to do next, always in sight at the top of the panel."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QLabel, QSizePolicy, QVBoxLayout

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.theme import ACCENT, ATTENTION, BAD, group, push

_EDGES = {"next": ACCENT, "busy": ATTENTION, "error": BAD}


class Banner(QFrame):
    """The sentence; with an earlier session also the choice to restore it."""

    restore = Signal()
    fresh = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("banner")
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        self.restore_button, self.fresh_button = push("Restore"), push("Start fresh")
        self.restore_button.setToolTip("Go on where the earlier work ended")
        self.fresh_button.setToolTip("Begin anew; the earlier work stays on disk")
        self.restore_button.clicked.connect(self.restore)
        self.fresh_button.clicked.connect(self.fresh)
        self.choice = group(self.restore_button, self.fresh_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 8, 10, 8)
        column.addWidget(self.sentence)
        column.addWidget(self.choice)
        # Two lines are kept free, so that the panel does not jump with every sentence.
        self.setMinimumHeight(2 * self.sentence.fontMetrics().height() + 22)
        self._tone = ""

    def show_guide(self, guide: Guide, choice: bool = False) -> None:
        """Show the sentence, its tone as a coloured edge, and the choice if there is one."""
        self.sentence.setText(guide.sentence)
        self.choice.setVisible(choice)
        if guide.tone != self._tone:
            self._tone = guide.tone
            edge = _EDGES[guide.tone].name()
            self.setStyleSheet(
                f"QFrame#banner {{ background: rgba(128, 128, 128, 40); "
                f"border: 0; border-left: 4px solid {edge}; }}"
                "QFrame#banner QLabel { font-size: 10pt; background: transparent; }"
            )
