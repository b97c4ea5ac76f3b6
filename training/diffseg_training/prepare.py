"""Prepare volumes for pre-training: statistics, resampling, store, split, manifest.

Volumes are independent, so they are prepared one by one, in several processes or by Dask. Each
leaves a file of slices and, last, a small record; a second run skips volumes that have one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from diffseg_training import sources
from diffseg_training.config import as_json
from diffseg_training.duplicates import near_duplicates, thumbnails
from diffseg_training.histogram import Histogram
from diffseg_training.settings import PrepareSettings, PretrainError, Source
from diffseg_training.sources import Found
from diffseg_training.store import MANIFEST, write_array, write_json
from napari_diffseg.io.files import clear_up, make_folder
from napari_diffseg.io.volume import Volume, read_volume

_AIR = -1024.0
Record = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """Progress: one more volume is done.

    Attributes
    ----------
    done, total
        Volumes.
    name
        The volume, as in the manifest.
    slices
        Slices it gave; 0 when it was skipped.
    reason
        Why it was skipped, else ``""``.
    """

    done: int
    total: int
    name: str
    slices: int
    reason: str


def prepare(
    inputs: Sequence[Path],
    folder: Path,
    settings: PrepareSettings,
    origin: tuple[Source, ...] = (),
) -> Iterator[Prepared]:
    """Turn volumes into a store of slices.

    Parameters
    ----------
    inputs
        Files and folders.
    folder
        Where the store is written. A store that is there is completed.
    settings
        Grid, spacing, split and workers.
    origin
        Names of patients, collections and licences by path.

    Yields
    ------
    Prepared
        One for each volume.

    Raises
    ------
    PretrainError
        If nothing usable is found. A single broken volume is skipped and named.
    """
    found = sources.find_volumes(inputs)
    who = {volume.name: sources.identify(volume.name, origin) for volume in found}
    skipped = [
        {"name": volume.name, "reason": "excluded patient"}
        for volume in found
        if who[volume.name][0] in settings.excluded
    ]
    wanted = [volume for volume in found if who[volume.name][0] not in settings.excluded]
    make_folder(folder / "volumes")
    clear_up(folder / "volumes")  # a run that was killed may have left something
    target = _target(settings.spacing, wanted)
    work = partial(prepare_volume, folder=folder, grid=settings.grid, target=target)
    records: list[Record] = []
    seen: dict[str, str] = {}
    with _mapper(settings) as mapper:
        for volume, record in zip(wanted, mapper(work, wanted), strict=True):
            reason = record.get("reason", "")
            if not reason and record["sha256"] in seen:
                reason = f"same bytes as {seen[record['sha256']]}"
            if reason:
                skipped.append({"name": volume.name, "reason": reason})
            else:
                seen[record["sha256"]] = volume.name
                patient, collection, licence = who[volume.name]
                who_is = {"patient": patient, "collection": collection, "licence": licence}
                records.append({"name": volume.name, **who_is, **record})
            done = 0 if reason else int(record["slices"])
            yield Prepared(len(records) + len(skipped), len(found), volume.name, done, reason)
    if not records:
        raise PretrainError(f"{folder}: none of {len(found)} volumes could be read")
    _write_manifest(folder, settings, target, records, skipped)


@contextmanager
def _mapper(settings: PrepareSettings) -> Iterator[Callable[..., Iterable[Record]]]:
    if settings.dask:
        from distributed import Client, as_completed

        def distribute(work: Callable[[Found], Record], items: list[Found]) -> Iterator[Record]:
            futures = client.map(work, items, pure=False)
            for _ in as_completed(futures):
                while futures and futures[0].done():
                    yield futures.pop(0).result()

        with Client(settings.dask) as client:
            yield distribute
    elif settings.workers > 1:
        with ProcessPoolExecutor(settings.workers) as pool:
            yield pool.map
    else:
        yield map


def _target(wanted: str, volumes: list[Found]) -> tuple[float, float, float] | None:
    if wanted == "native":
        return None
    if wanted == "median":
        found = []
        for volume in volumes:
            try:
                found.append(sources.spacing(volume))
            except (RuntimeError, ValueError, OSError):
                continue  # the volume will be skipped and named when it is read
        if not found:
            raise PretrainError("spacing median: no volume has a readable header")
        z, y, x = np.median(np.array(found), axis=0)
        return float(z), float(y), float(x)
    try:
        z, y, x = (float(part) for part in wanted.split(","))
    except ValueError as error:
        raise PretrainError(
            f"spacing {wanted!r}: give native, median or millimetres as z,y,x"
        ) from error
    return z, y, x


def prepare_volume(
    found: Found, folder: Path, grid: int, target: tuple[float, float, float] | None
) -> Record:
    """Prepare one volume, or say why it cannot be.

    Returns
    -------
    dict
        The record for the manifest, or ``{"reason": ...}``.
    """
    try:
        digest = sources.checksum(found)
        asked = {"grid": grid, "target": None if target is None else list(target)}
        stem = folder / "volumes" / digest[:16]
        record_path = stem.with_suffix(".json")
        if record_path.exists():
            record: Record = json.loads(record_path.read_text())
            if record.pop("asked") == asked:
                return record
        volume = read_volume(found.path, found.series)
        histogram = Histogram()
        histogram.add(volume.hu)
        slices = resample(volume, target, grid)
        write_array(stem.with_suffix(".npy"), slices)
        write_array(stem.with_suffix(".hist.npy"), histogram.sparse())
        record = {
            "sha256": digest,
            "store": f"volumes/{digest[:16]}.npy",
            "slices": len(slices),
            "spacing": [round(float(mm), 4) for mm in volume.geometry.spacing],
            "notes": list(volume.geometry.notes),
        }
        write_json(record_path, {**record, "asked": asked})
    except Exception as error:  # whatever is wrong with one file must not end a run over a thousand
        return {"reason": " ".join(f"{type(error).__name__}: {error}".split())}
    return record


def resample(
    volume: Volume, target: tuple[float, float, float] | None, grid: int
) -> NDArray[np.int16]:
    """Slices ``(n, grid, grid)`` int16 HU of a volume.

    Trilinear to the target spacing, padded with air to a square in mm, bilinear to the grid
    with antialiasing, as arXiv 2402.15216v2 prepares its data.
    """
    spacing = volume.geometry.spacing
    hu = np.asarray(volume.hu)
    if target is not None:
        size = [
            max(1, round(n * mm / to)) for n, mm, to in zip(hu.shape, spacing, target, strict=True)
        ]
        whole = torch.from_numpy(hu.astype(np.float32))[None, None]
        whole = F.interpolate(whole, size=size, mode="trilinear", align_corners=False)
        hu, spacing = whole[0, 0].numpy(), target
    side = max(hu.shape[1] * spacing[1], hu.shape[2] * spacing[2])
    out = np.empty((len(hu), grid, grid), np.int16)
    pads = []
    for n, mm in ((hu.shape[1], spacing[1]), (hu.shape[2], spacing[2])):
        missing = max(0, round(side / mm) - n)
        pads.append((missing // 2, missing - missing // 2))
    for index, plane in enumerate(hu):
        square = np.pad(plane.astype(np.float32), pads, constant_values=_AIR)
        if square.shape != (grid, grid):
            resized = F.interpolate(
                torch.from_numpy(square)[None, None],
                size=(grid, grid),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
            square = resized[0, 0].numpy()
        out[index] = np.rint(square).clip(-32768, 32767)
    return out


def split_patients(records: Sequence[Record], settings: PrepareSettings) -> set[str]:
    """Patients whose slices are held out for validation.

    Raises
    ------
    PretrainError
        If a named patient is not there, or nothing would be left to train on.
    """
    slices: Counter[str] = Counter()
    for record in records:
        slices[record["patient"]] += record["slices"]
    unknown = set(settings.held_out) - set(slices)
    if unknown:
        raise PretrainError(f"held_out: no patient {', '.join(sorted(unknown))} in the data")
    held = set(settings.held_out)
    wanted = settings.validation * sum(slices.values())
    others = sorted(set(slices) - held)
    random.Random(settings.seed).shuffle(others)
    for patient in others:
        missing = wanted - sum(slices[p] for p in held)
        if missing <= 0:
            break
        # A patient larger than twice what is missing would take too much from the training.
        if slices[patient] <= 2 * missing:
            held.add(patient)
    if held == set(slices):
        raise PretrainError("every patient would be held out: lower --validation or add volumes")
    return held


def _write_manifest(
    folder: Path,
    settings: PrepareSettings,
    target: tuple[float, float, float] | None,
    records: list[Record],
    skipped: list[Record],
) -> None:
    histogram = Histogram()
    for record in records:
        histogram.merge(np.load((folder / record["store"]).with_suffix(".hist.npy")))
    held = split_patients(records, settings)
    for record in records:
        record["split"] = "validation" if record["patient"] in held else "train"
    small = [thumbnails(np.load(folder / r["store"], mmap_mode="r")) for r in records]
    pairs = near_duplicates(small, settings.duplicate)
    duplicates = [
        {
            "first": records[pair.first]["name"],
            "second": records[pair.second]["name"],
            "slices": pair.slices,
            "across_split": records[pair.first]["split"] != records[pair.second]["split"],
        }
        for pair in pairs
    ]
    write_json(
        folder / MANIFEST,
        {
            "settings": as_json(settings),
            "target_spacing": target,
            "statistics": histogram.statistics(),
            "volumes": records,
            "skipped": skipped,
            "duplicates": duplicates,
        },
    )
