"""What only Unix has is nowhere needed to import or to work: as on Windows, seen from here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from session_tools import LIVER, QUICK, tiny_backbone, tiny_volume

from napari_diffseg.session import Session

ROOT = Path(__file__).parents[2]

# Libraries come first: they have builds of their own for each system. Then our modules are
# forgotten, what only Unix has is hidden, and all of our modules are imported anew.
_AS_ON_WINDOWS = """
import importlib, os, pkgutil, signal, sys

OURS = ("napari_diffseg", "diffseg_models", "diffseg_training")

def import_all():
    for name in OURS:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

import_all()
for name in list(sys.modules):
    if name.partition(".")[0] in OURS:
        del sys.modules[name]
for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "curses"):
    sys.modules[name] = None
# What the standard library itself calls on Unix (WNOHANG, SIGKILL, uname) has to stay.
for name in ("fork", "forkpty", "getgid", "killpg", "setsid", "nice", "mkfifo", "fchown",
             "sched_getaffinity", "sched_setaffinity", "getloadavg", "O_DIRECTORY",
             "posix_fallocate", "pread", "pwrite", "sendfile"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGPIPE", "alarm", "setitimer"):
    delattr(signal, name)
import_all()
"""

_WORK = """
import tempfile
from pathlib import Path
import numpy as np
from napari_diffseg.cli.doctor import _machine
from napari_diffseg.io.volume import read_labels
from napari_diffseg.session import Session
from session_tools import LIVER, QUICK, tiny_backbone, tiny_volume

volume = tiny_volume()
mask = np.zeros(volume.hu.shape[1:], np.uint8)
mask[8:16, 8:16] = 1
with tempfile.TemporaryDirectory() as folder:
    sessions = Path(folder) / "sessions"
    with Session(volume, [LIVER], tiny_backbone(), folder=sessions) as session:
        for z in (0, 4):
            session.paint.set_slice(z, mask)
        for progress in session.trainer.train(QUICK):
            pass
        assert len(list(session.trainer.predict())) == len(volume.hu)
        session.export_mask(Path(folder) / "mask.nii.gz")
        session.export_report(Path(folder) / "report.json")
    assert read_labels(Path(folder) / "mask.nii.gz", volume.geometry).mask.any()
    with Session.recover(volume, sessions, tiny_backbone()) as again:
        assert [painted.z for painted in again.paint.painted()] == [0, 4]
assert list(_machine())
"""


def test_nothing_that_only_unix_has_is_needed() -> None:
    tests = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _AS_ON_WINDOWS + _WORK],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"PYTHONPATH": tests},
    )
    assert done.returncode == 0, done.stderr


_RESERVED = {"con", "prn", "aux", "nul", *(f"{k}{n}" for k in ("com", "lpt") for n in range(1, 10))}


def _fits_every_system(names: list[str], longest: int) -> None:
    """Windows forbids some names and characters, and by default paths of over 260 characters."""
    assert names
    for name in names:
        assert len(name) <= longest, name
        for part in PurePosixPath(name).parts:
            assert not re.search(r'[<>:"|?*\\\x00-\x1f]|[ .]$', part), name
            assert part.partition(".")[0].lower() not in _RESERVED, name
    assert len({name.lower() for name in names}) == len(names), "two names differ in case only"


def test_files_of_a_session_can_have_their_names_everywhere(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:16, 8:16] = 1
    volume = replace(tiny_volume(), name="a name: with? what no <system> allows in a file")
    with Session(volume, [LIVER], tiny_backbone(), folder=tmp_path) as session:
        for z in (0, 4):
            session.paint.set_slice(z, mask)
        for _ in session.trainer.train(QUICK):
            pass
        list(session.trainer.predict())
        session.save()
        written = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")]
    _fits_every_system(written, longest=100)


def test_files_of_the_repository_can_have_their_names_everywhere() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    _fits_every_system(done.stdout.splitlines(), longest=120)
