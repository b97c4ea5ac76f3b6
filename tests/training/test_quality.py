"""Generative metrics against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from diffseg_training.quality import Moments, evaluate, frechet_distance, precision_recall


def _moments(features: torch.Tensor, parts: int = 3) -> Moments:
    moments = Moments(features.shape[1])
    for part in features.chunk(parts):
        moments.add(part)
    return moments


def test_streamed_moments_equal_numpys() -> None:
    features = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 6).double() + 100
    moments = _moments(features)
    np.testing.assert_allclose(moments.mean, features.mean(0))
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy().T))


def test_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    torch.manual_seed(0)
    white = torch.randn(4000, 5, dtype=torch.float64)
    # Exactly zero mean and unit covariance, so the closed form holds exactly.
    white = white - white.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T))).T
    shift, scale = torch.arange(5.0).double(), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0]).double()
    expected = float(shift.square().sum() + (scale - 1).square().sum())
    moved = _moments(white * scale + shift)
    assert frechet_distance(_moments(white), moved) == pytest.approx(expected)
    assert frechet_distance(moved, moved) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_equals_the_matrix_root_form() -> None:
    torch.manual_seed(1)
    a = _moments(torch.randn(60, 8).double() @ torch.randn(8, 8).double())
    b = _moments(torch.randn(40, 8).double() @ torch.randn(8, 8).double() + 1)
    root = scipy.linalg.sqrtm(a.covariance.numpy() @ b.covariance.numpy()).real
    expected = ((a.mean - b.mean) ** 2).sum() + (a.covariance + b.covariance).trace()
    assert frechet_distance(a, b) == pytest.approx(float(expected) - 2 * np.trace(root))


def test_precision_and_recall_of_known_manifolds() -> None:
    torch.manual_seed(0)
    real = torch.cat([torch.rand(200, 2), torch.rand(200, 2) + 10])
    # Half of the real modes, and a quarter of the samples nowhere near.
    generated = torch.cat([torch.rand(150, 2), torch.rand(50, 2) - 50])
    precision, recall = precision_recall(real, generated, chunk=64)
    assert precision == pytest.approx(0.75, abs=0.04)
    assert recall == pytest.approx(0.5, abs=0.04)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, generated) == precision_recall(real, generated, chunk=10_000)


def test_report_says_when_samples_are_too_few() -> None:
    torch.manual_seed(0)
    real, generated = torch.randn(30, 4), torch.randn(25, 4)
    spatial = torch.randn(30, 40), torch.randn(25, 40)
    quality = evaluate(real, generated, *spatial)
    assert len(quality.notes) == 1
    assert "sFID is biased upwards: 25 samples" in quality.notes[0]
    assert quality.f1 == pytest.approx(
        2 * quality.precision * quality.recall / (quality.precision + quality.recall)
    )
    assert evaluate(real, generated).sfid is None
    with pytest.raises(ValueError, match="same extractor"):
        evaluate(real, torch.randn(25, 5))


def test_figures_equal_torch_fidelitys() -> None:
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    torch.manual_seed(0)
    real = torch.randn(120, 12, dtype=torch.float64)
    generated = torch.randn(100, 12, dtype=torch.float64) * 0.9 + 0.2
    quality = evaluate(real, generated)
    statistics = [fid.fid_features_to_statistics(features) for features in (real, generated)]
    theirs = fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert quality.fid == pytest.approx(theirs["frechet_inception_distance"], rel=1e-8)
    theirs = prc.calculate_precision_recall_part(generated, real, 3)
    assert (quality.precision, quality.recall) == pytest.approx(theirs)
