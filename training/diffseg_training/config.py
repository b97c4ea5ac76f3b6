"""Settings of pre-training: frozen dataclasses, read from TOML, offered as command-line options.

A setting is written once, with its help in the docstring. Its order of precedence is default,
then configuration file, then command line.
"""

from __future__ import annotations

import argparse
import inspect
import re
import tomllib
import types
import typing
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from napari_diffseg.unet import UNetConfig

Schedule = Literal["cosine", "linear", "cosine-beta"]
Settings = TypeVar("Settings")


class PretrainError(ValueError):
    """Pre-training cannot go on; the message names the file or setting and the mend."""


@dataclass(frozen=True)
class Source:
    """Where volumes come from.

    Attributes
    ----------
    pattern
        Regular expression that the start of the volume's path below its input folder must match.
        A group ``patient`` in it names the patient; without one, each volume is a patient.
    collection
        Name of the public collection, or of the hospital's project.
    licence
        Licence of the images.
    """

    pattern: str
    collection: str = "unnamed"
    licence: str = "unknown"


@dataclass(frozen=True)
class PrepareSettings:
    """How volumes become a store of slices.

    Attributes
    ----------
    grid
        Side of the stored square slices, in pixels.
    spacing
        Target spacing: ``native``, ``median`` (of the data), or millimetres as ``z,y,x``.
    validation
        Share of slices to hold out, by whole patients.
    held_out
        Patients that are held out in any case, before others are drawn.
    excluded
        Patients never to be used, because a benchmark tests on them.
    duplicate
        Root-mean-square difference, as a share of the HU window -1024 to 1000 at 16x16 pixels,
        below which two slices of different volumes are reported as near-duplicates.
    seed
        Seed of the split.
    workers
        Processes that read and resample volumes.
    dask
        Address of a Dask scheduler that does it instead; ``""`` for none.
    """

    grid: int = 256
    spacing: str = "native"
    validation: float = 0.05
    held_out: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    duplicate: float = 0.02
    seed: int = 0
    workers: int = 1
    dask: str = ""


@dataclass(frozen=True)
class TrainSettings:
    """How the network is trained; the defaults are the papers' (PAPER row 4).

    Attributes
    ----------
    iterations
        Optimiser steps.
    batch
        Slices a step, over all processes and accumulated parts.
    accumulate
        Parts into which each process divides its share of the batch to save memory.
    learning_rate
        Learning rate of Adam at the first step.
    final_learning_rate
        Learning rate at the last step, reached linearly.
    ema
        Decay of the weights' moving average once it is warm.
    schedule
        Noise schedule.
    hu
        Knots of the intensity map in HU; none means the 0.5 and 99.5 percentiles of the store.
    value
        Network values at the knots.
    flip
        Flip half of the slices left to right.
    crop
        Range of the side of a random square crop, as a share of the stored slice; above 1 pads
        with air. ``1 1`` takes the slice as it is.
    clip
        Largest norm of the gradient; 0 leaves it alone.
    checkpointing
        Compute activations again in the backward pass to save memory.
    precision
        ``auto`` takes bfloat16 where the hardware has it.
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Threads of each process on the CPU; 0 leaves torch's choice.
    workers
        Processes that load slices ahead; 0 loads in the training process.
    seed
        Seed of weights, order, augmentation and noise.
    log_every
        Steps between lines of the log.
    save_minutes
        Minutes between checkpoints; 0 saves after every step.
    validate_every
        Steps between validations.
    validation_slices
        Held-out slices that a validation uses.
    init_from
        Name or file of a backbone whose weights to start from.
    """

    iterations: int = 300_000
    batch: int = 32
    accumulate: int = 1
    learning_rate: float = 2e-4
    final_learning_rate: float = 2e-5
    ema: float = 0.9999
    schedule: Schedule = "cosine"
    hu: tuple[float, ...] = ()
    value: tuple[float, ...] = (-1.0, 1.0)
    flip: bool = True
    crop: tuple[float, ...] = (1.0, 1.0)
    clip: float = 0.0
    checkpointing: bool = False
    precision: Literal["auto", "float32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    workers: int = 0
    seed: int = 0
    log_every: int = 50
    save_minutes: float = 10.0
    validate_every: int = 5000
    validation_slices: int = 64
    init_from: str = ""


@dataclass(frozen=True)
class Recipe:
    """One configuration file.

    Attributes
    ----------
    name
        Name of the backbone it makes.
    unet
        Shape of the network, table ``[unet]``.
    prepare
        Table ``[prepare]``.
    train
        Table ``[train]``.
    sources
        Tables ``[[sources]]``; the first whose pattern matches a volume is its source.
    """

    name: str
    unet: UNetConfig = field(default_factory=UNetConfig)
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    sources: tuple[Source, ...] = ()


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
            **{name: None for name in tables},
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
        elif origin is types.UnionType:
            options |= {"type": arguments[0], "metavar": item.name.upper()}
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
