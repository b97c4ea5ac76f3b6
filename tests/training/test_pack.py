"""Packs: the store in portable files, with a bounded error, and training from them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrain_tools import TINY_TOML, losses

from diffseg_training.pack import PackStore, decode, encode, open_store, pack
from diffseg_training.settings import PackSettings, PretrainError, Recipe
from diffseg_training.store import SliceStore
from napari_diffseg.network.backbone import Intensity

STARTER = Intensity((-1024.0, -200.0, 250.0, 1500.0), (-1.0, -0.6, 0.6, 1.0))
PLAIN = Intensity((-1000.0, 1000.0), (-1.0, 1.0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 24), st.sampled_from([0, 30]))
@settings(max_examples=40, deadline=None)
def test_the_error_is_half_a_step_of_the_map(seed: int, n: int, grid: int, noise: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (n, grid, grid)
    slices = rng.integers(-32768, 32768, shape) if seed % 2 else np.full(shape, 40)
    slices = (slices + rng.normal(0, noise, shape)).clip(-32768, 32767).astype(np.int16)
    for intensity in (STARTER, PLAIN):
        got = decode(encode(slices, intensity), grid, intensity).astype(float)
        wanted = np.clip(slices.astype(float), intensity.hu[0], intensity.hu[-1])
        slope = np.diff(intensity.hu) / np.diff(intensity.value)  # HU a unit of the network
        half = slope[np.clip(np.searchsorted(intensity.hu, wanted) - 1, 0, len(slope) - 1)] / 255
        # At a knot the step that is rounded lies on both sides of it.
        near = np.min(np.abs(wanted[..., None] - intensity.hu), axis=-1) <= slope.max() / 255
        bound = np.where(near, slope.max() / 255, half) + 0.5  # and whole HU
        assert (np.abs(got - wanted) <= bound + 1e-3).all()


def _pack(store: Path, out: Path, chosen: PackSettings, intensity: Intensity = PLAIN) -> list:
    return list(pack(SliceStore(store), out, intensity, chosen))


def test_packs_hold_what_the_store_holds(store: Path, tmp_path: Path) -> None:
    *_, last = _pack(store, tmp_path, PackSettings())
    wanted, got = SliceStore(store), open_store(tmp_path)
    assert isinstance(got, PackStore)
    assert (got.grid, got.statistics) == (wanted.grid, wanted.statistics)
    for split in ("train", "validation"):
        first, second = wanted.slices(split), got.slices(split)
        assert len(first) == len(second)
        for n in range(len(first)):
            clipped = np.clip(first[n], -1000, 1000)
            assert np.abs(second[n] - clipped).max() <= last.errors["max"] <= 4.5
    assert last.errors["max_soft_tissue"] <= 4.5
    assert last.bytes == sum(path.stat().st_size for path in last.files)


def test_files_keep_to_their_size_and_any_order(store: Path, tmp_path: Path) -> None:
    # Half a MiB has room for a few slices of noise beside the manifest.
    noisy = tmp_path / "noisy"
    noisy.mkdir()
    manifest = json.loads((store / "manifest.json").read_text())
    rng = np.random.default_rng(0)
    for volume in manifest["volumes"]:
        volume["store"] = f"{volume['sha256'][:8]}.npy"
        shape = (40, 128, 128)
        np.save(noisy / volume["store"], rng.integers(-900, 900, shape).astype(np.int16))
        volume["slices"] = 40
    manifest["settings"]["grid"] = 128
    (noisy / "manifest.json").write_text(json.dumps(manifest))
    *_, last = _pack(noisy, tmp_path / "packs", PackSettings(megabytes=0.5))
    sizes = [path.stat().st_size for path in last.files]
    assert len(sizes) > 5
    assert max(sizes) <= 0.5 * 2**20
    assert len(open_store(tmp_path / "packs").slices("train")) == len(
        SliceStore(noisy).slices("train")
    )


def test_training_reads_packs(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    _pack(store, tmp_path / "packs", PackSettings())
    whole = losses(recipe, store, tmp_path / "store")
    packed = losses(recipe, tmp_path / "packs", tmp_path / "packed")
    assert packed == pytest.approx(whole, rel=0.02)
    one = next((tmp_path / "packs").glob("*.pack"))
    assert losses(recipe, one, tmp_path / "one") == packed
    few = replace(recipe, train=replace(recipe.train, iterations=1))
    _pack(store, tmp_path / "small", PackSettings(grid=16))
    assert PackStore(tmp_path / "small").grid == 16
    assert losses(few, tmp_path / "small", tmp_path / "third")


def test_the_command_packs_and_trains(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(
        f'name = "tiny"\n{TINY_TOML}\n[train]\niterations = 2\nbatch = 4\nhu = [-1000, 1000]\n'
    )

    def command(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "diffseg_training.cli", *map(str, words)],
            capture_output=True, text=True, timeout=250,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = command("pack", store, "--config", config, "--out", tmp_path / "packs", "--grid", 16)
    assert "error in HU: largest" in said
    assert "slices-01.pack" in said
    said = command(
        "train", "--config", config, "--data", tmp_path / "packs", "--out", tmp_path / "run",
        "--resident", "--device", "cpu",
    )  # fmt: skip
    assert "step 2/2" in said


def test_damaged_and_foreign_packs_are_named(store: Path, tmp_path: Path) -> None:
    packs = tmp_path / "packs"
    _pack(store, packs, PackSettings())
    (path,) = packs.glob("*.pack")
    with pytest.raises(PretrainError, match="run napari-diffseg-pretrain prepare"):
        open_store(tmp_path / "nowhere")
    _pack(store, tmp_path / "other", PackSettings(grid=16))
    (packs / "slices-02.pack").write_bytes((tmp_path / "other" / path.name).read_bytes())
    with pytest.raises(PretrainError, match=r"slices-02\.pack: of another store"):
        open_store(packs)
    (packs / "slices-02.pack").unlink()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(PretrainError, match=r"slices-01\.pack: not a readable pack"):
        open_store(packs)
