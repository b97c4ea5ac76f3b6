"""A magicgui form made from the fields of :class:`TrainSettings`: a setting is written once."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any, get_args, get_type_hints

from magicgui.widgets import LineEdit, SpinBox, create_widget
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.settings import TrainSettings

BUDGET = "seconds"  # the panel's budget buttons set this one


class SettingsForm:
    """The form, and the settings that it stands for.

    ``widgets`` are magicgui's, by field name, for every field but the time budget; ``native`` is a
    Qt widget with all of them, labelled.
    """

    def __init__(self) -> None:
        hints = get_type_hints(TrainSettings)
        self._optional: set[str] = set()
        self.widgets: dict[str, Any] = {}
        self.native = QWidget()
        lines = QFormLayout(self.native)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setVerticalSpacing(4)
        for field in fields(TrainSettings):
            if field.name != BUDGET:
                widget = self._widget(field, hints[field.name])
                self.widgets[field.name] = widget
                widget.native.setAccessibleName(field.name.capitalize())
                lines.addRow(field.name.capitalize(), widget.native)

    def _widget(self, field: Field[Any], hint: Any) -> Any:
        if type(None) in get_args(hint):
            # An empty line stands for None, which lets the program choose.
            self._optional.add(field.name)
            text = "" if field.default is None else str(field.default)
            widget: Any = LineEdit(name=field.name, value=text)
            widget.native.setPlaceholderText("automatic")
        elif hint is int:
            widget = SpinBox(name=field.name, value=field.default, min=0, max=2**31 - 1)
        else:
            widget = create_widget(value=field.default, annotation=hint, name=field.name)
        tooltip = str(field.metadata.get("help", ""))
        widget.tooltip = tooltip[:1].upper() + tooltip[1:]
        return widget

    def settings(self, seconds: float | None) -> TrainSettings:
        """Read the form; ``seconds`` is the time budget, None until the training is finished.

        Raises
        ------
        TrainError
            If a number is none, or the settings contradict themselves.
        """
        values: dict[str, Any] = {BUDGET: seconds}
        for name, widget in self.widgets.items():
            value = widget.value
            if name in self._optional:
                text = str(value).strip()
                if text and not text.isdecimal():
                    raise TrainError(f"{name.capitalize()}: “{text}” is not a whole number.")
                value = int(text) if text else None
            values[name] = value
        return TrainSettings(**values)
