"""Command-line options made from the fields of a frozen dataclass."""

from __future__ import annotations

import argparse
import dataclasses
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class Formatter(argparse.HelpFormatter):
    """Appends the default to an option's help, where there is one worth showing."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        hidden = (None, argparse.SUPPRESS, ())
        shown = action.option_strings and action.nargs != 0 and action.default not in hidden
        return f"{text} (default: %(default)s)" if shown else text


def add_settings(
    parser: argparse.ArgumentParser, settings: type[Any], exclusive: tuple[str, ...] = ()
) -> None:
    """Add an option for each field of a dataclass.

    Parameters
    ----------
    parser
        Gets the options, in the order of the fields.
    settings
        A dataclass whose fields are ``int``, ``float``, ``str`` or ``Literal`` of strings, or one
        of these or ``None``; the help stands in the metadata under ``"help"``.
    exclusive
        Fields of which at most one may be given.
    """
    hints = get_type_hints(settings)
    group = parser.add_argument_group("training")
    either = group.add_mutually_exclusive_group() if exclusive else group
    for field in dataclasses.fields(settings):
        kind = _without_none(hints[field.name])
        options: dict[str, Any] = {"default": field.default, "help": field.metadata["help"]}
        if get_origin(kind) is Literal:
            options["choices"] = get_args(kind)
        else:
            options["type"] = kind
            options["metavar"] = {int: "N", float: "S"}.get(kind, "TEXT")
        target = either if field.name in exclusive else group
        target.add_argument(f"--{field.name.replace('_', '-')}", **options)


def settings_from(args: argparse.Namespace, settings: type[T]) -> T:
    """Build the dataclass from parsed options; its own checks may raise ``ValueError``."""
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    return settings(**{name: getattr(args, name) for name in names})


def slice_indices(text: str) -> tuple[int, ...]:
    """Parse ``11,21,27`` into sorted, distinct indices."""
    try:
        indices = sorted({int(part) for part in text.split(",")})
    except ValueError:
        indices = [-1]
    if indices[0] < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of slices such as 11,21,27")
    return tuple(indices)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    return hint
