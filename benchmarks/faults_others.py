"""A GPU without memory, a clock that jumps, two windows on one session, two writers of one file."""

from __future__ import annotations

import datetime
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_sessions import Paint, nothing_half_written, nothing_hidden
from fault_tools import Figures, Kind, Outcome, child, killed, need, tally
from session_tools import LIVER, QUICK, block, tiny_backbone, tiny_volume, trained, weights

from napari_diffseg.io.volume import read_labels, write_mask
from napari_diffseg.network.device import DeviceError
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.network.unet import UNet
from napari_diffseg.session import Session, SessionInUseError


@contextmanager
def gpu_for(images: int) -> Iterator[None]:
    """Have the network run out of GPU memory with more images than these at a time."""
    encode = UNet.encode

    def small(self: UNet, x: torch.Tensor, *more: Any) -> Any:
        if len(x) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return encode(self, x, *more)

    UNet.encode = small  # type: ignore[method-assign]
    try:
        yield
    finally:
        UNet.encode = encode  # type: ignore[method-assign]


def gpu_memory(count: int, seed: int, folder: Path) -> Figures:
    """Train and predict while only some slices at a time fit, or none."""

    def one(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=folder / f"{number}")
        for z in (0, 1, 2, 4):
            session.paint.set_slice(z, block())
        trained(session)
        before, shown = session.trainer.segmenter, session.prediction.mask.copy()
        fits = number % 4
        recipe = rng.choice(("app", "paper"))
        strategy = rng.choice(("linear", "decoder"))
        settings = replace(QUICK, recipe=recipe, strategy=strategy, iterations=6)
        with gpu_for(fits):
            notes, problem = [], ""
            try:
                notes = [progress.note for progress in session.trainer.train(settings)]
                list(session.trainer.predict())
            except DeviceError as error:
                problem = str(error)
        if fits:
            need(not problem, problem)
            need(any("ran out of memory" in note for note in notes), "it is not said")
            need(session.trainer.segmenter is not before, "nothing was trained")
        else:
            need("the GPU ran out of memory" in problem, "the error is not clear")
            need("\n" not in problem, "more than a line")
            need(session.trainer.segmenter is before, "the model has changed")
            need(np.array_equal(session.prediction.mask, shown), "the prediction has changed")
            list(session.trainer.predict())
        session.close()

    return tally(count, one)


class Jumping(Paint):
    """Painting and training while the clock jumps by up to an hour, back and forth."""

    def work(self, folder: Path, seed: int, say: Any) -> None:
        jump_about(seed)
        super().work(folder, seed, say)


def jump_about(seed: int) -> None:
    """From now on, have the wall clock jump by up to an hour whenever it is looked at."""
    real, rng = time.time, random.Random(seed)

    def jumping() -> float:
        return real() + rng.uniform(-3600, 3600)

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime.fromtimestamp(jumping(), tz)

    time.time = jumping
    import napari_diffseg.session.rounds as rounds

    rounds.datetime = Datetime  # type: ignore[misc]


def clock(count: int, seed: int, folder: Path) -> Figures:
    """Kill a painter, and train, while the clock jumps; what is there then is opened."""
    job = Jumping()

    def one(number: int) -> None:
        place = folder / f"{number}"
        place.mkdir()
        job.make(place, seed)
        # Files from the future and from the past: the newest session is the last one made.
        for n, path in enumerate(sorted(place.rglob("*"))):
            at = time.time() + (7200 if n % 2 else -7200)
            os.utime(path, (at, at))
        kill = killed(job, place, seed, after=random.Random(f"{seed} {number}").uniform(0.1, 0.5))
        job.check(place, seed, len(kill.said), len(kill.said))
        outcome = child(_train_in_jumps, place, seed + number, log=folder / "log")
        need(outcome.code == 0, outcome.last)

    return tally(count, one)


def _train_in_jumps(folder: Path, seed: int) -> int:
    jump_about(seed)
    folders = []
    for n in range(3):
        session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=folder / "home")
        session.paint.set_slice(n, block())
        settings = replace(QUICK, iterations=None, seconds=0.3)
        for progress in session.trainer.train(settings):
            need(progress.remaining is None or 0 <= progress.remaining <= 0.3, "a wrong time left")
            need(progress.seconds >= 0, "negative time")
        list(session.trainer.predict())
        need(all(s >= 0 for s in session.rounds.all[0].seconds.values()), "negative seconds")
        folders.append(session.folder)
        session.close()
        with _recovered(folder) as again:
            need(again.folder == folders[-1], "not the newest session is opened")
    return 0


def _recovered(folder: Path) -> Session:
    found = Session.recover(tiny_volume(), folder / "home", tiny_backbone())
    assert found is not None
    return found


def windows(count: int, seed: int, folder: Path) -> Figures:
    """Open a session that another process has open, from several threads and processes."""
    job = Paint()

    def one(number: int) -> None:
        place = folder / f"{number}"
        place.mkdir()
        job.make(place, seed + number)
        session = _recovered(place)
        assert session.folder is not None
        before = {p.name: p.read_bytes() for p in session.folder.iterdir()}
        outcome = child(_second_window, place, log=folder / "log")
        need(outcome.code == 0, outcome.last)
        after = {p.name: p.read_bytes() for p in session.folder.iterdir()}
        need(before == after, "the second window has written")
        session.paint.set_slice(0, block())
        session.close()
        outcome = child(_race, place, log=folder / "log")
        need(outcome.code == 0, outcome.last)

    return tally(count, one)


def _second_window(folder: Path) -> int:
    try:
        Session.recover(tiny_volume(), folder / "home")
    except SessionInUseError as error:
        need("is open in another window (process " in str(error), str(error))
    else:
        need(False, "the session opens twice")
    with Session(tiny_volume(), [LIVER], folder=folder / "home") as other:
        other.paint.set_slice(0, block())
        need(other.folder is not None and other.folder.name == "0002", "not a folder of its own")
    return 0


def _race(folder: Path) -> int:
    """Open it in four threads at once: one gets it."""
    got: list[Session] = []
    refused: list[Exception] = []
    start = threading.Barrier(4)

    def take() -> None:
        start.wait()
        try:
            got.append(_recovered(folder))
        except SessionInUseError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    need((len(got), len(refused)) == (1, 3), f"{len(got)} of 4 got it, {len(refused)} were refused")
    got[0].close()
    return 0


def writers(count: int, seed: int, folder: Path) -> Figures:
    """Two processes save a model, and masks, under one name while a third reads them."""
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=False))
    trained(session, seed=1)
    geometry = tiny_volume().geometry
    masks = [np.full(tiny_volume().hu.shape, n, np.uint8) for n in (0, 1)]
    known = [weights(session.rounds.model(number)) for number in (1, 2)]

    def one(number: int) -> None:
        place = folder / f"{number}"
        place.mkdir()
        for n in (0, 1):
            session.rounds.model(1 + n).save(place / f"model-{n}.safetensors")
        _write(place, 0)
        done: list[Outcome] = []

        def write(n: int) -> None:
            done.append(child(_write_often, place, n, log=place / f"log-{n}"))

        threads = [threading.Thread(target=write, args=(n,)) for n in (0, 1)]
        for thread in threads:
            thread.start()
        reads = 0
        while any(thread.is_alive() for thread in threads) or not reads:
            found = weights(Segmenter.load(place / "model.safetensors"))
            same = [all(map(np.array_equal, found, one)) for one in known]
            need(any(same), "the model is neither of the two")
            mask = read_labels(place / "mask.seg.nrrd", geometry).mask
            need(any(np.array_equal(mask, one) for one in masks), "the mask is neither of the two")
            reads += 1
        for outcome in done:
            need(outcome.code == 0, f"a writer ended with {outcome.code}: {outcome.last}")
        nothing_half_written(place)
        nothing_hidden(place)

    return tally(count, one)


def _write(folder: Path, n: int) -> None:
    Segmenter.load(folder / f"model-{n}.safetensors").save(folder / "model.safetensors")
    mask = np.full(tiny_volume().hu.shape, n, np.uint8)
    write_mask(folder / "mask.seg.nrrd", mask, tiny_volume().geometry, [LIVER])


def _write_often(folder: Path, n: int) -> int:
    for _ in range(10):
        _write(folder, n)
    return 0


KINDS = (
    Kind(
        "gpu-memory",
        "simulated: fewer slices at a time and a note, or one line and the model as before",
        gpu_memory,
        12,
        4,
    ),
    Kind(
        "clock",
        "jumps by up to an hour: nothing is lost, no time is negative, the newest session opens",
        clock,
        6,
        3,
    ),
    Kind(
        "windows",
        "the second window is refused with a sentence that names the first, and writes nothing",
        windows,
        6,
        3,
    ),
    Kind(
        "writers",
        "every look at the file finds the whole output of one of the two",
        writers,
        6,
        3,
    ),
)
