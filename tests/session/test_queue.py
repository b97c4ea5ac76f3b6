"""Which patient comes next, what is predicted before anybody looks, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from session_tools import LIVER, QUICK, SPLEEN, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.io import VolumeError, read_volume, write_volume
from napari_diffseg.session import Queue, Session, SessionError, SessionInUseError

pytestmark = pytest.mark.usefixtures("short_adaptation")


@pytest.fixture
def folder(tmp_path):
    """Three patients, and a model of another one in the queue's place."""
    for seed, name in enumerate(("anna", "bert", "carl"), start=1):
        write_volume(tmp_path / "cts" / f"{name}.nii.gz", tiny_volume(seed))
    session = trained(Session(tiny_volume(), [SPLEEN, LIVER], tiny_backbone(), folder=False))
    session.trainer.save_model(Queue(tmp_path).model)
    return tmp_path


@pytest.fixture(autouse=True)
def cts(tmp_path):
    (tmp_path / "cts").mkdir()


def names(queue):
    return [case.name for case in queue.cases]


def states(queue):
    return [row.state for row in queue.rows()]


def test_the_queue_is_kept_and_says_who_is_next(folder: Path):
    queue = Queue(folder)
    assert queue.next() is None
    assert queue.add([folder / "cts"]) == 3
    assert queue.add([folder / "cts" / "bert.nii.gz"]) == 0
    again = Queue(folder)
    assert names(again) == ["anna", "bert", "carl"]
    anna, bert, carl = again.cases
    assert again.next() == anna
    assert again.next(bert) == carl
    again.finish(anna.path)
    assert again.next(carl) == bert
    again.finish(bert.path)
    again.finish(carl.path)
    assert again.next(anna) is None
    again.finish(bert.path, finished=False)
    assert Queue(folder).next(carl).name == "bert"
    queue.remove(anna.path)  # a window that was open all the time changes what is there now
    assert names(queue) == ["bert", "carl"]
    assert queue.cases[1].finished


def test_a_patient_is_predicted_before_anybody_looks(folder: Path):
    queue = Queue(folder)
    queue.add([folder / "cts"])
    before = queue.cases[0]
    shares = list(queue.prepare(queue.cases[0]))
    assert shares[-1] == 1
    assert states(queue) == ["predicted", "waiting", "waiting"]
    anna = Session.recover(read_volume(queue.cases[0].path), folder / "sessions")
    with anna:
        assert (anna.prediction.round_of == 1).all()
        assert "liver" in [label.name for label in anna.paint.labels]
        with pytest.raises(SessionInUseError):
            list(queue.prepare(before))
    assert list(queue.prepare(queue.cases[0])) == []  # this model has predicted it already


def test_closed_early_it_keeps_what_is_predicted_and_goes_on_later(folder: Path):
    queue = Queue(folder)
    queue.add([folder / "cts"])
    steps = queue.prepare(queue.cases[0])
    while next(steps) <= 0.5:  # the first half is the adaptation's
        pass
    steps.close()
    with Session.recover(read_volume(queue.cases[0].path), folder / "sessions") as session:
        assert 1 <= (session.prediction.round_of > 0).sum() < 6
    assert list(queue.prepare(queue.cases[0]))[-1] == 1


def test_paint_is_never_predicted_over(folder: Path):
    queue = Queue(folder)
    queue.add([folder / "cts"])
    volume = read_volume(queue.cases[0].path)
    with Session(volume, [LIVER], tiny_backbone(), folder / "sessions") as session:
        session.paint.set_slice(1, block())
    assert list(queue.prepare(queue.cases[0])) == []
    with Session.recover(volume, folder / "sessions") as session:
        assert session.rounds.all == ()


def test_the_table_says_how_far_each_patient_is(folder: Path):
    queue = Queue(folder)
    queue.add([folder / "cts"])
    anna, bert, _ = queue.cases
    for case, train in ((anna, True), (bert, False)):
        volume = read_volume(case.path)
        with Session(volume, [LIVER], tiny_backbone(), folder / "sessions") as session:
            for z in (1, 4):
                session.paint.set_slice(z, block())
            if train:
                list(session.trainer.train(QUICK))
                list(session.trainer.validate(QUICK))
            queue.read(case.path, session.folder.parent.name)
    assert states(queue) == ["trained", "painted", "waiting"]
    rows = queue.rows()
    assert (rows[0].slices, rows[1].slices) == (2, 2)
    assert rows[0].seconds > 0
    assert 0 <= rows[0].dice <= 1
    queue.finish(anna.path)
    queue.write_table(folder / "table.csv")
    lines = (folder / "table.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "case,state,slices_painted,leave_one_out_dice,seconds"
    assert lines[1].startswith(f"anna,finished,2,{rows[0].dice:.4f},")
    assert lines[2] == "bert,painted,2,,0.0"
    assert str(folder) not in "".join(lines)
    with pytest.raises(VolumeError, match="also read"):
        queue.write_table(Path(anna.path))


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 1, "cases": [{"a": 1}]}'])
def test_a_damaged_queue_is_said_in_one_line(tmp_path: Path, text: str):
    (tmp_path / "queue.json").write_text(text, encoding="utf-8")
    with pytest.raises(SessionError, match=r"queue\.json: is no queue; delete it"):
        Queue(tmp_path)


def test_a_queue_of_a_newer_version_is_left_alone(tmp_path: Path):
    (tmp_path / "queue.json").write_text('{"format": 2, "cases": []}', encoding="utf-8")
    with pytest.raises(SessionError, match="newer napari-diffseg"):
        Queue(tmp_path)
