"""The one sentence that says what to do next, always in sight at the top of the panel."""

from __future__ import annotations

from typing import Literal

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QVBoxLayout

from napari_diffseg.gui.elided import ElidedLabel
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.theme import Palette, group, push

_LINES = 3  # of the sentence; they are kept free, so that the panel does not jump
Choice = Literal["", "earlier", "elsewhere", "read-only"]


class Banner(QFrame):
    """The sentence; where work is found, also the choice what to do with it."""

    restore = Signal()
    look = Signal()
    take_over = Signal()
    fresh = Signal()

    def __init__(self, palette: Palette) -> None:
        super().__init__()
        self.setObjectName("banner")
        self._palette = palette
        self.sentence = ElidedLabel(_LINES)
        self.restore_button, self.fresh_button = push("Restore"), push("New session")
        self.look_button, self.take_button = push("Open read-only"), push("Take over")
        self.restore_button.setToolTip("Go on where the earlier work ended")
        self.look_button.setToolTip("See and export what is saved so far; change nothing")
        self.take_button.setToolTip(
            "Go on here with all that is saved; the other window can change nothing any more"
        )
        self.fresh_button.setToolTip("Begin with nothing painted; the other work stays on disk")
        self.restore_button.clicked.connect(self.restore)
        self.look_button.clicked.connect(self.look)
        self.take_button.clicked.connect(self.take_over)
        self.fresh_button.clicked.connect(self.fresh)
        buttons = self.restore_button, self.look_button, self.take_button, self.fresh_button
        self.choice = group(*buttons)
        column = QVBoxLayout(self)
        column.setContentsMargins(12, 6, 10, 6)
        column.addWidget(self.sentence)
        column.addWidget(self.choice)
        self._tone = ""

    def show_guide(self, guide: Guide, choice: Choice = "") -> None:
        """Show the sentence, its tone as a coloured edge, and the choice if there is one.

        The choice is about ``earlier`` work, work that is open ``elsewhere``, or a session that
        is ``read-only`` here.
        """
        self.sentence.setText(guide.sentence)
        self.choice.setVisible(bool(choice))
        self.restore_button.setVisible(choice == "earlier")
        self.look_button.setVisible(choice == "elsewhere")
        self.take_button.setVisible(choice in ("elsewhere", "read-only"))
        if guide.tone != self._tone:
            self._tone = guide.tone
            p = self._palette
            edge = {"next": p.accent, "busy": p.attention, "error": p.bad}[guide.tone].name()
            self.setStyleSheet(
                f"QFrame#banner {{ background: rgba(128, 128, 128, 40); "
                f"border: 0; border-left: 4px solid {edge}; }}"
                f"QFrame#banner QLabel {{ font-size: {10 * p.scale:.1f}pt; "
                "background: transparent; }"
            )

    def set_palette(self, palette: Palette) -> None:
        """Follow the viewer's theme; the edge has its colour with the next guide."""
        self._palette, self._tone = palette, ""
