"""Training: curves that do not depend on interruptions, processes or parts."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from pretrain_tools import losses, training_child

from diffseg_training import checkpoint
from diffseg_training.cost import network_cost
from diffseg_training.progress import PretrainProgress, describe
from diffseg_training.release import load_trained
from diffseg_training.settings import PretrainError, Recipe
from diffseg_training.train import BEST, Pretrainer, learning_rate, train
from napari_diffseg.network.backbone import load_backbone, save_backbone
from napari_diffseg.network.unet import UNet, UNetConfig


def test_loss_falls_and_the_best_network_is_kept(
    recipe: Recipe, store: Path, tmp_path: Path
) -> None:
    settings = replace(recipe.train, iterations=60, validate_every=20, log_every=10)
    progress = list(train(replace(recipe, train=settings), store, tmp_path))
    assert [p.step for p in progress] == [10, 20, 30, 40, 50, 60]
    assert progress[-1].loss < 0.8 * progress[0].loss
    validated = {p.step: p.validation for p in progress if p.validation}
    assert list(validated) == [20, 40, 60]
    means = {step: sum(v.values()) / len(v) for step, v in validated.items()}
    best, header = load_trained(tmp_path / BEST)
    assert header.step == min(means, key=means.__getitem__)
    assert best.intensity.hu == (-1000.0, 1000.0)
    assert header.data["train"] == {"patients": 4, "slices": 27}
    assert header.data["validation"] == {"patients": 1, "slices": 6}
    assert "patient3" not in json.dumps(header.to_json())
    assert list((tmp_path / "tensorboard").iterdir())


def test_networks_on_the_way_are_kept(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    list(train(replace(recipe, train=replace(recipe.train, keep_every=2)), store, tmp_path))
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-2.safetensors", "step-4.safetensors", "step-6.safetensors"]
    early, header = load_trained(tmp_path / kept[0])
    late, _ = load_trained(tmp_path / kept[-1])
    averaged, _ = checkpoint.averaged_backbone(tmp_path / checkpoint.NAME)
    assert header.step == 2
    assert not torch.equal(early.unet.stem.weight, late.unet.stem.weight)
    torch.testing.assert_close(
        late.unet.stem.weight, averaged.unet.stem.weight, rtol=1e-3, atol=1e-6
    )


def test_validation_is_repeatable(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    still = replace(
        recipe.train, iterations=2, validate_every=1, learning_rate=0.0, final_learning_rate=0.0
    )
    first, second = train(replace(recipe, train=still), store, tmp_path)
    # Nothing is learned, so the same noise on the same slices has the same loss.
    assert first.validation == second.validation
    # A fresh network predicts no noise at all, so its loss is the noise's variance.
    assert first.validation
    assert all(abs(value - 1) < 0.1 for value in first.validation.values())


def test_killed_and_resumed_equals_unbroken(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, train=replace(recipe.train, save_minutes=0.0))
    whole = losses(recipe, store, tmp_path / "whole")
    with training_child(recipe, store, tmp_path / "broken") as (child, line):
        while line.recv()[0] < 3:
            pass
        child.kill()
        child.join()
    path = tmp_path / "broken" / checkpoint.NAME
    header, _ = checkpoint.read(path)
    assert 2 <= header.step < 6
    resumed = losses(recipe, store, tmp_path / "broken")
    assert next(iter(resumed)) == header.step + 1
    assert all(whole[step] == loss for step, loss in resumed.items())
    first, second = (
        checkpoint.read(tmp_path / name / checkpoint.NAME)[1] for name in ("whole", "broken")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    history = checkpoint.read(path)[0].history["train"]
    assert [step for step, _ in history] == [1, 2, 3, 4, 5, 6]


def test_two_processes_follow_the_curve_of_one(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, train=replace(recipe.train, precision="float32"))
    alone = losses(recipe, store, tmp_path / "one")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    out = tmp_path / "two"
    with (
        training_child(recipe, store, out, RANK="0", LOCAL_RANK="0", **shared) as (first, line),
        training_child(recipe, store, out, RANK="1", LOCAL_RANK="1", **shared) as (second, _),
    ):
        together = dict(line.recv() for _ in alone)
        first.join(60)
        second.join(60)
        assert (first.exitcode, second.exitcode) == (0, 0)
    assert together == pytest.approx(alone, rel=1e-5)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([100, 700])
    with torch.no_grad():
        one, two = (load_trained(tmp_path / name)[0].unet(x, t) for name in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_parts_and_recomputed_activations_change_nothing(
    recipe: Recipe, store: Path, tmp_path: Path
) -> None:
    recipe = replace(recipe, train=replace(recipe.train, precision="float32"))
    plain = losses(recipe, store, tmp_path / "plain")
    saving = replace(recipe.train, accumulate=2, checkpointing=True, workers=1)
    thrifty = losses(replace(recipe, train=saving), store, tmp_path / "thrifty")
    assert thrifty == pytest.approx(plain, rel=1e-5)


def test_compiled_steps_follow_the_curve(
    recipe: Recipe, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(recipe, train=replace(recipe.train, precision="float32"))
    plain = losses(recipe, store, tmp_path / "plain")
    # The network is traced and differentiated as for any backend, but needs no C++ compiler.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled = replace(recipe, train=replace(recipe.train, compile=True))
    assert losses(compiled, store, tmp_path / "compiled") == pytest.approx(plain, rel=1e-4)
    # Names in the checkpoint are those of the network itself.
    longer = replace(recipe, train=replace(recipe.train, iterations=7))
    assert list(losses(longer, store, tmp_path / "compiled")) == [7]


def test_stop_saves_the_step_that_was_reached(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    trainer = Pretrainer(recipe, store, tmp_path)
    for progress in trainer.run():
        if progress.step == 2:
            trainer.stop()
    assert checkpoint.read(tmp_path / checkpoint.NAME)[0].step == 3


def test_average_follows_with_a_warm_memory(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    trainer = Pretrainer(replace(recipe, train=replace(recipe.train, ema=0.5)), store, tmp_path)
    weight = trainer.net.stem.weight
    expected = None
    for count, _ in enumerate(trainer.run()):
        decay = min(0.5, (1 + count) / (10 + count))
        now = weight.detach().clone()
        expected = now if expected is None else decay * expected + (1 - decay) * now
    torch.testing.assert_close(trainer.ema.module.stem.weight, expected)


def test_starts_from_a_released_backbone(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    list(train(recipe, store, tmp_path / "first"))
    backbone, _ = load_trained(tmp_path / "first")
    save_backbone(tmp_path / "given.safetensors", backbone)
    given = load_backbone(tmp_path / "given.safetensors")
    settings = replace(recipe.train, init_from=str(tmp_path / "given.safetensors"), hu=())
    trainer = Pretrainer(replace(recipe, train=settings), store, tmp_path / "second")
    for name, tensor in given.unet.state_dict().items():
        assert torch.equal(trainer.net.state_dict()[name], tensor)
    assert trainer.header.intensity == given.intensity
    assert trainer.header.start["weights"] == "given"
    other = replace(recipe, unet=replace(recipe.unet, widths=(8, 24)), train=settings)
    with pytest.raises(PretrainError, match="differs"):
        Pretrainer(other, store, tmp_path / "third")


def test_percentiles_are_the_papers_intensity(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    trainer = Pretrainer(replace(recipe, train=replace(recipe.train, hu=())), store, tmp_path)
    statistics = json.loads((store / "manifest.json").read_text())["statistics"]
    assert trainer.header.intensity.hu == (statistics["p0.5"], statistics["p99.5"])


def test_what_cannot_work_is_said(recipe: Recipe, store: Path, tmp_path: Path) -> None:
    with pytest.raises(PretrainError, match="not a multiple"):
        Pretrainer(replace(recipe, train=replace(recipe.train, accumulate=3)), store, tmp_path)
    with pytest.raises(PretrainError, match="hu, value"):
        Pretrainer(replace(recipe, train=replace(recipe.train, hu=(1.0,))), store, tmp_path)
    list(train(replace(recipe, train=replace(recipe.train, iterations=1)), store, tmp_path))
    other = replace(recipe, unet=replace(recipe.unet, widths=(8, 24)))
    with pytest.raises(PretrainError, match="another network"):
        Pretrainer(other, store, tmp_path)
    (tmp_path / checkpoint.NAME).write_bytes(b"cut")
    with pytest.raises(PretrainError, match="not a checkpoint"):
        Pretrainer(recipe, store, tmp_path)


def test_learning_rate_falls_linearly(recipe: Recipe) -> None:
    settings = replace(recipe.train, iterations=101, learning_rate=2e-4, final_learning_rate=2e-5)
    rates = [learning_rate(step, settings) for step in (0, 50, 100)]
    assert rates == pytest.approx([2e-4, 1.1e-4, 2e-5])
    warm = replace(settings, warmup=3)
    early = [learning_rate(step, warm) / learning_rate(step, settings) for step in range(5)]
    assert early == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cost_counts_what_the_network_has() -> None:
    config = UNetConfig(16, (8, 16), 1, (8,), 8, "conv")
    cost = network_cost(config)
    assert cost.parameters == sum(p.numel() for p in UNet(config).parameters())
    assert 2.5 * cost.forward < cost.step < 3.1 * cost.forward
    assert cost.recomputed < cost.activations
    assert cost.memory(4, bf16=True) < cost.memory(4, bf16=False) < cost.memory(8, bf16=False)


def test_progress_names_the_remaining_time() -> None:
    line = describe(PretrainProgress(5, 10, 0.5, 60, 3720, 12.0, 100, 0.01, {10: 0.2, 50: 0.4}))
    assert "1 h 02 min left" in line
    assert "validation 0.3000" in line
