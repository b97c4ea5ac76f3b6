"""Bootstrap intervals of means over patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from napari_diffseg.engine.intervals import bootstrap


def test_interval_is_scipys() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.1, 40)
    found = bootstrap([*values, math.nan], seed=3)
    result = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=0)
    expected = result.confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert found.cases == 40
    assert found.low == pytest.approx(expected.low, abs=0.002)
    assert found.high == pytest.approx(expected.high, abs=0.002)


def test_interval_depends_on_the_seed_alone() -> None:
    values = np.random.default_rng(0).random(20)
    assert bootstrap(values, 500, seed=1) == bootstrap(values, 500, seed=1)
    assert bootstrap(values, 500, seed=1) != bootstrap(values, 500, seed=2)


def test_too_few_cases_have_no_interval() -> None:
    assert math.isnan(bootstrap([]).mean)
    one = bootstrap([0.7, math.nan])
    assert (one.mean, one.cases) == (0.7, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
