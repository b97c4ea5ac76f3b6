"""Read settings from TOML, and offer them as command-line options.

The order of precedence is default, then configuration file, then command line.
"""

from __future__ import annotations

import argparse
import inspect
import re
import tomllib
import typing
from dataclasses import MISSING, asdict, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from diffseg_training.settings import (
    PrepareSettings,
    PretrainError,
    Recipe,
    Source,
    TrainSettings,
)
from napari_diffseg.network.unet import UNetConfig

Settings = TypeVar("Settings")


def load_recipe(which: str) -> Recipe:
    """Read a configuration: a shipped one by its name, or a TOML file by its path.

    Raises
    ------
    PretrainError
        If there is none, it is not TOML, or a setting in it is unknown or of another type.
    """
    shipped = files("diffseg_training") / "configs"
    path = Path(which)
    if path.suffix != ".toml":
        path = Path(str(shipped / f"{which}.toml"))
    if not path.is_file():
        names = ", ".join(sorted(Path(p.name).stem for p in shipped.iterdir()))
        raise PretrainError(f"{which}: no such configuration; name a .toml file or one of {names}")
    try:
        tables = tomllib.loads(path.read_text())
        return Recipe(
            name=tables.pop("name", path.stem),
            unet=from_mapping(UNetConfig, tables.pop("unet", {})),
            prepare=from_mapping(PrepareSettings, tables.pop("prepare", {})),
            train=from_mapping(TrainSettings, tables.pop("train", {})),
            sources=tuple(from_mapping(Source, t) for t in tables.pop("sources", [])),
            **dict.fromkeys(tables),
        )
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise PretrainError(f"{path}: {error}") from error
    except TypeError as error:
        raise PretrainError(f"{path}: unknown table or key {', '.join(tables)}") from error


def from_mapping(kind: type[Settings], mapping: dict[str, Any]) -> Settings:
    """Make a settings dataclass from a TOML table.

    Raises
    ------
    PretrainError
        If a key is unknown or its value has another type.
    """
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in mapping.items():
        if name not in hints:
            raise PretrainError(f"unknown setting {name!r} (known: {', '.join(hints)})")
        values[name] = _checked(name, hints[name], value)
    return kind(**values)


def _checked(name: str, hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise PretrainError(f"{name} = {value!r}: must be one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise PretrainError(f"{name} = {value!r}: must be a list")
        return tuple(_checked(name, arguments[0], part) for part in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise PretrainError(f"{name} = {value!r}: must be of type {hint.__name__}")
    return value


def attribute_help(kind: type) -> dict[str, str]:
    """Help of each field, from the ``Attributes`` section of the class's docstring."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")[2]
    found = re.findall(r"^(\w+)\n((?:    .*\n?|\n(?=    ))+)", text, re.MULTILINE)
    return {name: " ".join(body.split()).replace("``", "") for name, body in found}


def add_options(parser: argparse.ArgumentParser, kind: type, defaults: bool = True) -> None:
    """Offer every field of a settings dataclass as a ``--option``.

    Parameters
    ----------
    parser
        Where to add them. Options that are not given are absent from the parsed namespace.
    kind
        The dataclass.
    defaults
        Whether the help names the class's defaults (not so where a configuration file has them).
    """
    hints, helps = typing.get_type_hints(kind), attribute_help(kind)
    for item in fields(kind):
        hint, origin = hints[item.name], typing.get_origin(hints[item.name])
        arguments = typing.get_args(hint)
        default = item.default if item.default is not MISSING else None
        shown = f" (default: {default})" if defaults and default not in (None, "", ()) else ""
        text = (helps.get(item.name, "") + shown).replace("%", "%%")
        options: dict[str, Any] = {"dest": item.name, "help": text, "default": argparse.SUPPRESS}
        if hint is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif origin is Literal:
            options["choices"] = arguments
        elif origin is tuple:
            options |= {"nargs": "*", "type": arguments[0], "metavar": item.name.upper()}
        else:
            options |= {"type": hint, "metavar": item.name.upper()}
        parser.add_argument("--" + item.name.replace("_", "-"), **options)


def overridden(settings: Settings, namespace: argparse.Namespace) -> Settings:
    """Settings with the command line's options over them."""
    given = {
        item.name: tuple(value) if isinstance(value := vars(namespace)[item.name], list) else value
        for item in fields(settings)  # type: ignore[arg-type]
        if item.name in vars(namespace)
    }
    return replace(settings, **given)  # type: ignore[type-var]


def as_json(settings: Any) -> dict[str, Any]:
    """Settings as JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()}
