"""Too little of everything: a full disk, folders that cannot be written, too little memory."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from fault_jobs import JOBS, Segment
from fault_sessions import nothing_half_written, nothing_hidden
from fault_tools import Figures, Kind, child, need, one_clear_line, tally
from session_tools import LIVER, QUICK, block, tiny_backbone, tiny_volume

from napari_diffseg import cli
from napari_diffseg.io.files import clear_up
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume, read_labels, write_mask, write_volume
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session import Session, SessionError

_DISK = 8 << 20  # bytes
_NOBODY = 65534


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a disk of 8 MiB, or give ``None`` where that is not allowed."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(place)]
    try:
        done = subprocess.run(words, capture_output=True, check=False)
    except OSError:
        yield None
        return
    if done.returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Leave so many bytes of a disk free; returns the file that takes the others."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    with filler.open("wb") as stream:
        while free > left:
            free -= stream.write(bytes(min(1 << 16, free - left)))
    return filler


def full_disk_session(count: int, seed: int, folder: Path) -> Figures:
    """Paint and train while the disk is full; then there is space again, and it is reopened."""
    with small_disk(folder) as disk:
        if disk is None:
            return Figures(0, 0, 0, "needs the right to mount")

        def one(number: int) -> None:
            outcome = child(_full_session, disk, 1000 * seed + number, log=folder / "log")
            need(outcome.code == 0, outcome.last)
            for path in disk.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

        return tally(count, one)


def _full_session(disk: Path, seed: int) -> int:
    rng = np.random.default_rng(seed)
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=disk / "home")
    session.paint.set_slice(1, block())
    before = session.paint.mask.copy()
    filler = fill(disk, int(rng.integers(0, 40)) * 1000)
    failed = 0
    for _ in range(200):  # noise cannot be compressed, so it takes space
        mask = rng.integers(0, 2, before.shape[1:], dtype=np.uint8)
        z = int(rng.integers(2, 6))
        before[z] = mask
        try:
            session.paint.set_slice(z, mask)
        except SessionError as error:
            failed += 1
            need("autosave failed (No space left on device)" in str(error), str(error))
    need(np.array_equal(session.paint.mask, before), "paint is lost in memory")
    *_, last = session.trainer.train(QUICK)
    need("could not be saved" in last.note or not failed, "the training says nothing")
    need(session.trainer.segmenter is last.segmenter, "the model is lost")
    filler.unlink()
    session.paint.set_slice(0, block())
    before[0] = block()
    shutil.copytree(disk / "home", disk / "copy" / "home")  # what a kill would leave now
    again = reopened_quietly(disk / "copy")
    need(np.array_equal(again.paint.mask, before), "paint is lost on the disk")
    again.close()
    session.close()
    with reopened_quietly(disk) as again:
        need(np.array_equal(again.paint.mask, before), "paint is lost at the end")
    nothing_hidden(disk)
    return 0


def reopened_quietly(folder: Path) -> Session:
    """The session in a folder; the last model may be missing."""
    nothing_half_written(folder)
    found = Session.recover(tiny_volume(), folder / "home", tiny_backbone())
    assert found is not None
    return found


def full_disk_command(count: int, seed: int, folder: Path) -> Figures:
    """``segment`` over earlier outputs on a disk that is nearly full."""
    job = Segment()
    with small_disk(folder) as disk:
        if disk is None:
            return Figures(0, 0, 0, "needs the right to mount")
        job.make(disk, seed)
        names = ("mask.seg.nrrd", "model.safetensors", "report.json")
        before = {name: (disk / name).read_bytes() for name in names}
        grid = tiny_volume().geometry
        mask = read_labels(disk / names[0], grid).mask

        def one(number: int) -> None:
            rng = np.random.default_rng([seed, number])
            for name, data in before.items():
                (disk / name).write_bytes(data)
            filler = fill(disk, int(rng.integers(0, 120)) * 1000)
            outcome = child(_segment, disk, log=folder / "log")
            if outcome.code != 0:
                one_clear_line(outcome)
            filler.unlink()
            nothing_half_written(disk)
            Segmenter.load(disk / "model.safetensors")
            same = np.array_equal(read_labels(disk / names[0], grid).mask, mask)
            need(same, "the mask has changed")
            nothing_hidden(disk)

        return tally(count, one)


def _segment(folder: Path) -> int:
    return cli.main(Segment().words(folder))


def permissions(count: int, seed: int, folder: Path) -> Figures:
    """Folders and files that another user, or a disk, does not let us write or read."""
    if sys.platform == "win32" or os.getuid() != 0:
        return Figures(0, 0, 0, "needs a root that can become somebody else")
    # Others may enter no folder above the one that was given.
    with TemporaryDirectory(prefix="faults-") as name:
        open_folder = Path(name)
        open_folder.chmod(0o755)

        def one(number: int) -> None:
            place = open_folder / f"{number}"
            place.mkdir()
            Segment().make(place, seed)
            JOBS["train"].make(place, seed)
            _CASES[number % len(_CASES)](place)

        return tally(count, one)


def _as_nobody(function: object, *arguments: object) -> int:
    with TemporaryDirectory() as folder:  # what is imported late may be out of reach later
        Segment().make(Path(folder), 0)
    os.environ["NAPARI_DIFFSEG_HOME"] = "/nowhere"
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)
    assert callable(function)
    return int(function(*arguments))


def _output_folder(place: Path) -> None:
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    outcome = child(_as_nobody, _segment, place, log=place.with_suffix(".log"))
    one_clear_line(outcome)
    need("its folder cannot be written" in outcome.err, outcome.err)
    need("training" not in outcome.err, "it is said after the training")
    after = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    need(after == before, "a file has changed")


def _input_file(name: str, place: Path) -> None:
    place.chmod(0o777)
    (place / name).chmod(0o600)
    outcome = child(_as_nobody, _segment, place, log=place.with_suffix(".log"))
    one_clear_line(outcome)
    need(name in outcome.err and "ermission denied" in outcome.err, outcome.err)


def _session_home(place: Path) -> None:
    log = place.with_suffix(".log")
    outcome = child(_as_nobody, _paint_where_it_is_forbidden, place / "home", log=log)
    need(outcome.code == 0, outcome.last)


def _paint_where_it_is_forbidden(home: Path) -> int:
    try:
        Session.recover(tiny_volume(), home)
    except SessionError as error:
        need("the session cannot be saved here" in str(error), str(error))
    else:
        need(False, "the session opens")
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=home)
    for z in (1, 4):
        try:
            session.paint.set_slice(z, block())
        except SessionError as error:
            need("the session cannot be saved here" in str(error), str(error))
    *_, last = session.trainer.train(replace(QUICK, seed=1))
    need("the session cannot be saved here" in last.note, f"the training says {last.note!r}")
    with suppress(SessionError):  # it says so at the end
        list(session.trainer.predict())
    need(bool(session.prediction.there.all()), "nothing is predicted")
    return 0


def _read_only_disk(place: Path) -> None:
    with small_disk(place) as disk:
        if disk is None:
            return
        Segment().make(disk, 0)
        JOBS["train"].make(disk, 0)
        words = ["mount", "-o", "remount,ro", str(disk)]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            return
        log = place.with_suffix(".log")
        outcome = child(_segment, disk, log=log)
        one_clear_line(outcome)
        outcome = child(_paint_where_it_is_forbidden, disk / "home", log=log)
        need(outcome.code == 0, outcome.last)


def _ct_forbidden(place: Path) -> None:
    _input_file("ct.nii.gz", place)


def _labels_forbidden(place: Path) -> None:
    _input_file("painted.nii.gz", place)


def _backbone_forbidden(place: Path) -> None:
    _input_file("tiny.safetensors", place)


_CASES = (
    _output_folder,
    _session_home,
    _read_only_disk,
    _ct_forbidden,
    _labels_forbidden,
    _backbone_forbidden,
)


def enlarge(folder: Path, seed: int) -> None:
    """Put a larger volume in the place of the tiny one."""
    shape = (24, 192, 192)
    geometry = Geometry.from_affine(np.diag([2.0, 2.0, 5.0, 1.0]), shape[::-1])
    noise = np.random.default_rng(seed).integers(-1000, 1000, shape, dtype=np.int16)
    write_volume(folder / "ct.nii.gz", Volume(noise, geometry, "large"))
    paint = np.zeros(shape, np.uint8)
    paint[[4, 18], 50:90, 50:90] = 1
    write_mask(folder / "painted.nii.gz", paint, geometry, [LIVER])


def memory(count: int, seed: int, folder: Path) -> Figures:
    """``segment`` with little memory left, and a larger volume."""
    Segment().make(folder, seed)
    enlarge(folder, seed)
    names = ("mask.seg.nrrd", "model.safetensors", "report.json")
    before = {name: (folder / name).read_bytes() for name in names}

    def one(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        for name, data in before.items():
            (folder / name).write_bytes(data)
        megabytes = int(10 ** rng.uniform(0, 2.8))
        outcome = child(_segment_within, folder, megabytes << 20, log=folder / "log")
        if outcome.code != 0:
            if outcome.last.startswith("napari-diffseg"):
                one_clear_line(outcome)  # otherwise a C library has ended the process
            need("memory" in outcome.last.lower(), f"{megabytes} MiB: {outcome.last}")
        nothing_half_written(folder)
        clear_up(folder)
        nothing_hidden(folder)

    return tally(count, one)


def _segment_within(folder: Path, left: int) -> int:
    import SimpleITK  # noqa: F401  (how much its library takes is not what is tried)

    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + left, used + left))
    return _segment(folder)


KINDS = (
    Kind(
        "full-disk-session",
        "every stroke stays in memory, the failure is said in one line, and everything is on the "
        "disk after the first stroke that finds space",
        full_disk_session,
        10,
        5,
    ),
    Kind(
        "full-disk-command",
        "done, or one line; earlier outputs are intact",
        full_disk_command,
        12,
        6,
    ),
    Kind(
        "permissions",
        "a read-only disk or folder, or a file that may not be read: one line, before the training",
        permissions,
        6,
        6,
    ),
    Kind("memory", "done, or one line that says memory", memory, 16, 4),
)
