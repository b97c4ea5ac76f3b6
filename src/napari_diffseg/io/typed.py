"""Dataclasses from JSON or TOML values, whose types are checked."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")


def from_json(kind: type[T], values: Any) -> T:
    """Make a dataclass of the values that a file holds.

    Parameters
    ----------
    kind
        A dataclass whose fields are ``bool``, ``int``, ``float``, ``str``, ``Literal``, a tuple of
        one of these, ``dict`` with values of one of these, or one of these or ``None``.
    values
        By field; fields that are missing get their default.

    Raises
    ------
    ValueError
        If a key is unknown, a value has another type, or the dataclass refuses it.

    Examples
    --------
    >>> from napari_diffseg.io.labels import Label
    >>> from_json(Label, {"id": 1, "name": "liver", "colour": [230, 159, 0]})
    Label(id=1, name='liver', colour=(230, 159, 0))
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__}: is no table of values")
    hints = typing.get_type_hints(kind)
    given = {}
    for name, value in values.items():
        if name not in hints:
            raise ValueError(f"unknown setting {name!r} (known: {', '.join(hints)})")
        given[name] = _checked(name, hints[name], value)
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _checked(name: str, hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    said = (
        f"{name} = {str(value)[:60]!r}"
        if not isinstance(value, int | float)
        else f"{name} = {value}"
    )
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (kind for kind in arguments if kind is not type(None))
        return _checked(name, hint, value)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise ValueError(f"{said}: must be one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{said}: must be a list")
        each = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(each) != len(value):
            raise ValueError(f"{said}: must be a list of {len(each)}")
        return tuple(_checked(name, kind, part) for kind, part in zip(each, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{said}: must be a table")
        return {str(key): _checked(name, arguments[1], part) for key, part in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{said}: must be of type {hint.__name__}")
    return value
