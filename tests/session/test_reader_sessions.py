"""Two readers of one CT, kept apart and compared."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, block, tiny_volume

from napari_diffseg.session import Session, SessionError
from napari_diffseg.session.readers import (
    FIRST,
    agreement_csv,
    read_as,
    reader_folder,
    readers_of,
    reading,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path))
    return tmp_path


def test_readers_see_nothing_of_each_other_and_are_compared() -> None:
    volume = tiny_volume()
    with Session(volume, [LIVER]) as one:
        one.paint.set_slice(2, block())
    with read_as(volume, "B. Miller", [LIVER]) as other:
        assert [label.name for label in other.paint.labels] == ["liver"]
        assert not other.paint.mask.any()
        other.paint.set_slice(2, np.roll(block(), 2, axis=0))
    assert readers_of(volume) == (FIRST, "B. Miller")
    assert readers_of(tiny_volume(1)) == ()
    with read_as(volume, "B. Miller") as again:  # goes on
        np.testing.assert_array_equal(again.paint.mask[2], np.roll(block(), 2, axis=0))
    earlier = Session.recover(volume)
    assert earlier is not None
    np.testing.assert_array_equal(earlier.paint.mask[2], block())
    earlier.close()

    (row,) = csv.DictReader(io.StringIO(agreement_csv(volume)))
    assert (row["reader A"], row["reader B"], row["label"]) == (FIRST, "B. Miller", "liver")
    assert float(row["Dice"]) == pytest.approx(0.75)
    # Kappa of 48 of 64 pixels in common, among 6 x 32 x 32.
    n, both, each = 6 * 32 * 32, 48, 64
    observed = (n - 2 * each + 2 * both) / n
    expected = (each**2 + (n - each) ** 2) / n**2
    assert float(row["kappa"]) == pytest.approx((observed - expected) / (1 - expected), abs=1e-4)


def test_a_reader_can_be_compared_while_the_other_window_is_open() -> None:
    volume = tiny_volume()
    with read_as(volume, "Ann", [LIVER]) as session:
        session.paint.set_slice(1, block())
        assert (reading(volume, "Ann").mask[1] == block()).all()
        with pytest.raises(SessionError, match="only one reader"):
            agreement_csv(volume)
        with pytest.raises(SessionError, match="Bob has no session of this CT"):
            reading(volume, "Bob")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 41, "dots.", "two\nlines"])
def test_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(SessionError, match="is no name of a reader"):
        reader_folder(name)
