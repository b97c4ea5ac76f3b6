"""The store in a few portable files: 8 bits a pixel on an intensity map, compressed.

A pack is a zip archive of ``manifest.json`` and one ``.xz`` member for every few slices, each
pixel coded as the difference from its left neighbour, modulo 256. The error is half a step of the
map, some 1.5 HU in soft tissue with the starter's; what lies beyond the outer knots is clipped, as
the network sees it.
"""

from __future__ import annotations

import json
import lzma
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from diffseg_training.settings import PackSettings, PretrainError
from diffseg_training.store import MANIFEST, SliceStore
from napari_diffseg.io.files import atomic_write, make_folder
from napari_diffseg.network.backbone import Intensity

SUFFIX = ".pack"
SOFT_TISSUE = (-200, 250)
"""HU between which the error is reported apart."""

_CHUNK = 16  # slices a member
_MEGABYTE = 1 << 20
_HEADROOM = 128 << 10  # bytes of a pack that are kept for its manifest
# Noise has no repeating contexts: without them the members are 2 % smaller.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0}]


@dataclass(frozen=True)
class Packed:
    """What packing has come to.

    Attributes
    ----------
    done, total
        Volumes.
    files, bytes
        Packs written, and their size so far.
    errors
        Largest and root-mean-square difference in HU from the slices on the pack's grid:
        ``max``, ``rms``, ``max_soft_tissue``, ``rms_soft_tissue``.
    """

    done: int
    total: int
    files: tuple[Path, ...]
    bytes: int
    errors: Mapping[str, float]


def pack(
    store: SliceStore, out: Path, intensity: Intensity, settings: PackSettings
) -> Iterator[Packed]:
    """Write a store as packs, yielding after each volume.

    Parameters
    ----------
    store
        What ``prepare`` has written.
    out
        Folder for ``slices-01.pack`` and so on; packs that are there are replaced.
    intensity
        Map whose range of values is cut into 255 equal steps.
    settings
        Grid and size of the files.
    """
    grid = settings.grid or store.grid
    make_folder(out)
    for old in out.glob(f"*{SUFFIX}"):
        old.unlink()
    shared = {
        "settings": {**store.manifest["settings"], "grid": grid},
        "statistics": store.statistics,
        "intensity": asdict(intensity),
    }
    errors, files, written = _Errors(intensity), list[Path](), 0
    members, volumes, size = dict[str, bytes](), list[dict[str, Any]](), 0
    limit = int(settings.megabytes * _MEGABYTE) - _HEADROOM
    everything = store.manifest["volumes"]

    def flush() -> int:
        path = out / f"slices-{len(files) + 1:02d}{SUFFIX}"
        with atomic_write(path) as part, zipfile.ZipFile(part, "w") as archive:
            archive.writestr(MANIFEST, json.dumps({**shared, "volumes": volumes}))
            for name, content in members.items():
                archive.writestr(name, content)
        files.append(path)
        members.clear()
        volumes.clear()
        return path.stat().st_size

    with ThreadPoolExecutor() as pool:
        for done, volume in enumerate(everything, start=1):
            array = store.array(volume)
            chunks = [
                resized(array[first : first + _CHUNK], grid)
                for first in range(0, len(array), _CHUNK)
            ]
            coded = pool.map(lambda chunk: encode(chunk, intensity), chunks)
            for number, (chunk, content) in enumerate(zip(chunks, coded, strict=True)):
                errors.add(chunk, decode(content, grid, intensity))
                if volumes and size + len(content) > limit:
                    written += flush()
                    size = 0
                name = f"{volume['sha256'][:16]}-{number:04d}.xz"
                members[name] = content
                volumes.append({**volume, "store": name, "slices": len(chunk)})
                size += len(content)
            if done == len(everything) and volumes:
                written += flush()
            yield Packed(done, len(everything), tuple(files), written, errors.figures())


def resized(slices: NDArray[np.int16], grid: int) -> NDArray[np.int16]:
    """Slices ``(n, y, x)`` in HU on a square grid, bilinear without aliasing."""
    if slices.shape[-1] == grid:
        return np.ascontiguousarray(slices)
    image = torch.from_numpy(np.array(slices, np.float32))[:, None]
    small = F.interpolate(
        image, size=(grid, grid), mode="bilinear", antialias=True, align_corners=False
    )
    result: NDArray[np.int16] = small[:, 0].round().numpy().astype(np.int16)
    return result


def encode(slices: NDArray[np.int16], intensity: Intensity) -> bytes:
    """Code slices ``(n, y, x)`` in HU as one ``.xz`` stream."""
    levels = np.rint((intensity.to_model(slices) + 1) * 127.5).astype(np.uint8)
    levels[..., 1:] -= levels[..., :-1].copy()
    return lzma.compress(levels.tobytes(), lzma.FORMAT_XZ, filters=_FILTERS)


def decode(content: bytes, grid: int, intensity: Intensity) -> NDArray[np.int16]:
    """Undo :func:`encode`, up to half a step of the map and the rounding to whole HU."""
    steps = np.frombuffer(lzma.decompress(content), np.uint8).reshape(-1, grid, grid)
    levels = np.cumsum(steps, axis=2, dtype=np.uint8)
    table = np.rint(intensity.to_hu(np.arange(256) / 127.5 - 1)).astype(np.int16)
    result: NDArray[np.int16] = table[levels]
    return result


class PackStore(SliceStore):
    """Packs, read whole into memory.

    Parameters
    ----------
    path
        A pack, or a folder of packs that belong together.

    Raises
    ------
    PretrainError
        If there is no pack, one is damaged, or they are of different stores.
    """

    def __init__(self, path: Path) -> None:
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        found: dict[str, tuple[dict[str, Any], list[NDArray[np.int16]]]] = {}
        shared = None
        for file in files:
            manifest, arrays = _read(file)
            own = {key: manifest[key] for key in ("settings", "statistics", "intensity")}
            shared = shared or own
            if own != shared:
                raise PretrainError(f"{file}: of another store than {files[0].name}; move it away")
            for volume, array in zip(manifest["volumes"], arrays, strict=True):
                found.setdefault(volume["sha256"], (volume, []))[1].append(array)
        if shared is None:
            raise PretrainError(f"{path}: holds no {SUFFIX} files")
        self._arrays = {key: np.concatenate(parts) for key, (_, parts) in found.items()}
        volumes = [
            {**volume, "slices": len(self._arrays[key])} for key, (volume, _) in found.items()
        ]
        self.manifest = {**shared, "volumes": volumes}

    def array(self, volume: Mapping[str, Any]) -> NDArray[np.int16]:
        """Slices of a volume of the manifest, ``(n, grid, grid)`` in HU."""
        return self._arrays[volume["sha256"]]


def _read(file: Path) -> tuple[dict[str, Any], list[NDArray[np.int16]]]:
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            contents = [archive.read(volume["store"]) for volume in manifest["volumes"]]
        intensity = Intensity(*(tuple(manifest["intensity"][key]) for key in ("hu", "value")))
        grid = int(manifest["settings"]["grid"])
        with ThreadPoolExecutor() as pool:
            return manifest, list(pool.map(lambda one: decode(one, grid, intensity), contents))
    except (OSError, zipfile.BadZipFile, lzma.LZMAError, LookupError, ValueError) as error:
        raise PretrainError(f"{file}: not a readable pack ({error}); copy it again") from error


def open_store(path: Path) -> SliceStore:
    """Open what ``prepare`` or ``pack`` has written: a folder, or one pack."""
    if path.suffix == SUFFIX or (not (path / MANIFEST).exists() and any(path.glob(f"*{SUFFIX}"))):
        return PackStore(path)
    return SliceStore(path)


class _Errors:
    """Largest and root-mean-square difference in HU, overall and in soft tissue."""

    def __init__(self, intensity: Intensity) -> None:
        self._range = intensity.hu[0], intensity.hu[-1]
        self._sums = {"": [0.0, 0.0, 0.0], "_soft_tissue": [0.0, 0.0, 0.0]}

    def add(self, wanted: NDArray[np.int16], got: NDArray[np.int16]) -> None:
        wanted = np.clip(wanted, *self._range)
        off = np.abs(wanted - got.astype(np.float32))
        soft = (wanted >= SOFT_TISSUE[0]) & (wanted <= SOFT_TISSUE[1])
        for sums, one in zip(self._sums.values(), (off, off[soft]), strict=True):
            if one.size:
                sums[0] = max(sums[0], float(one.max()))
                sums[1] += float(np.square(one, dtype=np.float64).sum())
                sums[2] += one.size

    def figures(self) -> dict[str, float]:
        named: dict[str, float] = {}
        for name, (largest, squares, count) in self._sums.items():
            named |= {f"max{name}": largest, f"rms{name}": (squares / max(count, 1)) ** 0.5}
        return named
