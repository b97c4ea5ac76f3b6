"""The store of prepared slices: one memory-mapped ``.npy`` a volume, and a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diffseg_training.settings import PretrainError
from napari_diffseg.io.files import atomic_write

MANIFEST = "manifest.json"
Split = Literal["train", "validation"]


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that it is never half there."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an ``.npy`` file so that it is never half there."""
    with atomic_write(path) as part:
        np.save(part, array)


@lru_cache(maxsize=256)  # each open file costs a descriptor, of which there are often 1024
def _mapped(path: Path) -> NDArray[np.int16]:
    array: NDArray[np.int16] = np.load(path, mmap_mode="r")
    return array


class Slices(Sequence[NDArray[np.int16]]):
    """Slices of some volumes, each ``(grid, grid)`` int16 HU, read when asked for.

    Parameters
    ----------
    volumes
        Lines of the manifest.
    array
        Gives the slices of such a volume, ``(n, grid, grid)``.
    """

    def __init__(
        self,
        volumes: Sequence[dict[str, Any]],
        array: Callable[[Mapping[str, Any]], NDArray[np.int16]],
    ) -> None:
        self.volumes = volumes
        self._array = array
        self._ends = np.cumsum([volume["slices"] for volume in volumes], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        volume = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[volume - 1]) if volume else 0
        return self._array(self.volumes[volume])[index - start]


class SliceStore:
    """A folder that ``prepare`` has written.

    Parameters
    ----------
    folder
        The folder.

    Raises
    ------
    PretrainError
        If it has no manifest, or a file that the manifest names is missing.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / MANIFEST
        if not path.is_file():
            raise PretrainError(f"{path}: missing; run napari-diffseg-pretrain prepare first")
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads(path.read_text())
        for volume in self.manifest["volumes"]:
            if not (folder / volume["store"]).is_file():
                raise PretrainError(f"{folder / volume['store']}: missing; run prepare again")

    @property
    def grid(self) -> int:
        """Side of the stored slices in pixels."""
        return int(self.manifest["settings"]["grid"])

    @property
    def statistics(self) -> dict[str, float]:
        """Extremes and percentiles of all source voxels, in HU."""
        statistics: dict[str, float] = self.manifest["statistics"]
        return statistics

    def array(self, volume: Mapping[str, Any]) -> NDArray[np.int16]:
        """Slices of a volume of the manifest, ``(n, grid, grid)`` in HU, mapped from disk."""
        return _mapped(self.folder / volume["store"])

    def slices(self, split: Split) -> Slices:
        """Slices of ``train`` or ``validation``."""
        chosen = [volume for volume in self.manifest["volumes"] if volume["split"] == split]
        return Slices(chosen, self.array)
