"""A magicgui form made from the fields of :class:`TrainSettings`: a setting is written once."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from magicgui.widgets import Container, SpinBox, create_widget

from napari_diffseg.finetune import TrainSettings

BUDGET = "seconds"  # the panel's budget buttons set this one


class SettingsForm:
    """The form, and the settings that it stands for.

    Attributes
    ----------
    container
        magicgui container with one widget a field, save the time budget.
    """

    def __init__(self) -> None:
        hints = get_type_hints(TrainSettings)
        self._optional: set[str] = set()
        widgets = []
        for field in fields(TrainSettings):
            if field.name != BUDGET:
                widgets.append(self._widget(field.name, hints[field.name], field))
        self.container = Container(widgets=widgets, labels=True)
        self.container.margins = (0, 0, 0, 0)

    def _widget(self, name: str, hint: Any, field: Any) -> Any:
        default = None if field.default is MISSING else field.default
        tooltip = field.metadata.get("help", "")
        inner = _without_none(hint)
        if inner is not hint:
            # 0 stands for None, for no field that may be None has a meaning at 0.
            self._optional.add(name)
            widget: Any = SpinBox(name=name, value=default or 0, min=0, max=100_000)
            widget.native.setSpecialValueText("automatic")
        elif inner is int:
            widget = SpinBox(name=name, value=default, min=0, max=2**31 - 1)
        else:
            widget = create_widget(value=default, annotation=inner, name=name)
        widget.tooltip = tooltip[:1].upper() + tooltip[1:]
        return widget

    def settings(self, seconds: float) -> TrainSettings:
        """Read the form.

        Parameters
        ----------
        seconds
            Time budget in s.

        Raises
        ------
        TrainError
            If the settings contradict themselves.
        """
        values: dict[str, Any] = {BUDGET: seconds}
        for widget in self.container:
            value = widget.value
            values[widget.name] = None if widget.name in self._optional and value == 0 else value
        return TrainSettings(**values)


def _without_none(hint: Any) -> Any:
    """Give ``X`` for ``X | None``, and any other hint as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        rest = [argument for argument in get_args(hint) if argument is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint
