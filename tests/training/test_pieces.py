"""Checkpoints in pieces, and going on from them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain_tools import losses
from safetensors.torch import load_file, save_file

from diffseg_training import checkpoint
from diffseg_training.pieces import join, split
from diffseg_training.release import load_trained
from diffseg_training.settings import PretrainError, Recipe
from diffseg_training.train import Pretrainer
from napari_diffseg.network.backbone import load_backbone
from napari_diffseg.network.unet import UNetConfig

BIG = UNetConfig(16, (64, 128), 1, (8,), 8, "conv")


@pytest.fixture
def run(recipe: Recipe, store: Path, tmp_path: Path) -> tuple[Recipe, Path]:
    """A run of six steps whose checkpoint is larger than one piece, stopped after three."""
    recipe = replace(recipe, unet=BIG)
    trainer = Pretrainer(recipe, store, tmp_path / "broken")
    (tmp_path / "broken").mkdir()
    for progress in trainer.run():
        if progress.step == 2:
            trainer.stop()
    return recipe, tmp_path / "broken" / checkpoint.NAME


def test_resumed_from_pieces_equals_unbroken(
    run: tuple[Recipe, Path], store: Path, tmp_path: Path
) -> None:
    recipe, path = run
    command = [sys.executable, "-m", "diffseg_training.cli"]
    pieces = tmp_path / "pieces"
    subprocess.run(
        [*command, "split", path, "--out", pieces, "--megabytes", "2"], check=True, timeout=200
    )
    files = sorted(pieces.iterdir(), reverse=True)
    assert len(files) > 3
    assert all(file.stat().st_size <= 2 << 20 for file in files)
    joined = tmp_path / "joined"
    joined.mkdir()
    subprocess.run(
        [*command, "join", *files, "--out", joined / checkpoint.NAME], check=True, timeout=200
    )
    assert (joined / checkpoint.NAME).read_bytes() == path.read_bytes()
    whole = losses(recipe, store, tmp_path / "whole")
    resumed = losses(recipe, store, joined)
    assert list(resumed) == [4, 5, 6]
    assert all(whole[step] == loss for step, loss in resumed.items())


def test_the_first_pieces_hold_the_averaged_network(
    run: tuple[Recipe, Path], tmp_path: Path
) -> None:
    _, path = run
    files = split(path, tmp_path / "pieces", 2.0)
    wanted, header = checkpoint.averaged_backbone(path)
    out = tmp_path / "averaged.safetensors"
    join(files[: len(files) // 2], out, averaged=True)
    got, its_header = load_trained(out)
    assert its_header == header
    assert got.intensity == load_backbone(out).intensity == wanted.intensity
    for name, tensor in wanted.unet.state_dict().items():
        assert torch.equal(got.unet.state_dict()[name], tensor)
    with pytest.raises(PretrainError, match="piece 1 is needed"):
        join(files[1:], out, averaged=True)


def test_what_cannot_be_joined_is_named(run: tuple[Recipe, Path], tmp_path: Path) -> None:
    _, path = run
    files = split(path, tmp_path / "pieces", 2.0)
    out = tmp_path / "joined.safetensors"
    with pytest.raises(PretrainError, match=f"pieces 2 of {len(files)} are missing"):
        join([files[0], *files[2:]], out)
    with pytest.raises(PretrainError, match="given twice"):
        join([*files, files[0]], out)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(3)}, other)
    with pytest.raises(PretrainError, match="different checkpoints"):
        join([*files[1:], *split(other, tmp_path / "others")], out)
    content = bytearray(files[1].read_bytes())
    files[1].write_bytes(content[:-1])
    with pytest.raises(PretrainError, match=f"{files[1].name}: not a readable piece"):
        join(files, out)
    with pytest.raises(PretrainError, match="not a readable file of tensors"):
        split(files[0], tmp_path / "again")
    assert not out.exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_every_kind_of_tensor_survives(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    tensors = {"one": (torch.randn(7, 3) * 50).to(dtype), "two": torch.zeros((), dtype=dtype)}
    save_file(tensors, path)
    out = tmp_path / "again.safetensors"
    join(split(path, tmp_path), out)
    got = load_file(out)
    assert all(torch.equal(got[name], tensor) for name, tensor in tensors.items())
