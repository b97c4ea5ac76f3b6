"""Read settings from TOML.

The order of precedence is default, then configuration file, then command line.
"""

from __future__ import annotations

import tomllib
import typing
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from diffseg_training.settings import (
    PrepareSettings,
    PretrainError,
    PretrainSettings,
    Recipe,
    Source,
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
            train=from_mapping(PretrainSettings, tables.pop("train", {})),
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


def as_json(settings: Any) -> dict[str, Any]:
    """Settings as JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()}
