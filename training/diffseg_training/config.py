"""Read settings from TOML.

The order of precedence is default, then configuration file, then command line.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from diffseg_training.settings import (
    PrepareSettings,
    PretrainError,
    PretrainSettings,
    Recipe,
    Source,
)
from napari_diffseg.io.typed import from_json
from napari_diffseg.io.voxels import read_text
from napari_diffseg.network.unet import UNetConfig


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
        tables = tomllib.loads(read_text(path))
        return Recipe(
            name=str(tables.pop("name", path.stem)),
            unet=from_json(UNetConfig, tables.pop("unet", {})),
            prepare=from_json(PrepareSettings, tables.pop("prepare", {})),
            train=from_json(PretrainSettings, tables.pop("train", {})),
            sources=tuple(from_json(Source, t) for t in tables.pop("sources", [])),
            **dict.fromkeys(tables),
        )
    except (ValueError, RecursionError) as error:
        raise PretrainError(f"{path}: {error}") from error
    except TypeError as error:
        raise PretrainError(f"{path}: unknown table or key {', '.join(tables)}") from error


def as_json(settings: Any) -> dict[str, Any]:
    """Settings as JSON values."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()}
