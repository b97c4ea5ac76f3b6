"""Rivals from packages of their own environment: ``make test-benchmarks`` runs these for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffseg_training.benchmark.methods import Options, find_method
from diffseg_training.benchmark.networks import ENCODERS, IMAGENET_FOLDER, NETWORKS
from diffseg_training.benchmark.profiles import OURS
from diffseg_training.benchmark.supervised import train_network
from diffseg_training.benchmark.tasks import BenchmarkTask, Example, LearningBudget
from napari_diffseg.engine.annotations import PaintedSlice
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import Backbone, Intensity, save_backbone
from napari_diffseg.network.unet import UNet, UNetConfig

# Networks of the papers' size on a CPU that others use too.
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def unet_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The papers' network with c = 128, untrained."""
    return _untrained(tmp_path_factory.mktemp("backbone") / "unet-b.safetensors", 1)


@pytest.fixture(scope="module")
def unet_l(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The papers' network with c = 256, untrained."""
    return _untrained(tmp_path_factory.mktemp("backbone") / "unet-l.safetensors", 2)


def _untrained(path: Path, times: int) -> Path:
    config = UNetConfig()
    unet = UNet(replace(config, widths=tuple(times * width for width in config.widths)))
    save_backbone(path, Backbone(path.stem, unet, Intensity((-1000.0, 1000.0), (-1.0, 1.0))))
    return path


def _task(
    iterations: int, slices: int = 4, enlarged: int = 1, painted: tuple[int, ...] = (0, 3)
) -> tuple[BenchmarkTask, np.ndarray]:
    y, x = np.mgrid[:64, :64]
    plane = np.where((y - 24) ** 2 + (x - 24) ** 2 < 90, 3, 0).astype(np.uint8)
    plane[36:52, 36:54] = 7
    mask = np.repeat(np.kron(plane, np.ones((enlarged, enlarged), np.uint8))[None], slices, 0)
    hu = np.select([mask == 3, mask == 7], [150, 300], 0) + np.random.default_rng(0).normal(
        0, 6, mask.shape
    )
    edge = 3 * enlarged
    hu[:, :edge] = hu[:, -edge:] = hu[:, :, :edge] = hu[:, :, -edge:] = -1000
    side = 2.0 / enlarged
    geometry = Geometry.from_affine(np.diag([-side, -side, 3.0, 1.0]), mask.shape[::-1])
    volume = Volume(hu.astype(np.int16), geometry, "made")
    paint = tuple(PaintedSlice(z, mask[z], True) for z in painted)
    labels = (Label(3, "disc", (255, 0, 0)), Label(7, "square", (0, 0, 255)))
    budget = LearningBudget(iterations=iterations)
    return BenchmarkTask(labels, (Example(volume, paint),), (volume,), budget, 0, "cpu"), mask


@pytest.mark.parametrize("name", list(ENCODERS))
def test_segmentation_models_train(name: str) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs make benchmark-env")
    task, truth = _task(25)
    outcome = train_network(task, name, side=64)
    assert outcome.steps == 25
    assert "no ImageNet file" in outcome.note
    found = outcome.masks[0] > 0
    assert 2 * (found & (truth > 0)).sum() / (found.sum() + (truth > 0).sum()) > 0.3


def test_imagenet_weights_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs make benchmark-env")
    first = NETWORKS["res-unet"].build(3, 64, True)
    encoder = first.network.encoder
    torch.save(encoder.state_dict(), tmp_path / f"{ENCODERS['res-unet'][1]}.pth")
    monkeypatch.setenv(IMAGENET_FOLDER, str(tmp_path))
    second = NETWORKS["res-unet"].build(3, 64, True)
    for name, weight in encoder.state_dict().items():
        torch.testing.assert_close(second.network.encoder.state_dict()[name], weight)
    assert "ImageNet weights" in train_network(_task(1)[0], "res-unet", side=64).note


def test_the_real_nnunet_plans_trains_and_predicts() -> None:
    pytest.importorskip("nnunetv2", reason="needs make benchmark-env")
    from diffseg_training.benchmark.nnunet import nnunet_2d

    task, truth = _task(40)
    outcome = nnunet_2d(task)
    assert outcome.steps == 40
    assert "nnunetv2 2." in outcome.note
    assert outcome.masks[0].shape == truth.shape
    assert set(np.unique(outcome.masks[0])) <= {0, 3, 7}
    found = outcome.masks[0] > 0
    assert 2 * (found & (truth > 0)).sum() / (found.sum() + (truth > 0).sum()) > 0.3


def test_the_real_convpaint_learns() -> None:
    pytest.importorskip("napari_convpaint", reason="needs make benchmark-env")
    task, truth = _task(1)
    outcome = find_method("convpaint").run(task, Options(side=64))
    assert "no ImageNet file" in outcome.note
    found = outcome.masks[0] > 0
    assert 2 * (found & (truth > 0)).sum() / (found.sum() + (truth > 0).sum()) > 0.8


def test_contours_are_interpolated_between_painted_slices_alone() -> None:
    itk = pytest.importorskip("itk", reason="needs make benchmark-env")
    if not hasattr(itk, "MorphologicalContourInterpolator"):
        pytest.skip("needs make benchmark-env")
    task, truth = _task(1, slices=9, painted=(2, 6))
    found = find_method("contour-interpolation").run(task, Options()).masks[0]
    assert np.array_equal(found[[2, 6]], truth[[2, 6]])
    assert not found[[0, 1, 7, 8]].any()
    for z in (3, 4, 5):
        for label in (3, 7):
            a, b = found[z] == label, truth[z] == label
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.8


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_at_the_papers_size_take_two_steps(name: str) -> None:
    # All of them only in the benchmarks' environment: `make test` stays light.
    pytest.importorskip("segmentation_models_pytorch", reason="needs make benchmark-env")
    outcome = train_network(_one_slice(_task(2)[0]), name, 256, small=False)
    assert outcome.steps == 2
    assert outcome.masks[0].shape == (1, 64, 64)


def test_nnunet_at_the_papers_size_takes_two_steps() -> None:
    """Slices of 512 pixels, and so many that its plan is not cut short for want of data."""
    pytest.importorskip("nnunetv2", reason="needs make benchmark-env")
    task, _ = _task(2, slices=250, enlarged=8, painted=tuple(range(250)))
    outcome = find_method("nnunet").run(_one_slice(task), Options(small=False))
    assert outcome.steps == 2
    assert "512 x 512 pixels, batches of 1" in outcome.note
    assert outcome.masks[0].shape == (1, 512, 512)


@pytest.mark.parametrize("name", [f"{s}{m}" for s in OURS for m in ("", "-m")] + ["ddpm-seg"])
def test_our_rows_at_the_papers_size_take_two_steps(name: str, unet_b: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs make benchmark-env")
    outcome = find_method(name).run(_one_slice(_task(2)[0]), Options(backbone=unet_b, side=256))
    assert outcome.steps == (20 if name == "ddpm-seg" else 2)  # ten voters, two steps each
    assert outcome.masks[0].shape == (1, 64, 64)


@pytest.mark.parametrize("name", [f"{s}-l" for s in OURS])
def test_our_rows_of_size_l_take_two_steps(name: str, unet_l: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs make benchmark-env")
    # From scratch, four slices of 256 pixels need more than the 24 GB that such a machine may have.
    side = 128 if name == "scratch-l" else 256
    outcome = find_method(name).run(_one_slice(_task(2)[0]), Options(backbone=unet_l, side=side))
    assert outcome.steps == 2
    assert outcome.masks[0].shape == (1, 64, 64)


def _one_slice(task: BenchmarkTask) -> BenchmarkTask:
    """Test on one slice of the volume, to save time."""
    (volume,) = task.test
    return replace(task, test=(Volume(volume.hu[:1], volume.geometry, "one slice"),))
