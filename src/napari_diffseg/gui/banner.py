"""The one sentence that says what to do next, always in sight at the top of the panel."""

from __future__ import annotations

from typing import Literal

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QVBoxLayout

from napari_diffseg.gui.elided import ElidedLabel
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.theme import ACCENT, ATTENTION, BAD, group, push

_EDGES = {"next": ACCENT, "busy": ATTENTION, "error": BAD}
_LINES = 3  # of the sentence; they are kept free, so that the panel does not jump
Choice = Literal["", "earlier", "elsewhere"]


class Banner(QFrame):
    """The sentence; where there is earlier work also the choice what to do with it."""

    restore = Signal()
    again = Signal()
    fresh = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("banner")
        self.sentence = ElidedLabel(_LINES)
        self.restore_button, self.fresh_button = push("Restore"), push("Start fresh")
        self.again_button = push("Try again")
        self.restore_button.setToolTip("Go on where the earlier work ended")
        self.again_button.setToolTip("Look again for the work, once the other window is closed")
        self.fresh_button.setToolTip("Begin anew; the earlier work stays on disk")
        self.restore_button.clicked.connect(self.restore)
        self.again_button.clicked.connect(self.again)
        self.fresh_button.clicked.connect(self.fresh)
        self.choice = group(self.restore_button, self.again_button, self.fresh_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 6, 10, 6)
        column.addWidget(self.sentence)
        column.addWidget(self.choice)
        self._tone = ""

    def show_guide(self, guide: Guide, choice: Choice = "") -> None:
        """Show the sentence, its tone as a coloured edge, and the choice if there is one.

        The choice is about ``earlier`` work, or work that is open ``elsewhere``.
        """
        self.sentence.setText(guide.sentence)
        self.choice.setVisible(bool(choice))
        self.restore_button.setVisible(choice == "earlier")
        self.again_button.setVisible(choice == "elsewhere")
        if guide.tone != self._tone:
            self._tone = guide.tone
            edge = _EDGES[guide.tone].name()
            self.setStyleSheet(
                f"QFrame#banner {{ background: rgba(128, 128, 128, 40); "
                f"border: 0; border-left: 4px solid {edge}; }}"
                "QFrame#banner QLabel { font-size: 10pt; background: transparent; }"
            )
