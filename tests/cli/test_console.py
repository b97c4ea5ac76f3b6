"""Progress on a terminal and in a log, and writing that Ctrl+C cannot tear."""

from __future__ import annotations

import io
import os
import signal

import pytest

from napari_diffseg.cli.console import ProgressLine, duration, table, uninterrupted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_sparse_lines():
    stream = io.StringIO()
    with ProgressLine(stream) as line:
        for step in range(1000):
            line.update("training", step + 1, 1000, 61.0, 0.25)
        line.say("a note")
        line.update("predicting", 1, 9)
    assert stream.getvalue().splitlines() == [
        "training 1/1000, loss 0.250, 1 min 01 s left",
        "a note",
        "predicting 1/9",
    ]


def test_a_terminal_gets_one_line_that_is_redrawn():
    stream = Terminal()
    with ProgressLine(stream) as line:
        line.update("training", 1, None, 100.0)
        line.update("predicting", 9, 9)
    text = stream.getvalue()
    assert text.startswith("\rtraining 1, 1 min 40 s left\rpredicting 9/9")
    # The longer line before is wiped out, and the cursor ends on a new line.
    last = text.rsplit("\r", 1)[1]
    assert len(last.rstrip("\n")) == len("training 1, 1 min 40 s left")
    assert text.count("\n") == 1


def test_interrupt_waits_for_the_files():
    done = []

    @uninterrupted()
    def write() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with uninterrupted():
        pass


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (59, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text


def test_table_has_straight_columns():
    assert table(("a", "Dice"), [("liver", "0.9"), ("x", "-")]).splitlines() == [
        "a      Dice",
        "-----------",
        "liver   0.9",
        "x         -",
    ]
