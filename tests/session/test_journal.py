from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, SHAPE, SPLEEN, block, tiny_volume

from napari_diffseg.io.volume import Volume
from napari_diffseg.session import Session, SessionError, SliceState
from napari_diffseg.session.journal import (
    Journal,
    Record,
    decode,
    encode,
)
from napari_diffseg.session.log import SessionFolder

CHILD = """
import itertools, sys
from pathlib import Path
import numpy as np
from session_tools import LIVER, tiny_volume
from napari_diffseg.session import Session

session = Session(tiny_volume(), [LIVER], folder=Path(sys.argv[1]))
for stroke in itertools.count():
    mask = np.zeros((32, 32), np.uint8)
    mask.flat[: 1 + stroke % 1000] = 1
    session.paint.set_slice(stroke % 6, mask)
    print(stroke, flush=True)
"""


def paint_in_child(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_killed_painter_loses_no_finished_stroke(tmp_path: Path) -> None:
    child = paint_in_child(tmp_path)
    assert child.stdout is not None
    strokes = [int(child.stdout.readline()) for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    strokes += [int(line) for line in child.stdout.read().splitlines() if line]
    child.stdout.close()
    child.wait()

    session = Session.recover(tiny_volume(), tmp_path)
    assert session is not None
    assert session.paint.labels == (LIVER,)
    assert (session.paint.states == SliceState.PAINTED).all()
    # The stroke after the last one that was reported may have been written, too.
    last = strokes[-1]
    painted = [int(plane.sum()) for plane in session.paint.mask]
    for z in range(6):
        newest = max(stroke for stroke in range(last + 1) if stroke % 6 == z)
        assert painted[z] in {1 + newest % 1000, 1 + (last + 1) % 1000}
    session.close()


def test_a_session_that_is_open_elsewhere_is_refused(tmp_path: Path) -> None:
    child = paint_in_child(tmp_path)
    assert child.stdout is not None
    try:
        child.stdout.readline()
        with pytest.raises(SessionError, match=f"another window \\(process {child.pid}\\)"):
            Session.recover(tiny_volume(), tmp_path)
        # A new session gets a folder of its own.
        session = Session(tiny_volume(), [SPLEEN], folder=tmp_path)
        session.paint.set_slice(0, block(2))
        assert session.folder is not None
        assert session.folder.name == "0002"
        session.close()
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()


def test_the_lock_is_freed_by_another_thread(tmp_path: Path) -> None:
    # The GUI recovers in a worker and closes on its own thread.
    from threading import Thread

    first = Session(tiny_volume(), folder=tmp_path)
    worker = Thread(target=lambda: first.paint.set_slice(0, block()))
    worker.start()
    worker.join()
    with pytest.raises(SessionError, match="another window"):
        Session.recover(tiny_volume(), tmp_path)
    first.close()
    again = Session.recover(tiny_volume(), tmp_path)
    assert again is not None
    again.close()


def test_a_torn_last_record_is_ignored_at_every_byte(tmp_path: Path) -> None:
    whole = [
        Record({"op": "labels", "labels": []}),
        Record({"op": "slice", "z": 3}, block()),
    ]
    kept = b"".join(encode(record) for record in whole)
    last = encode(Record({"op": "slice", "z": 4}, block(2)))
    for length in range(len(last)):
        found = list(decode(kept + last[:length]))
        assert [record.header for record in found] == [record.header for record in whole], length
        np.testing.assert_array_equal(found[1].mask, block())
    assert len(list(decode(kept + last))) == 3


def test_any_damaged_byte_costs_one_record_only() -> None:
    records = [Record({"op": "slice", "z": z}, block(z + 1)) for z in range(3)]
    parts = [encode(record) for record in records]
    data = b"".join(parts)
    for at in range(len(parts[0]), len(parts[0]) + len(parts[1])):
        damaged = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        assert [record.header["z"] for record in decode(damaged)] == [0, 2], at


def test_strokes_after_a_torn_record_are_kept(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], folder=tmp_path)
    session.paint.set_slice(0, block())
    assert session.folder is not None
    journal = session.folder / "journal"
    session.close()
    torn = encode(Record({"op": "slice", "z": 1, "state": 2}, block()))
    journal.write_bytes(journal.read_bytes() + torn[:-3])

    again = Session.recover(tiny_volume(), tmp_path)
    assert again is not None
    assert again.paint.state(1) == SliceState.UNPAINTED
    again.paint.set_slice(2, block())
    again.close()
    third = Session.recover(tiny_volume(), tmp_path)
    assert third is not None
    assert third.paint.states.tolist() == [2, 0, 2, 0, 0, 0]
    third.close()


def test_a_journal_shrinks_when_saved_and_says_the_same(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], folder=tmp_path)
    rng = np.random.default_rng(1)
    for _ in range(40):
        session.paint.set_slice(2, rng.integers(0, 2, SHAPE[1:], dtype=np.uint8))
    assert session.folder is not None
    journal = session.folder / "journal"
    before, paint = journal.stat().st_size, session.paint.mask.copy()
    session.save()
    assert journal.stat().st_size < before / 10
    session.close()
    again = Session.recover(tiny_volume(), tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.paint.mask, paint)
    again.close()


def test_a_long_journal_is_rewritten_while_painting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_diffseg.session.journal.MAX_GROWTH_BYTES", 4000)
    session = Session(tiny_volume(), [LIVER], folder=tmp_path)
    rng = np.random.default_rng(1)
    for _ in range(200):
        session.paint.set_slice(2, rng.integers(0, 2, SHAPE[1:], dtype=np.uint8))
    assert session.folder is not None
    assert (session.folder / "journal").stat().st_size < 6000
    session.close()


def test_the_disk_gets_every_record_within_a_second_or_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[float] = []
    real = os.fsync
    journal = Journal(tmp_path / "journal", [])
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(time.monotonic()), real(fd))[1])
    monkeypatch.setattr("napari_diffseg.session.journal.SYNC_SECONDS", 0.05)
    for z in range(20):
        journal.append(Record({"z": z}))
    deadline = time.monotonic() + 10
    while not synced and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 1 <= len(synced) < 20
    journal.close()


def test_another_volume_finds_nothing(tmp_path: Path) -> None:
    with Session(tiny_volume(), folder=tmp_path) as session:
        session.paint.set_slice(0, block())
    volume = tiny_volume()
    moved = np.array(volume.geometry.affine)
    moved[0, 3] += 1
    geometry = type(volume.geometry).from_affine(moved, volume.geometry.shape)
    assert Session.recover(Volume(volume.hu, geometry, "tiny"), tmp_path) is None
    assert Session.recover(tiny_volume(seed=1), tmp_path) is None
    # The file's name does not matter.
    again = Session.recover(Volume(volume.hu.copy(), volume.geometry, "renamed"), tmp_path)
    assert again is not None
    again.close()


def test_sessions_go_to_the_users_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path))
    session = Session(tiny_volume())
    assert not any(tmp_path.iterdir())  # nothing to keep yet
    session.paint.set_slice(0, block())
    assert session.folder is not None
    assert session.folder.is_relative_to(tmp_path / "sessions")
    session.close()


def test_an_unreadable_journal_is_left_as_it_is(tmp_path: Path) -> None:
    with Session(tiny_volume(), folder=tmp_path) as session:
        session.paint.set_slice(0, block())
        assert session.folder is not None
        journal = session.folder / "journal"
    journal.write_bytes(b"garbage")
    assert Session.recover(tiny_volume(), tmp_path) is None
    assert journal.read_bytes() == b"garbage"
    # ... and it does not hold the lock.
    SessionFolder(journal.parent).release()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = Session(tiny_volume(), folder=tmp_path / "file")
    with pytest.raises(SessionError, match="cannot be saved here"):
        session.paint.set_slice(0, block())
    assert session.paint.state(0) == SliceState.PAINTED  # the paint itself is kept
