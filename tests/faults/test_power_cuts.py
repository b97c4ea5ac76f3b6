"""Power cuts, on a disk that keeps only what it was asked to keep."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import faults_power
import pytest
from fault_disk import Mode, power_cut, recorded
from fault_sessions import Paint, Save, reopened
from fault_tools import Figures, LostError, killed

from napari_diffseg.io import files
from napari_diffseg.session import journal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/fd")


@pytest.mark.parametrize("name", ["paint", "train", "export"])
def test_a_power_cut_costs_a_second_at_most(name: str, tmp_path: Path) -> None:
    (kind,) = (kind for kind in faults_power.KINDS if kind.name == f"power-{name}")
    assert kind.run(3, 1, tmp_path) == Figures(3, 3, 0)  # one for each mode


_ENOUGH = 12  # actions: some of them change nothing


class NeverSynced(Paint):
    """Paint with a journal that is not synced."""

    def work(self, folder: Path, seed: int, say: Callable[[], None]) -> None:
        journal.SYNC_SECONDS = 1000.0
        session = reopened(folder)
        session.save = lambda: None  # type: ignore[method-assign]  # saving syncs
        for number in itertools.count(self.first):
            self.act(session, seed, number)
            say()
            time.sleep(0.005)


class NamesNotSynced(Save):
    """Save models into a folder whose names are not synced."""

    def make(self, folder: Path, seed: int) -> None:
        super().make(folder, seed)
        (folder / "model.safetensors").unlink()

    def work(self, folder: Path, seed: int, say: Callable[[], None]) -> None:
        files.sync_folder = lambda path: None
        super().work(folder, seed, say)


@pytest.mark.parametrize("job", [NeverSynced(), NamesNotSynced()], ids=["file", "folder"])
def test_the_disk_does_lose_what_is_not_synced(
    job: NeverSynced | NamesNotSynced, tmp_path: Path
) -> None:
    mode: Mode = get_args(Mode)[0]
    for after in (1.5, 5.0, 15.0):  # a busy machine needs longer to have something to lose
        place = tmp_path / f"place-{after:g}"
        place.mkdir()
        job.make(place, 0)
        kill = killed(job, place, 0, after=after, shim=recorded)
        if len(kill.said) > _ENOUGH:
            break
    assert len(kill.said) > _ENOUGH
    power_cut(place, tmp_path / "after", mode, random.Random(0))
    with pytest.raises((LostError, ValueError)):
        job.check(tmp_path / "after", 0, len(kill.said), len(kill.said) - 1)
