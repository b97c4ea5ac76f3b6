"""What all sections of the panel share: a title, rows of buttons, and reasons for grey ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QFrame, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.shortcuts import with_key
from napari_diffseg.gui.theme import allow, row, text_label
from napari_diffseg.gui.workspace import Workspace


class Section(QWidget):
    """A titled block of the panel; the title line may hold small things on the right.

    ``buttons`` are those of :meth:`add_buttons`, by their names in the guide.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.buttons: dict[str, QAbstractButton] = {}
        self._help: dict[str, str] = {}
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(0, 0, 0, 0)
        self.body.setSpacing(5)
        self.header = QHBoxLayout()
        self.header.setSpacing(6)
        rule = QFrame()
        rule.setFrameShape(QFrame.Shape.HLine)
        rule.setFixedHeight(1)
        rule.setStyleSheet("background: rgba(128, 128, 128, 60); border: 0;")
        self.header.addWidget(text_label(title, "title"))
        self.header.addWidget(rule, 1, Qt.AlignmentFlag.AlignVCenter)
        self.body.addLayout(self.header)

    def add_buttons(
        self,
        make: Callable[[str], QAbstractButton],
        texts: Mapping[str, tuple[str, str]],
        checkable: bool = False,
    ) -> QHBoxLayout:
        """Make buttons side by side, to be laid out by the caller.

        ``texts`` holds text and help by the button's name in the guide, and ``make`` makes a button
        with a text. A click emits the section's signal of the button's name, where it has one.
        """
        for name, (text, help_text) in texts.items():
            button = self.buttons[name] = make(text)
            button.setCheckable(checkable)
            self._help[name] = help_text
            if not any(map(str.isalpha, text)):
                button.setAccessibleName(name.capitalize())
            if hasattr(self, name):
                button.clicked.connect(getattr(self, name))
        return row(*(self.buttons[name] for name in texts))

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Show the state of a volume; grey out what makes no sense now, with the reason."""
        for name in self._help:
            allow(self.buttons[name], self.help_of(name), guide.why_not(name))

    def help_of(self, name: str) -> str:
        """What a button does, with the keys that do the same."""
        return with_key(name, self._help[name])
