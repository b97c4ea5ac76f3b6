"""Keys of the loop, as actions of napari, so that Preferences → Shortcuts shows and changes them.

An action belongs to the viewer, and acts on the panel of the viewer in which its key is pressed. A
key that a button also has presses that button, so that both are greyed out for the same reasons.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app_model.types import KeyBinding, KeyCode, KeyMod
from napari.components import ViewerModel
from napari.settings import get_settings
from napari.utils.action_manager import action_manager

_PACKAGE = "napari-diffseg"
LABEL_KEYS = 9
"""Labels that have a key of their own: Ctrl and the digit of their id."""


@dataclass(frozen=True)
class Key:
    """An action with its key.

    Attributes
    ----------
    name
        As the button that it presses is called in the guide, where it has one.
    text
        What it does, for Preferences and the cheat sheet.
    key
        The key that it has until the user chooses another.
    button
        Whether it presses the button of its name.
    held
        Whether it repeats while the key is held down.
    """

    name: str
    text: str
    key: int
    button: bool = True
    held: bool = False


_LABELS = tuple(
    Key(f"label {n}", f"Paint with label {n}", KeyMod.CtrlCmd | KeyCode[f"Digit{n}"], button=False)
    for n in range(1, LABEL_KEYS + 1)
)
_CTRL, _SHIFT = KeyMod.CtrlCmd, KeyMod.Shift
KEYS = (
    Key("higher", "Next slice up (superior)", KeyCode.PageUp, button=False, held=True),
    Key("lower", "Next slice down (inferior)", KeyCode.PageDown, button=False, held=True),
    Key("next", "Go to the next suggested slice or plane", KeyCode.KeyN),
    Key("accept", "Accept the prediction of this slice", KeyCode.KeyK),
    Key("train", "Train", _SHIFT | KeyCode.KeyT),
    Key("continue", "Continue training", _SHIFT | KeyCode.KeyG),
    Key("finish", "Finish the training and predict", _SHIFT | KeyCode.KeyF),
    Key("prediction", "Show or hide the prediction", KeyCode.KeyH, button=False),
    Key("confidence", "Show or hide the confidence", KeyCode.KeyU),
    Key("contour", "Outline or fill", _SHIFT | KeyCode.KeyC),
    *_LABELS,
    Key("background", "Paint background (on scribbled slices)", _CTRL | KeyCode.Digit0, False),
    Key("outline", "Draw an outline that follows edges", KeyCode.KeyW),
    Key("model's", "Back to the model's prediction", _SHIFT | KeyCode.KeyR),
    Key("Soft tissue", "Window for soft tissue", KeyCode.F5, button=False),
    Key("Lung", "Window for the lung", KeyCode.F6, button=False),
    Key("Bone", "Window for bone", KeyCode.F7, button=False),
    Key("Liver", "Window for the liver", KeyCode.F8, button=False),
    Key("linked", "Show or hide the other two planes", _SHIFT | KeyCode.KeyO),
    Key("slab", "Brightest of a slab of 10 mm, or the slice alone", _SHIFT | KeyCode.KeyI, False),
    Key("zoom", "Zoom to the label in the brush", _SHIFT | KeyCode.KeyZ, button=False),
    Key("keys", "Show all keys", KeyCode.F1, button=False),
)
_BY_NAME = {key.name: key for key in KEYS}
_installed: list[tuple[Any, Callable[[Key], None]]] = []  # viewers with a panel, and what acts


def install(viewer: Any, act: Callable[[Key], None]) -> None:
    """Let ``act(key)`` be called when one of the keys is pressed in a viewer."""
    if not _installed:
        chosen = get_settings().shortcuts.shortcuts
        for key in KEYS:
            name = _action(key.name)
            action_manager.register_action(name, _command(key), key.text, ViewerModel, key.held)
            with warnings.catch_warnings():
                # napari takes F5 and PageUp, but warns that it cannot draw them.
                warnings.filterwarnings("ignore", ".* valid shortcut Key")
                for binding in chosen.get(name, [KeyBinding.from_int(key.key)]):
                    action_manager.bind_shortcut(name, binding)
    _installed.append((getattr(viewer, "__wrapped__", viewer), act))


def release(viewer: Any) -> None:
    """Call nobody any more; with the last panel the actions go, too."""
    mine = getattr(viewer, "__wrapped__", viewer)
    _installed[:] = [one for one in _installed if one[0] is not mine]
    if not _installed:
        for key in KEYS:
            name = _action(key.name)
            if name in action_manager._actions:
                action_manager.unbind_shortcut(name)
                del action_manager._actions[name]


def bound(name: str) -> str:
    """The keys of an action as the user knows them, ``"Ctrl+1"``; empty where it has none."""
    keys = action_manager._shortcuts.get(_action(name), ()) if name in _BY_NAME else ()
    return " or ".join(KeyBinding.validate(key).to_text() for key in keys)


def with_key(name: str, text: str) -> str:
    """Add the keys of an action to a tooltip."""
    keys = bound(name)
    return f"{text} ({keys})" if keys and text else text


def _action(name: str) -> str:
    return f"{_PACKAGE}:{name.replace(' ', '_')}"


def _command(key: Key) -> Callable[[Any], None]:
    def command(viewer: Any) -> None:
        for installed, act in list(_installed):
            if installed is viewer:
                act(key)

    # napari finds the actions that repeat by this name.
    command.__name__ = f"napari_diffseg_{key.name.replace(' ', '_')}"
    return command
