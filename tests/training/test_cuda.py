"""Pre-training on CUDA, from a pack; needs no library that only `prepare` uses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain_tools import losses

from diffseg_training import checkpoint
from diffseg_training.pack import pack
from diffseg_training.settings import PackSettings, Recipe
from diffseg_training.store import SliceStore
from napari_diffseg.network.backbone import Intensity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Bright discs in noise: 24 slices to train on, 8 to validate with."""
    folder = tmp_path / "store"
    folder.mkdir()
    y, x = np.mgrid[-1:1:20j, -1:1:20j]
    volumes = []
    for n, split in enumerate(("train", "train", "train", "validation")):
        rng = np.random.default_rng(n)
        radius = rng.uniform(0.4, 0.9, (8, 1, 1))
        hu = np.where(y**2 + x**2 < radius**2, 40, -1000) + rng.normal(0, 15, (8, 20, 20))
        np.save(folder / f"{n}.npy", hu.astype(np.int16))
        volumes.append(
            {"name": f"v{n}", "patient": f"p{n}", "collection": "Test", "licence": "CC0",
             "sha256": f"{n:064d}", "store": f"{n}.npy", "slices": 8, "split": split}
        )  # fmt: skip
    manifest = {
        "settings": {"grid": 20},
        "statistics": {"p0.5": -1000.0, "p99.5": 100.0},
        "volumes": volumes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    intensity = Intensity((-1000.0, 1000.0), (-1.0, 1.0))
    list(pack(SliceStore(folder), tmp_path / "packs", intensity, PackSettings()))
    return tmp_path / "packs"


@pytest.mark.parametrize("resident", [False, True])
def test_trains_and_resumes(resident: bool, recipe: Recipe, packs: Path, tmp_path: Path) -> None:
    settings = replace(
        recipe.train, device="cuda", resident=resident, iterations=60, log_every=10, warmup=5
    )
    curve = losses(replace(recipe, train=settings), packs, tmp_path / "run")
    assert curve[60] < 0.9 * curve[10]
    longer = replace(recipe, train=replace(settings, iterations=70))
    assert list(losses(longer, packs, tmp_path / "run")) == [70]


def test_a_run_goes_from_the_card_to_the_processor(
    recipe: Recipe, packs: Path, tmp_path: Path
) -> None:
    settings = replace(recipe.train, device="cuda", resident=True, iterations=5)
    losses(replace(recipe, train=settings), packs, tmp_path / "run")
    header, _ = checkpoint.read(tmp_path / "run" / checkpoint.NAME)
    assert header.step == 5
    onward = replace(recipe, train=replace(settings, device="cpu", iterations=7))
    assert list(losses(onward, packs, tmp_path / "run")) == [6, 7]
