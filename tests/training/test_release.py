"""From a checkpoint to a registered backbone, generated slices, and their evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretrain_tools import TINY

from diffseg_training import inception
from diffseg_training.cli import main
from diffseg_training.generate import generate, grid, windowed
from diffseg_training.inception import Inception
from diffseg_training.release import load_trained, release
from diffseg_training.settings import PretrainError, Recipe, ReleaseSettings, SampleSettings
from diffseg_training.train import train
from napari_diffseg.io.volume import read_volume
from napari_diffseg.network.backbone import Backbone, BackboneError, Intensity, load_backbone
from napari_diffseg.network.unet import UNet


@pytest.fixture
def trained(recipe: Recipe, store: Path, tmp_path: Path) -> Path:
    list(train(recipe, store, tmp_path / "run"))
    return tmp_path / "run"


def test_release_can_be_loaded_and_says_what_it_is(
    trained: Path, store: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.jsonl"
    figures.write_text('{"slices": 4, "dice": 0.5}\n{"slices": 8, "dice": null}\n')
    folder = tmp_path / "models"
    for name in ("older", "tiny"):
        settings = ReleaseSettings(name, samples=2, steps=2, data=str(store), figures=str(figures))
        path = release(trained, folder, settings)
    averaged, header = load_trained(trained)
    released = load_backbone(path)
    for name, tensor in averaged.unet.state_dict().items():
        torch.testing.assert_close(released.unet.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)
    registry = (folder / "registry.toml").read_text()
    assert registry.index("[tiny]") < registry.index("[older]")
    card = released.card
    assert card["steps"] == header.step == 6
    assert card["slices_seen"] == 6 * header.settings.batch
    # The run's last validation was of the same weights on the same slices.
    assert card["validation"] == pytest.approx(header.history["validation"][-1][1], rel=2e-2)
    assert card["curves"]["validation"][-1][0] == 6
    assert card["few_shot"] == [{"slices": 4, "dice": 0.5}, {"slices": 8, "dice": None}]
    assert card["data"]["collections"]["Test"]["licence"] == "CC0"
    text = (folder / "tiny.md").read_text()
    assert "| Test | CC0 | 5 |" in text
    assert "t = 900" in text
    assert "| slices | dice |\n| --- | --- |\n| 4 | 0.5 |\n| 8 |  |" in text
    for content in (text, json.dumps(card)):
        assert "patient0" not in content
        assert str(tmp_path) not in content
    assert (folder / "tiny-samples-lung.png").exists()
    assert not list(folder.glob("*.part"))
    # The registry's checksum guards the file.
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(BackboneError, match="SHA-256"):
        load_backbone(_only(folder, "tiny"))


def _only(folder: Path, name: str) -> Path:
    registry = folder / "registry.toml"
    blocks = registry.read_text().split("\n\n")
    registry.write_text(next(block for block in blocks if block.startswith(f"[{name}]")))
    return folder


def test_too_large_weights_leave_the_old_release(trained: Path, tmp_path: Path) -> None:
    settings = ReleaseSettings("tiny", samples=0)
    path = release(trained, tmp_path / "models", settings)
    before = path.read_bytes()
    with pytest.raises(PretrainError, match=r"over 0\.001 MB"):
        release(trained, tmp_path / "models", replace(settings, megabytes=0.001))
    assert path.read_bytes() == before
    with pytest.raises(PretrainError, match="no such checkpoint"):
        release(tmp_path / "nowhere", tmp_path / "models", settings)


@pytest.mark.parametrize("content", ['{"dice": ', "[]", "[1]", '[{"a": 1}, {"b": 2}]', '{"a": 1}'])
def test_figures_that_are_no_table_are_refused(trained: Path, tmp_path: Path, content: str) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text(content)
    with pytest.raises(PretrainError, match=r"figures\.json: "):
        release(trained, tmp_path, ReleaseSettings("tiny", samples=0, figures=str(figures)))


def _backbone() -> Backbone:
    torch.manual_seed(0)
    net = UNet(TINY)
    torch.nn.init.normal_(net.out[2].weight, std=0.1)
    return Backbone("tiny", net, Intensity((-1000.0, 1000.0), (-1.0, 1.0)))


@pytest.mark.parametrize("settings", [
    SampleSettings(count=3, steps=4, eta=0.5, device="cpu"),
    SampleSettings(count=3, steps=4, eta=0.0, device="cpu"),
])  # fmt: skip
def test_a_seeded_slice_does_not_depend_on_its_batch(settings: SampleSettings) -> None:
    def slices(settings: SampleSettings) -> np.ndarray:
        states = generate(_backbone(), settings)
        return np.concatenate([state.hu for state in states if state.hu is not None])

    together, alone = slices(settings), slices(replace(settings, batch=1))
    assert together.shape == (3, 16, 16)
    np.testing.assert_allclose(together, alone, atol=30)  # HU; low precision rounds differently
    assert np.abs(slices(replace(settings, seed=1)) - together).max() > 100


def test_windows_are_the_papers() -> None:
    hu = np.array([-1200, -500, 200, -135, 40, 215], np.float32)
    np.testing.assert_array_equal(windowed(hu, "lung"), [0, 128, 255, 194, 226, 255])
    assert windowed(hu, "abdomen").tolist() == [0, 0, 244, 0, 128, 255]
    sheet = grid(np.zeros((5, 4, 4), np.float32), "lung")
    assert sheet.shape == (9, 14)


def test_command_line_samples_and_evaluates(trained: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip  # noqa: E501
    out = tmp_path / "out"
    assert main(["sample", str(trained), "--out", str(out), "--count", "5", "--steps", "2"]) == 0
    assert read_volume(out / "samples.nii.gz").hu.shape == (5, 16, 16)
    assert matplotlib.image.imread(out / "samples-abdomen.png").shape[0] == 33
    capsys.readouterr()
    backbone = str(trained / "best.safetensors")
    command = ["evaluate", str(store), str(out / "samples.nii.gz"), "--extractor", backbone]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["real"], report["generated"], report["dims"][0]) == (6, 5, 16)
    assert report["fid"] > 0
    assert any("biased" in note for note in report["notes"])


def test_inception_has_the_ported_weights_layout() -> None:
    torch.manual_seed(0)
    net = Inception().eval()
    # 23.8 million weights with the classifier of 1,008 classes, as published.
    assert sum(p.numel() for p in net.parameters()) == 21_785_568
    with torch.no_grad():
        pooled, spatial = net(torch.rand(1, 3, 64, 64) * 255)
    assert pooled.shape == (1, 2048)
    assert spatial.shape == (1, 17 * 17 * 7)


def test_inception_equals_torchvisions_but_for_the_pools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs = models.inception_v3(weights=None, aux_logits=True, init_weights=False).eval()
    torch.save(theirs.state_dict(), tmp_path / "inception.pt")
    ours = Inception.from_file(tmp_path / "inception.pt")
    # With torchvision's pools in place of the evaluator's, nothing else may differ.
    monkeypatch.setattr(inception, "_average", lambda x: F.avg_pool2d(x, 3, 1, 1))
    ours.Mixed_7c.maximum = False
    theirs.fc = torch.nn.Identity()
    x = torch.rand(1, 3, 299, 299) * 255
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], theirs((x - 128) / 128))


def test_slices_of_earlier_runs_count(trained: Path, recipe: Recipe, store: Path, tmp_path: Path):
    released = release(trained, tmp_path / "models", ReleaseSettings("first", samples=0))
    seen = load_backbone(released).card["slices_seen"]
    onward = replace(recipe.train, init_from=str(released), iterations=2)
    list(train(replace(recipe, train=onward), store, tmp_path / "onward"))
    again = release(tmp_path / "onward", tmp_path / "models", ReleaseSettings("second", samples=0))
    assert load_backbone(again).card["slices_seen"] == seen + 2 * onward.batch
    text = (tmp_path / "models" / "second.md").read_text()
    assert f"from an earlier first that had seen {seen} slices" in text
