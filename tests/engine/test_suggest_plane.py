"""Planes across the slices are suggested where they help more than another slice."""

from __future__ import annotations

import numpy as np
import pytest

from napari_diffseg.engine.suggest_plane import expected_error, suggest_plane

SPACING = (2.5, 4.0, 4.0)


def _error(rows: slice, columns: slice) -> np.ndarray:
    error = np.zeros((80, 32, 32), np.float32)
    error[:, rows, columns] = 0.4
    return error


def _painted(*at: int) -> np.ndarray:
    marked = np.zeros(80, bool)
    marked[list(at)] = True
    return marked


@pytest.mark.parametrize(
    ("rows", "columns", "axis"),
    [(slice(10, 13), slice(4, 28), "coronal"), (slice(4, 28), slice(10, 13), "sagittal")],
)
def test_the_plane_goes_through_the_middle_of_what_is_doubtful(
    rows: slice, columns: slice, axis: str
) -> None:
    found = suggest_plane(_error(rows, columns), _painted(0, 1, 78, 79), [], SPACING, 25.0, step=2)
    assert found is not None
    assert (found.axis, found.index) == (axis, 23)  # the middle of 10 to 12, thinned by 2
    assert found.reason == f"{axis.capitalize()} 23 crosses gaps of up to 76 slices"


def test_a_painted_plane_is_not_suggested_again() -> None:
    error = _error(slice(2, 30), slice(2, 30))
    error[:, 14:17] = 0.8
    first = suggest_plane(error, _painted(0, 1, 78, 79), [], SPACING, 25.0)
    assert first is not None
    second = suggest_plane(
        error, _painted(0, 1, 78, 79), [(first.axis, first.index)], SPACING, 25.0
    )
    assert second is None or (
        second.axis != first.axis or abs(second.index - first.index) * SPACING[1] > 10
    )


def test_narrow_gaps_and_doubt_in_one_slice_ask_for_slices() -> None:
    everywhere = _error(slice(10, 13), slice(4, 28))
    assert suggest_plane(everywhere, np.arange(80) % 6 == 0, [], SPACING, 25.0) is None
    once = np.zeros_like(everywhere)
    once[40, 5:25, 5:25] = 0.9
    assert suggest_plane(once, _painted(0, 1, 78, 79), [], SPACING, 25.0) is None
    assert suggest_plane(np.zeros_like(once), _painted(0, 1, 78, 79), [], SPACING, 25.0) is None


def test_a_few_slices_come_first() -> None:
    error = _error(slice(10, 13), slice(4, 28))
    assert suggest_plane(error, _painted(0, 78, 79), [], SPACING, 25.0) is None


def test_sure_background_has_no_error() -> None:
    prediction = np.array([[[0, 0, 3, 3]]], np.uint8)
    confidence = np.array([[[99, 40, 100, 30]]], np.uint8)
    np.testing.assert_allclose(
        expected_error(prediction, confidence), [[[0, 0.8, 0.2, 0.9]]], atol=1e-6
    )
