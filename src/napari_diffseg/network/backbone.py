"""Backbones: a pre-trained U-Net with its intensity range, noise schedule and card.

A backbone is one ``.safetensors`` file. Its metadata hold everything that using the weights
needs; a ``registry.toml`` beside it holds its SHA-256. Weights are data: nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_data_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from napari_diffseg.io.files import atomic_write
from napari_diffseg.network.card import file_sha256
from napari_diffseg.network.unet import UNet, UNetConfig

_METADATA = "napari-diffseg"


class BackboneError(ValueError):
    """A backbone is missing, damaged or not what its registry says."""


@dataclass(frozen=True)
class Intensity:
    """Piecewise-linear map from HU to the network's [-1, 1].

    Attributes
    ----------
    hu
        Knots in HU, ascending. The papers have two: the 0.5 and 99.5 percentiles.
    value
        Network value at each knot, ascending from -1 to 1.
    """

    hu: tuple[float, ...]
    value: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.hu) != len(self.value) or len(self.hu) < 2:
            raise ValueError("an intensity map needs two or more knots, each with a value")
        if np.any(np.diff(self.hu) <= 0) or np.any(np.diff(self.value) <= 0):
            raise ValueError("the knots of an intensity map must ascend")

    def to_model(self, hu: NDArray[Any]) -> NDArray[np.float32]:
        """Map HU of any shape to [-1, 1]; values beyond the outer knots are clipped.

        Examples
        --------
        >>> Intensity((-1000.0, 1000.0), (-1.0, 1.0)).to_model(np.array([-3000, 0, 500])).tolist()
        [-1.0, 0.0, 0.5]
        """
        mapped: NDArray[np.float32] = np.interp(hu, self.hu, self.value).astype(np.float32)
        return mapped

    def to_hu(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Map network values back to HU."""
        mapped: NDArray[np.float32] = np.interp(x, self.value, self.hu).astype(np.float32)
        return mapped


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pre-trained U-Net and what is needed to use it.

    Attributes
    ----------
    name
        Short name, as in the registry.
    unet
        The network.
    intensity
        HU range that the network was trained on.
    schedule
        Noise schedule: ``cosine``, ``linear`` or ``cosine-beta`` (arXiv 2402.15216v2
        names contradicting ones).
    card
        Data, licences, steps, losses and limits, as JSON values.
    sha256
        Of the weight file that it was loaded from; empty for one that was made in memory.
    """

    name: str
    unet: UNet
    intensity: Intensity
    schedule: str = "cosine"
    card: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone that can be loaded by name.

    Attributes
    ----------
    name
        Name in the registry.
    path
        The weight file.
    sha256
        Expected checksum, or ``None`` when the file stands in no registry.
    source
        Where it was found: ``shipped``, ``imported``, ``environment`` or a package's name.
    """

    name: str
    path: Path
    sha256: str | None
    source: str


def home() -> Path:
    """Folder for imported backbones and sessions (``NAPARI_DIFFSEG_HOME`` overrides it)."""
    named = os.environ.get("NAPARI_DIFFSEG_HOME")
    return Path(named) if named else user_data_path("napari-diffseg", appauthor=False)


def _folders() -> Iterator[tuple[str, Path]]:
    for named in filter(None, os.environ.get("NAPARI_DIFFSEG_BACKBONES", "").split(os.pathsep)):
        yield "environment", Path(named)
    yield "imported", home() / "backbones"
    for point in entry_points(group="napari_diffseg.backbones"):
        yield point.name, Path(point.load())
    yield "shipped", Path(str(files("diffseg_models")))


def _entries(source: str, place: Path) -> Iterator[BackboneEntry]:
    if place.suffix == ".safetensors":
        yield BackboneEntry(place.stem, place, None, source)
        return
    registry = place / "registry.toml"
    try:
        known = tomllib.loads(registry.read_text()) if registry.exists() else {}
        entries = [
            BackboneEntry(name, place / line["file"], line["sha256"], source)
            for name, line in known.items()
        ]
    except (tomllib.TOMLDecodeError, LookupError, TypeError) as error:
        raise BackboneError(f"{registry}: damaged ({error}); fix or delete it") from error
    yield from entries
    if not registry.exists():
        for path in sorted(place.glob("*.safetensors")):
            yield BackboneEntry(path.stem, path, None, source)


def list_backbones() -> tuple[BackboneEntry, ...]:
    """Every backbone that can be loaded by name; the first of a name wins."""
    found: dict[str, BackboneEntry] = {}
    for source, place in _folders():
        for entry in _entries(source, place):
            found.setdefault(entry.name, entry)
    return tuple(found.values())


def verify(entry: BackboneEntry) -> None:
    """Compare a weight file with the checksum in its registry.

    Raises
    ------
    BackboneError
        If the file is missing or differs.
    """
    if not entry.path.exists():
        raise BackboneError(f"{entry.path}: the weight file is missing; import it again")
    if entry.sha256 is not None and file_sha256(entry.path) != entry.sha256:
        raise BackboneError(
            f"{entry.path}: the SHA-256 differs from the registry's, so the file is damaged "
            "or was replaced; import it again"
        )


def _resolve(which: str | Path | None) -> BackboneEntry:
    known = list_backbones()
    if which is None:
        if not known:
            raise BackboneError("no backbone is installed: run napari-diffseg backbones import")
        shipped = [entry for entry in known if entry.source == "shipped"]
        return (shipped or list(known))[0]
    for entry in known:
        if entry.name == str(which):
            return entry
    path = Path(which)
    if path.is_dir():
        inside = list(_entries("folder", path))
        if len(inside) == 1:
            return inside[0]
        raise BackboneError(f"{path}: holds {len(inside)} backbones; name one file")
    if path.is_file():
        return BackboneEntry(path.stem, path, None, "file")
    names = ", ".join(entry.name for entry in known) or "none"
    raise BackboneError(f"{which}: no such backbone or file (installed: {names})")


def read_tensors(path: Path, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and the JSON under ``key`` of a safetensors file's metadata.

    Raises
    ------
    BackboneError
        If the file is not safetensors, or has no such metadata.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
        tensors = load_file(path)
        return tensors, json.loads(metadata[key])
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise BackboneError(f"{path}: not a readable safetensors file ({error})") from error
    except KeyError as error:
        raise BackboneError(f"{path}: has no {key!r} metadata; is it another kind of file?") from (
            error
        )


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], key: str, header: dict[str, Any]
) -> None:
    """Write tensors and a JSON header, whole or not at all."""
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_write(path) as part:
        save_file(owned, part, metadata={key: json.dumps(header)})


def build_unet(config: dict[str, Any]) -> UNet:
    """Make the U-Net that a JSON header describes."""
    tuples: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
    }
    return UNet(UNetConfig(**tuples))


def load_backbone(which: str | Path | None = None) -> Backbone:
    """Load a backbone; its SHA-256 is checked first, where a registry has it.

    Parameters
    ----------
    which
        A name from :func:`list_backbones`, a ``.safetensors`` file, a folder with one, or
        ``None`` for the one that is shipped.

    Raises
    ------
    BackboneError
        If it is not found, is damaged, or does not fit the network it describes.

    Examples
    --------
    >>> load_backbone().schedule
    'cosine'
    """
    entry = _resolve(which)
    verify(entry)
    tensors, header = read_tensors(entry.path, _METADATA)
    try:
        unet = build_unet(header["config"])
        unet.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        intensity = Intensity(*(tuple(header["intensity"][k]) for k in ("hu", "value")))
        backbone = Backbone(
            entry.name,
            unet,
            intensity,
            header["schedule"],
            header["card"],
            entry.sha256 or file_sha256(entry.path),
        )
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise BackboneError(f"{entry.path}: the weights do not fit their header ({first})") from (
            error
        )
    return backbone


def save_backbone(path: Path, backbone: Backbone, dtype: torch.dtype = torch.float16) -> None:
    """Write a backbone as one safetensors file, whole or not at all."""
    header = {
        "config": asdict(backbone.unet.config),
        "intensity": asdict(backbone.intensity),
        "schedule": backbone.schedule,
        "card": backbone.card,
    }
    tensors = {name: tensor.to(dtype) for name, tensor in backbone.unet.state_dict().items()}
    write_tensors(Path(path), tensors, _METADATA, header)


def registry_line(path: Path) -> str:
    """Lines of a ``registry.toml`` for the weight file ``path``."""
    return f'[{path.stem}]\nfile = "{path.name}"\nsha256 = "{file_sha256(path)}"\n'


def import_backbone(path: Path) -> BackboneEntry:
    """Copy a backbone into the user's folder and register it, offline.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a folder that holds one.

    Raises
    ------
    BackboneError
        If it cannot be loaded, or its name has characters other than letters, digits, ``-_``.
    """
    source = _resolve(path)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", source.path.stem):
        raise BackboneError(f"{source.path}: rename it to letters, digits, - and _ only")
    verify(source)
    load_backbone(source.path)
    folder = home() / "backbones"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.path.name
    with atomic_write(target) as part:
        shutil.copyfile(source.path, part)
    lines = [registry_line(p) for p in sorted(folder.glob("*.safetensors"))]
    with atomic_write(folder / "registry.toml") as part:
        part.write_text("\n".join(lines))
    return next(e for e in _entries("imported", folder) if e.path == target)
