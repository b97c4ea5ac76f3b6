"""Command-line options made from the fields of a frozen dataclass."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

# An argument group takes options as a parser does; argparse gives both only this private base.
_Target = argparse._ActionsContainer


class Formatter(argparse.HelpFormatter):
    """Appends the default to an option's help, where there is one worth showing."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        hidden = (None, argparse.SUPPRESS, ())
        shown = action.option_strings and action.nargs != 0 and action.default not in hidden
        return f"{text} (default: %(default)s)" if shown else text


def add_settings(
    target: _Target,
    settings: type[Any],
    exclusive: tuple[str, ...] = (),
    show_defaults: bool = True,
) -> None:
    """Add an option for each field of a dataclass.

    An option that is not given is absent from the parsed namespace, so that a configuration file
    may stand between the command line and the class's defaults; see :func:`settings_from`.

    Parameters
    ----------
    target
        Parser or group that gets the options, in the order of the fields.
    settings
        A dataclass whose fields are ``bool``, ``int``, ``float``, ``str``, ``Literal`` of strings,
        a tuple of one of these, or one of these or ``None``.
    exclusive
        Fields of which at most one may be given.
    show_defaults
        Whether the help names the class's defaults; not where a configuration file has others.
    """
    hints, texts = get_type_hints(settings), settings_help(settings)
    either = target.add_mutually_exclusive_group() if exclusive else target
    for field in dataclasses.fields(settings):
        kind = _without_none(hints[field.name])
        text = texts[field.name]
        if show_defaults and field.default not in (dataclasses.MISSING, None, "", ()):
            text += f" (default: {field.default})"
        options = _action(kind) | {
            "dest": field.name,
            "help": text.replace("%", "%%"),
            "default": argparse.SUPPRESS,
        }
        place = either if field.name in exclusive else target
        place.add_argument(f"--{field.name.replace('_', '-')}", **options)


def add_overlap(target: _Target) -> None:
    """Add the option that says which of several segments in one voxel is taken."""
    target.add_argument(
        "--overlap",
        choices=("last", "first", "refuse"),
        default="last",
        help="of segments that overlap, which one a voxel is taken to be",
    )


def settings_from(args: argparse.Namespace, base: T) -> T:
    """Put the options that were given over `base`; its own checks may raise ``ValueError``."""
    given = {}
    for field in dataclasses.fields(base):  # type: ignore[arg-type]
        if field.name in vars(args):
            value = getattr(args, field.name)
            given[field.name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(base, **given)  # type: ignore[type-var]


def settings_help(settings: type[Any]) -> dict[str, str]:
    """Help of each field of a dataclass.

    It stands in the field's metadata under ``"help"`` where forms read it too, else in the
    ``Attributes`` section of the class's docstring.
    """
    section = inspect.cleandoc(settings.__doc__ or "").partition("Attributes\n----------\n")[2]
    found = re.findall(r"^(\w+)\n((?:    .*\n?|\n(?=    ))+)", section, re.MULTILINE)
    texts = {name: " ".join(body.split()).replace("``", "") for name, body in found}
    return {
        field.name: field.metadata.get("help") or texts[field.name]
        for field in dataclasses.fields(settings)
    }


def slice_indices(text: str) -> tuple[int, ...]:
    """Parse ``11,21,27`` into sorted, distinct indices."""
    try:
        indices = sorted({int(part) for part in text.split(",")})
    except ValueError:
        indices = [-1]
    if indices[0] < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of slices such as 11,21,27")
    return tuple(indices)


def plane_indices(text: str) -> tuple[tuple[str, int], ...]:
    """Parse ``coronal:120,sagittal:96`` into sorted, distinct axes and indices."""
    from napari_diffseg.engine.planes import ARRAY_AXIS  # with it comes torch

    found = set()
    for part in text.split(","):
        axis, _, index = part.strip().partition(":")
        if axis not in ARRAY_AXIS or not index.isdecimal():
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of planes such as coronal:120,sagittal:96"
            )
        found.add((axis, int(index)))
    return tuple(sorted(found))


def _action(kind: Any) -> dict[str, Any]:
    """Arguments of ``add_argument`` for a field of a type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return _action(get_args(kind)[0]) | {"nargs": "*"}
    return {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, "TEXT")}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    return hint
