"""``napari-diffseg doctor``: does the engine work here, and with what."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import psutil
import torch

from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.grid_width import MAX_SECONDS, grid_width, seconds_per_slice
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import (
    Backbone,
    BackboneError,
    list_backbones,
    load_backbone,
    verify,
)
from napari_diffseg.network.card import package_version
from napari_diffseg.network.device import native_bf16, pick_device
from napari_diffseg.session.report import commit

_LIBRARIES = ("torch", "monai", "numpy", "nibabel", "pynrrd", "SimpleITK", "pydicom", "highdicom")
_QT = ("PyQt6", "PySide6", "PyQt5", "PySide2")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; ``ok`` is ``None`` for mere information."""

    topic: str
    text: str
    ok: bool | None = None


def examine() -> Iterator[Finding]:
    """Look at versions, device, memory, weights and screen, and try the engine for real.

    Yields
    ------
    Finding
        As it is found. The engine works when no finding has ``ok=False``.
    """
    origin = commit()
    yield Finding("napari-diffseg", package_version() + (f", commit {origin}" if origin else ""))
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    found = ((name, _version(name)) for name in _LIBRARIES)
    yield Finding("libraries", ", ".join(f"{name} {there or 'missing'}" for name, there in found))
    yield from _machine()
    yield from _weights()
    yield from _engine()
    yield _screen()


def _machine() -> Iterator[Finding]:
    device = pick_device()
    precision = "bf16" if native_bf16(device) else "float32"
    name = platform.machine()
    note = f"bf16 {_yes(native_bf16(device))}"
    if device.type == "cpu":
        note = (
            f"AMX {_yes(torch.cpu._is_amx_tile_supported())}, "
            f"AVX-512 {_yes(torch.cpu._is_avx512_supported())}"
        )
        if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
            note += f", limited to {limit} by ONEDNN_MAX_CPU_ISA"
    elif device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    yield Finding("device", f"{device.type}, {name}, computes in {precision} ({note})")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("threads", f"{torch.get_num_threads()} of {cores} cores")
    memory = psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        text += f"; GPU {free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    yield Finding("memory", text)
    yield Finding("disk", f"{shutil.disk_usage('.').free / 1e9:.1f} GB free here")


def _weights() -> Iterator[Finding]:
    entries = list_backbones()
    if not entries:
        text = "none found: run napari-diffseg backbones import FILE"
        yield Finding("backbones", text, ok=False)
    for entry in entries:
        topic = f"backbone {entry.name}"
        try:
            verify(entry)
        except BackboneError as error:
            yield Finding(topic, str(error), ok=False)
        else:
            checked = "SHA-256 verified" if entry.sha256 else "in no registry, so not verified"
            yield Finding(topic, f"{entry.source}, {checked}", ok=True)


def _engine() -> Iterator[Finding]:
    """Train for two steps on four made-up slices and predict them."""
    try:
        backbone = load_backbone()
        volume, painted, labels = _phantom()
        took: list[float] = []
        segmenter = None
        before = time.perf_counter()
        for progress in finetune(
            volume, painted, labels, backbone, TrainSettings(iterations=2, seconds=None)
        ):
            if progress.loss is not None:
                took.append(time.perf_counter() - before)
            before = time.perf_counter()
            segmenter = progress.segmenter
        assert segmenter is not None
        before = time.perf_counter()
        masks = [prediction.mask for prediction in predict(segmenter, volume)]
        predicting = (time.perf_counter() - before) / len(masks)
    except Exception as error:  # whatever it is, it is the finding
        first = (str(error).splitlines() or [""])[0]
        yield Finding("engine", f"does not work: {type(error).__name__}: {first}", ok=False)
        return
    device = next(segmenter.parameters()).device
    yield Finding(
        "engine",
        f"forward and backward on {device.type} with {_described(backbone)}: "
        f"{took[-1] * 1000:.0f} ms a training step, {predicting * 1000:.0f} ms to predict a slice",
        ok=True,
    )
    shape = backbone.unet.config
    width, wide = grid_width(shape, device), shape.image_size * 3 // 2
    seconds = seconds_per_slice(shape, wide, device)
    yield Finding(
        "grid",
        f"{width} points across the body: the network takes {seconds:.3f} s for a slice of {wide}, "
        f"and up to {MAX_SECONDS:g} s would be taken",
    )


def _phantom() -> tuple[Volume, list[PaintedSlice], tuple[Label, ...]]:
    """Return four slices of water in air with a bright disc, two of them painted."""
    y, x = np.mgrid[:96, :96] - 47.5
    radius = np.hypot(y, x)
    slice_hu = np.select([radius < 15, radius < 42], [120, 0], -1000).astype(np.int16)
    mask = (radius < 15).astype(np.uint8)
    geometry = Geometry.from_affine(np.diag([4.0, 4.0, 5.0, 1.0]), (96, 96, 4))
    volume = Volume(np.repeat(slice_hu[None], 4, axis=0), geometry, "phantom")
    return volume, [PaintedSlice(z, mask) for z in (0, 2)], (Label(1, "disc", (230, 159, 0)),)


def _described(backbone: Backbone) -> str:
    millions = sum(p.numel() for p in backbone.unet.parameters()) / 1e6
    side = backbone.unet.config.image_size
    return f"{backbone.name} ({millions:.1f} M parameters, {side}x{side} grid)"


def _screen() -> Finding:
    napari = _version("napari")
    bindings = [f"{name} {there}" for name in _QT if (there := _version(name))]
    if napari and bindings:
        return Finding("window", f"napari {napari} with {', '.join(bindings)}")
    missing = "napari" if not napari else "a Qt binding"
    return Finding("window", f'{missing} is missing: pip install "napari-diffseg[gui]"')


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _yes(value: bool) -> str:
    return "yes" if value else "no"
