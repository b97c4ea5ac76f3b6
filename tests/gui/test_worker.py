"""Tasks in threads: batches, stopping, failing."""

import gc
import threading
import time
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
from qtpy.QtCore import QThreadPool

from napari_diffseg.gui import worker
from napari_diffseg.gui.worker import BackgroundCall, Task, ThreadCap, batches


def test_batches_lose_nothing_and_keep_their_distance(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def items():
        for n in range(10):
            yield n
            clock[0] += 1

    groups = list(batches(items(), period=3))
    assert groups == [(0,), (1, 2, 3), (4, 5, 6), (7, 8, 9)]  # the first one at once
    assert list(batches(items(), period=30, stop=lambda: clock[0] == 14)) == [(0,), (1, 2, 3, 4)]


def test_task_tells_on_the_gui_thread(qtbot):
    threads, items = set(), []

    def make():
        threads.add(threading.get_ident())
        yield from range(5)

    task = Task(make)
    task.batch.connect(lambda batch: items.extend(batch))
    task.batch.connect(lambda _: threads.add(threading.get_ident()))
    with qtbot.waitSignal(task.finished, timeout=5000) as blocker:
        task.start()
    assert blocker.args == [False]
    assert items == [0, 1, 2, 3, 4]
    assert len(threads) == 2
    assert threading.get_ident() in threads


def test_stop_closes_the_generator(qtbot):
    closed = []

    def make():
        try:
            while True:
                time.sleep(0.01)
                yield 0
        finally:
            closed.append(True)

    task = Task(make)
    with qtbot.waitSignal(task.batch, timeout=5000):
        task.start()
    with qtbot.waitSignal(task.finished, timeout=5000) as blocker:
        task.stop()
    assert blocker.args == [True]
    assert closed == [True]

    task = Task(make)
    with qtbot.waitSignal(task.batch, timeout=5000):
        task.start()
    told = []
    task.finished.connect(told.append)
    task.stop()
    assert task.wait(5)
    assert QThreadPool.globalInstance().waitForDone(5000)
    qtbot.wait(50)
    assert told == []


@pytest.mark.parametrize("error", [ValueError, RuntimeError])  # torch raises the latter
def test_a_failing_task_says_why(qtbot, error):
    def make():
        yield 1
        raise error("no memory")

    task = Task(make)
    with qtbot.waitSignal(task.failed, timeout=5000) as blocker:
        task.start()
    assert str(blocker.args[0]) == "no memory"


def test_a_call_gives_its_result_or_its_error(qtbot):
    told = []
    BackgroundCall(lambda: 1 / 0, told.append, told.append)
    qtbot.waitUntil(lambda: len(told) == 1, timeout=5000)
    assert isinstance(told[0], ZeroDivisionError)
    call = BackgroundCall(lambda: 7, told.append, told.append)
    qtbot.waitUntil(lambda: told[1:] == [7], timeout=5000)
    assert call.over


@pytest.mark.parametrize("waited", [False, True])
def test_what_is_over_keeps_nothing_of_its_work(qtbot, waited):
    """Qt keeps a worker now and then; a CT of 270 MB must not stay with it."""

    def begin():
        class Volume:
            pass

        task_volume, call_volume = Volume(), Volume()
        told = []

        def steps():
            yield task_volume is not None

        def done(_):
            told.append(call_volume is not None)

        task, call = Task(steps), BackgroundCall(lambda: call_volume is not None, done, done)
        ended = []
        task.finished.connect(ended.append)
        task.start()
        if waited:
            assert call.wait(5)
        else:
            qtbot.waitUntil(lambda: bool(told), timeout=5000)
        qtbot.waitUntil(lambda: bool(ended), timeout=5000)
        return task, call, weakref.ref(task_volume), weakref.ref(call_volume)

    *kept, of_task, of_call = begin()
    gc.collect()
    assert len(kept) == 2
    assert of_task() is None
    assert of_call() is None


def test_one_core_is_left_to_the_window(monkeypatch):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        cap = ThreadCap()
        assert torch.get_num_threads() == 3
        cap.release()
        assert torch.get_num_threads() == 4
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        cap = ThreadCap()
        assert torch.get_num_threads() == 1
        cap.release()
    finally:
        torch.set_num_threads(before)


def test_an_endless_task_keeps_no_call_waiting(qtbot):
    pool = QThreadPool.globalInstance()
    before = pool.maxThreadCount()
    pool.setMaxThreadCount(1)
    end = threading.Event()

    def make():
        while not end.wait(0.01):
            yield 0

    try:
        task = Task(make)
        with qtbot.waitSignal(task.batch, timeout=5000):
            task.start()
        done = []
        call = BackgroundCall(lambda: "saved", done.append, done.append)
        qtbot.waitUntil(lambda: done == ["saved"], timeout=5000)
        assert call.over
        with qtbot.waitSignal(task.finished, timeout=5000):
            end.set()
        # The slot is given back: one call at a time again.
        nap = partial(time.sleep, 0.2)
        running = [BackgroundCall(nap, done.append, done.append) for _ in range(3)]
        qtbot.waitUntil(lambda: pool.activeThreadCount() == 1, timeout=5000)
        qtbot.waitUntil(lambda: all(one.over for one in running), timeout=5000)
    finally:
        end.set()
        pool.setMaxThreadCount(before)
