"""A made-up CT, an untrained backbone, and one run of ``segment`` that many tests look at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_tools import Case, process, save, segment

from napari_diffseg.network.backbone import Backbone, Intensity, save_backbone
from napari_diffseg.network.unet import UNet, UNetConfig


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    x, y, _ = np.mgrid[:40, :36, :9]
    body = np.hypot((x - 20) / 18, (y - 18) / 16) < 1
    liver, lung = np.hypot(x - 14, y - 18) < 5, np.hypot(x - 27, y - 18) < 4
    hu = np.where(body, 0, -1000) + 150 * liver - 600 * lung
    hu = hu + np.random.default_rng(0).normal(0, 10, hu.shape)
    labels = (liver + 2 * lung).astype(np.uint8)
    save(folder / "ct.nii.gz", hu.astype(np.int16))
    save(folder / "labels.nii.gz", labels)
    torch.manual_seed(0)
    unet = UNet(UNetConfig(image_size=32, widths=(8, 16), blocks=1, attention=()))
    intensity = Intensity((-1000.0, 1000.0), (-1.0, 1.0))
    backbone = Backbone("tiny", unet, intensity, "cosine", {"data": "none"})
    save_backbone(folder / "tiny.safetensors", backbone)
    return Case(folder, labels)


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep everything that a command writes out of the user's folders."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NAPARI_DIFFSEG_BACKBONES", raising=False)
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


@pytest.fixture(scope="session")
def trained(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Outputs of one whole run as a process."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "names.json").write_text('{"liver": 1, "lung": 2, "spleen": 3}')
    code, out, err = process(
        *segment(case, "--slices", "2,6", "--iterations", "8", "--validate"),
        *("--names", str(folder / "names.json"), "-o", str(folder / "mask.nii.gz")),
        *("--report", str(folder / "report.json")),
        *("--save-model", str(folder / "model.safetensors"), "--licence", "CC-BY-4.0"),
    )
    assert code == 0, err
    assert "Traceback" not in err
    return folder, out
