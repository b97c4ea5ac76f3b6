"""Percentiles of the streaming histogram against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from diffseg_training.histogram import Histogram


@pytest.mark.parametrize("q", [0, 0.5, 37.3, 50, 99.5, 100])
def test_percentiles_of_whole_hu_equal_numpys(q: float) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(-300, 500, (n, 7, 5)).round().astype(np.int16) for n in (3, 1, 8)]
    one, other = Histogram(), Histogram()
    one.add(parts[0])
    other.add(parts[1])
    other.add(parts[2])
    one.merge(other.sparse())
    voxels = np.concatenate([part.ravel() for part in parts])
    assert one.total == voxels.size
    assert one.percentile(q) == pytest.approx(np.percentile(voxels, q))


def test_fractional_and_outlying_values_are_right_to_the_bin() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 300, (10, 500)).astype(np.float32)
    values[0, 0] = 1e9
    histogram = Histogram()
    histogram.add(values)
    statistics = histogram.statistics()
    for name, q in (("p0.5", 0.5), ("p99.5", 99.5)):
        assert abs(statistics[name] - np.percentile(values, q)) <= 1
    assert statistics["min"] == np.rint(values.min())
    assert statistics["max"] == 32767
