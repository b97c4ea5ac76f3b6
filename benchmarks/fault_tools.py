"""What the kinds of faults share: their figures, and how a process is killed at its work."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[1]
for _name in ("benchmarks", "src", "training", "models", "tests", "tests/training"):
    if str(ROOT / _name) not in sys.path:
        sys.path.append(str(ROOT / _name))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; children inherit it

_PATIENCE = 60.0  # s that a child may take
_CALLS = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Figures:
    """Outcome of some tries of one kind of fault.

    Attributes
    ----------
    tried, survived, lost
        Tries; those after which everything was as promised; those after which it was not.
    note
        What was lost, or what was measured; one line, without paths.
    """

    tried: int
    survived: int
    lost: int
    note: str = ""

    def __add__(self, other: Figures) -> Figures:
        notes = dict.fromkeys(note for part in (self.note, other.note) for note in part.split("; "))
        return Figures(
            self.tried + other.tried,
            self.survived + other.survived,
            self.lost + other.lost,
            "; ".join(filter(None, notes)),
        )


@dataclass(frozen=True)
class Kind:
    """One kind of fault, and how to try it.

    Attributes
    ----------
    name
        On the command line.
    promise
        What must hold after each try: a sentence for the documentation.
    run
        ``run(count, seed, folder)`` makes ``count`` tries in an empty folder. The same seed makes
        the same tries.
    count
        Tries of a full run.
    chunk
        Tries that one call makes at most: a run can be stopped and resumed between two calls.
    """

    name: str
    promise: str
    run: Callable[[int, int, Path], Figures]
    count: int
    chunk: int = 10


class LostError(Exception):
    """What was promised does not hold."""


def need(holds: bool, otherwise: str) -> None:
    """Raise :class:`LostError` with this sentence unless something holds."""
    if not holds:
        raise LostError(otherwise)


class Job(Protocol):
    """Work that a process is killed at.

    Attributes
    ----------
    seconds
        Within which the kill comes.
    calls
        Within how many calls that change the disk the kill comes, when it comes at one of them.
    """

    seconds: float
    calls: int

    def make(self, folder: Path, seed: int) -> None:
        """Make what is there before."""

    def work(self, folder: Path, seed: int, say: Callable[[], None]) -> None:
        """Work on it, and say so after each step that has to last."""

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        """Raise unless the first ``sure`` of the ``said`` steps have lasted, and all is whole."""


@dataclass(frozen=True)
class Kill:
    """A process that was killed: when each step was said, when it died, if it had ended."""

    said: tuple[float, ...]
    at: float
    ended: bool


def killed(
    job: Job,
    folder: Path,
    seed: int,
    after: float = _PATIENCE,
    call: int = 0,
    shim: Callable[[Path], object] | None = None,
) -> Kill:
    """Kill a job with SIGKILL.

    Parameters
    ----------
    job, folder, seed
        The job, its folder, which ``make`` has been at, and its seed.
    after
        Seconds after which it is killed.
    call
        Which call that changes the disk kills it before; 0 for none.
    shim
        Called with the folder in the process, before the work.
    """
    # One server imports everything once; every child is a copy of it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fault_jobs"])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(job, folder, seed, call, shim, theirs))
    child.start()
    theirs.close()
    items: list[Any] = []

    def take(until: float) -> bool:
        """Take one item; says whether more may come."""
        try:
            if ours.poll(max(0.0, until - time.monotonic())):
                items.append(ours.recv())
                return items[-1] is not None
        except (EOFError, OSError):
            return False
        return time.monotonic() < until

    try:
        more = take(time.monotonic() + _PATIENCE)
        end = time.monotonic() + after
        while more:
            more = take(end)
    finally:
        child.kill()
        child.join()
    at = time.monotonic()
    while take(at):
        pass
    ours.close()
    return Kill(tuple(filter(None, items[1:])), at, bool(items) and items[-1] is None)


def _child(
    job: Job,
    folder: Path,
    seed: int,
    call: int,
    shim: Callable[[Path], object] | None,
    line: Connection,
) -> None:
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    if shim is not None:
        kept = shim(folder)  # noqa: F841
    if call:
        kill_before(call, folder)
    line.send(time.monotonic())
    job.work(folder, seed, lambda: line.send(time.monotonic()))
    line.send(None)


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, and what it wrote to standard error."""

    code: int | None
    err: str

    @property
    def last(self) -> str:
        """The last line."""
        return (self.err.strip().splitlines() or ["nothing"])[-1]


def child(function: Callable[..., int], *arguments: object, log: Path) -> Outcome:
    """Call a function in a process of its own; its result is the exit code.

    Parameters
    ----------
    function, arguments
        The function, of some module, and its arguments.
    log
        File for standard error.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fault_jobs"])
    process = context.Process(target=_logged, args=(function, arguments, log))
    process.start()
    process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        return Outcome(None, log.read_text())
    return Outcome(process.exitcode, log.read_text())


def _logged(function: Callable[..., int], arguments: tuple[object, ...], log: Path) -> None:
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.exit(function(*arguments))


def one_clear_line(outcome: Outcome) -> None:
    """Make sure that a command which failed says why in one line."""
    need(outcome.code == 1, f"ended with {outcome.code}")
    need("Traceback" not in outcome.err, "shows a traceback")
    errors = [line for line in outcome.err.splitlines() if "error:" in line]
    need(len(errors) == 1 and "(--debug shows where)" not in errors[0], f"says {errors}")


def kill_before(call: int, folder: Path) -> None:
    """Have this process kill itself before a call that changes the folder; they count from 1."""
    left = [call]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CALLS or (event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike):
                name = os.fsdecode(path)
                if not Path(name).is_absolute() or name.startswith(str(folder)):
                    count()

    sync = os.fsync
    os.fsync = lambda descriptor: (count(), sync(descriptor))[1]
    sys.addaudithook(watch)


def tally(tries: int, one: Callable[[int], None]) -> Figures:
    """Count how many of some tries lose nothing.

    Parameters
    ----------
    tries
        How many.
    one
        Makes the try of this number; whatever it raises is a loss.
    """
    figures = Figures(0, 0, 0)
    for number in range(tries):
        try:
            one(number)
            figures += Figures(1, 1, 0)
        except Exception as error:
            text = (
                str(error) if isinstance(error, LostError) else f"{type(error).__name__}: {error}"
            )
            text = " ".join(text.split()).replace("|", "/")
            with contextlib.suppress(ValueError):
                text = text[: text.index(str(ROOT))] + "..."
            figures += Figures(1, 0, 1, text[:300])
    return figures
