"""Work in a session that a process is killed at, and what must be there afterwards."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
from fault_tools import LostError, need  # it extends the path for what follows
from numpy.typing import NDArray
from safetensors.torch import load_file
from session_tools import (
    LIVER,
    QUICK,
    SHAPE,
    SPLEEN,
    block,
    tiny_backbone,
    tiny_volume,
    trained,
    weights,
)

from napari_diffseg import cli
from napari_diffseg.io.volume import read_labels, write_mask, write_volume
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session import Session, SessionError, SliceState, journal

Say = Callable[[], None]


def main(words: Sequence[str]) -> int:
    """Run a command without what it says."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return cli.main(words)


def nothing_half_written(folder: Path) -> None:
    """Read every file that has a final name, and have the next writer clear up."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.endswith(".part") for part in path.parts):
            continue
        try:
            if path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix in (".npz", ".npy"):
                loaded = np.load(path, allow_pickle=False)
                _ = [loaded[name] for name in getattr(loaded, "files", ())]
            elif path.suffix == ".json":
                json.loads(path.read_text())
        except Exception as error:
            raise LostError(f"{path.name} is half written ({type(error).__name__})") from error


def nothing_hidden(folder: Path) -> None:
    """Make sure that no folder of a killed writer is left."""
    left = sorted({path.parent.name for path in folder.rglob("*.part")})
    need(not left, f"hidden folders are left in {', '.join(left)}")


def reopened(folder: Path, backbone: bool = False) -> Session:
    """The session that a killed process has left."""
    nothing_half_written(folder)
    found = Session.recover(tiny_volume(), folder / "home", tiny_backbone() if backbone else None)
    if found is None:
        raise LostError("the session is gone")
    need(not found.notes, f"the session was not recovered: {' '.join(found.notes)}")
    return found


class Paint:
    """Strokes, corrections, accepted slices, and labels that come and go."""

    seconds, calls = 0.5, 200
    first = 25  # actions before the process begins

    def make(self, folder: Path, seed: int) -> None:
        with Session(tiny_volume(), [LIVER, SPLEEN], folder=folder / "home") as session:
            for number in range(self.first):
                self.act(session, seed, number)

    def work(self, folder: Path, seed: int, say: Say) -> None:
        journal.MAX_GROWTH_BYTES = 4000  # so that it is rewritten often
        session = reopened(folder)
        for number in itertools.count(self.first):
            self.act(session, seed, number)
            say()
            time.sleep(0.005)

    def act(self, session: Session, seed: int, number: int) -> None:
        """Do what the user does; the same for the same seed and number."""
        rng = np.random.default_rng([seed, number])
        z, what = int(rng.integers(SHAPE[0])), rng.random()
        paint, prediction = session.paint, session.prediction
        ids = [0, 255, *(label.id for label in paint.labels)]
        y, x = rng.integers(0, 24, 2)
        place = slice(y, y + 8), slice(x, x + 8)
        try:
            if what < 0.45:
                mask = paint.mask[z].copy()
                mask[place] = rng.choice(ids)
                states = (None, SliceState.SCRIBBLED, SliceState.PAINTED)
                paint.set_slice(z, mask, states[rng.integers(3)])
            elif what < 0.65:
                # What an accepted correction leaves in the prediction is not kept on disk.
                mask = prediction.mask[z] * np.uint8(z in prediction.edited)
                mask[place] = rng.choice([0, *ids[2:]])
                prediction.edit(z, mask)
            elif what < 0.72:
                session.accept(z)
            elif what < 0.78:
                paint.clear_slice(z)
            elif what < 0.88:
                if len(ids) < 6:
                    paint.add_label()
            elif what < 0.97:
                session.remove_label(int(rng.choice(ids[2:] or [9])))
            else:
                session.save()
        except SessionError:
            pass  # such as a label that is painted and cannot be removed

    def parts(self, session: Session) -> dict[object, object]:
        """Everything that a person has made, in parts that are written apart."""
        paint, prediction = session.paint, session.prediction
        found: dict[object, object] = {"labels": (paint.labels, paint.retired)}
        for z in range(SHAPE[0]):
            found["slice", z] = paint.mask[z].tobytes(), int(paint.states[z])
            edited = z in prediction.edited
            found["correction", z] = prediction.mask[z].tobytes() if edited else None
        return found

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        expected = Session(tiny_volume(), [LIVER, SPLEEN], folder=False)
        allowed: dict[object, set[object]] = {}
        for number in range(self.first + said + 1):
            self.act(expected, seed, number)
            if number + 1 >= self.first + sure:
                for name, value in self.parts(expected).items():
                    allowed.setdefault(name, set()).add(value)
        with reopened(folder) as session:
            for name, value in self.parts(session).items():
                need(value in allowed[name], f"{name} is not as it was")
            ids = {label.id for label in session.paint.labels}
            strange = set(np.unique(session.prediction.mask).tolist()) - {0, *ids}
            need(not strange, "a correction holds a label that was removed")
        nothing_hidden(folder)


def _begin(folder: Path, rounds: int = 1) -> None:
    """A session with paint, a correction and trained rounds."""
    with Session(tiny_volume(), [LIVER], tiny_backbone(), folder=folder / "home") as session:
        for seed in range(rounds):
            trained(session, seed)
        session.prediction.edit(2, _corrected())


def _corrected() -> NDArray[np.uint8]:
    mask = block()
    mask[20:24, 20:24] = 1
    return mask


def _still_there(session: Session, rounds: int) -> None:
    """Paint, correction, models and prediction of :func:`_begin` and later rounds."""
    for z in (1, 4):
        need(np.array_equal(session.paint.mask[z], block()), f"the paint of slice {z} is lost")
    prediction = session.prediction
    need(prediction.edited == {2}, "the correction is lost")
    need(np.array_equal(prediction.mask[2], _corrected()), "the correction has changed")
    need(bool((prediction.round_of > 0).all()), "a slice has lost its prediction")
    need(len(session.rounds.all) >= rounds, "a round is lost")
    need(session.trainer.segmenter is not None, "no model is in use")
    for made in session.rounds.all:
        session.trainer.restore(made.number)


class Train:
    """Train and predict in a session, round after round."""

    seconds, calls = 1.0, 60

    def make(self, folder: Path, seed: int) -> None:
        _begin(folder)

    def work(self, folder: Path, seed: int, say: Say) -> None:
        session = reopened(folder, backbone=True)
        for number in itertools.count(seed + 1):
            list(session.trainer.train(replace(QUICK, seed=number)))
            say()
            list(session.trainer.predict())

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        with reopened(folder, backbone=True) as session:
            _still_there(session, 1 + sure)
        nothing_hidden(folder)


class Predict:
    """Predict in a session, sometimes stopped early, and with the command."""

    seconds, calls = 0.8, 80

    def make(self, folder: Path, seed: int) -> None:
        _begin(folder)
        with reopened(folder) as session:
            session.trainer.save_model(folder / "model.safetensors")
        write_volume(folder / "ct.nii.gz", tiny_volume())

    def work(self, folder: Path, seed: int, say: Say) -> None:
        session = reopened(folder, backbone=True)
        words = ("predict", str(folder / "ct.nii.gz"), "--device", "cpu", "-o")
        words += (str(folder / "out"), "--model", str(folder / "model.safetensors"))
        while True:
            list(session.trainer.predict())
            some = session.trainer.predict(start=0)
            next(some)
            some.close()
            need(main(words) == 0, "predict failed")
            say()

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        with reopened(folder, backbone=True) as session:
            _still_there(session, 1)
        mask = folder / "out" / "ct.nii.gz"
        need(mask.exists() or not sure, "a mask is lost")
        if mask.exists():
            read_labels(mask, tiny_volume().geometry)
        if mask.parent.exists():  # the next mask clears up
            whole = np.zeros(SHAPE, np.uint8)
            write_mask(mask.with_name("next.nii"), whole, tiny_volume().geometry, [])
        nothing_hidden(folder)


class Save:
    """Save the session, and its models to a file by turns."""

    seconds, calls = 0.5, 120

    def make(self, folder: Path, seed: int) -> None:
        _begin(folder, rounds=2)
        with reopened(folder) as session:
            session.trainer.save_model(folder / "model.safetensors")

    def work(self, folder: Path, seed: int, say: Say) -> None:
        session = reopened(folder, backbone=True)
        for number in itertools.count():
            session.trainer.restore(1 + number % 2)
            session.trainer.save_model(folder / "model.safetensors")
            session.save()
            say()

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        with reopened(folder, backbone=True) as session:
            _still_there(session, 2)
            found = weights(Segmenter.load(folder / "model.safetensors"))
            known = [weights(session.rounds.model(number)) for number in (1, 2)]
            same = [all(map(np.array_equal, found, one)) for one in known]
            need(any(same), "the saved model is neither of the two")
            session.trainer.save_model(folder / "model.safetensors")
        nothing_hidden(folder)
