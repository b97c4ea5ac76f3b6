"""Every state has one sentence that says what to do next, and greyed-out buttons say why."""

from dataclasses import replace

import pytest

from napari_diffseg.gui.guide import BUTTONS, Situation, guide

OPEN = Situation(volume="chest", slices=133)
LABELLED = replace(OPEN, labels=("liver",))
PAINTED = replace(LABELLED, painted=3)
TRAINED = replace(PAINTED, model=True, predicted=133, rounds=1, current_predicted=True)


@pytest.mark.parametrize(
    ("situation", "words", "tone"),
    [
        (Situation(), "Drag a CT", "next"),
        (Situation(foreign="photo"), "“photo” was not opened by napari-diffseg", "next"),
        (replace(OPEN, opening=True), "Getting chest ready", "busy"),
        (replace(OPEN, waiting=True, recoverable=2), "2 slices painted): restore it", "next"),
        (replace(OPEN, elsewhere="7"), "(process 7): look at it read-only, take", "next"),
        (replace(TRAINED, read_only="Only to look at."), "Only to look at.", "next"),
        (OPEN, "Add a label", "next"),
        (LABELLED, "Paint liver on two or three slices, then Train.", "next"),
        (replace(LABELLED, labels=("liver", "spleen")), "Paint liver and spleen on", "next"),
        (replace(LABELLED, labels=tuple("abcde")), "Paint all labels on", "next"),
        (replace(LABELLED, painted=1), "One slice painted.", "next"),
        (PAINTED, "3 slices painted: press Train.", "next"),
        (replace(PAINTED, task="training"), "Learning from 3 slices", "busy"),
        (replace(PAINTED, task="training"), "Finish once you like what you see", "busy"),
        (replace(TRAINED, task="predicting", done=7, current=40), "slice 40: 7 of 133", "busy"),
        (replace(TRAINED, task="loading"), "Loading a model.", "busy"),
        (
            replace(TRAINED, task="checking"),
            "each painted slice is left out",
            "busy",
        ),
        (TRAINED, "Correct this slice's prediction", "next"),
        (
            replace(TRAINED, plane="Coronal 9"),
            "Paint all that is on it, then press Coronal 9 painted in full.",
            "next",
        ),
        (replace(TRAINED, current_truth=True), "Go to the next suggested slice", "next"),
        (
            replace(TRAINED, painted=133, current_truth=True),
            "Every slice is painted or acc",
            "next",
        ),
        (replace(TRAINED, predicted=9), "9 of 133 slices predicted: press Predict all", "next"),
        (replace(TRAINED, changed=1), "1 slice changed since round 1: Train again", "next"),
        (replace(TRAINED, corrected=2), "You corrected 2 slices: Accept each", "next"),
        (replace(TRAINED, error="no space left"), "no space left", "error"),
        (replace(TRAINED, said="Mask saved."), "Mask saved. Correct this", "next"),
    ],
)
def test_sentence(situation, words, tone):
    told = guide(situation)
    assert words in told.sentence
    assert told.tone == tone


def test_greyed_out_buttons_say_why():
    assert set(guide(Situation()).blocked) == set(BUTTONS)
    assert guide(replace(OPEN, waiting=True)).why_not("add").startswith("Restore the earlier")
    looking = guide(replace(TRAINED, suggested=True, read_only="Only to look at."))
    assert all(looking.why_not(b).startswith("Read-only") for b in ("train", "add", "accept"))
    assert not any(looking.why_not(button) for button in ("next", "mask", "contour", "model"))
    assert guide(OPEN).why_not("train") == "Add a label first."
    assert guide(LABELLED).why_not("train") == "Paint at least one slice first."
    assert guide(PAINTED).why_not("train") == ""
    assert guide(PAINTED).why_not("continue") == "Train a model first."
    assert guide(PAINTED).why_not("mask") == ""
    assert guide(replace(PAINTED, painted=1)).why_not("check").startswith("Needs two painted")
    assert guide(TRAINED).why_not("accept") == ""
    assert guide(TRAINED).why_not("next") == "The next slice is being chosen."
    assert guide(replace(TRAINED, suggested=True)).why_not("next") == ""
    assert guide(replace(TRAINED, painted=133)).why_not("next").startswith("Every slice is")
    assert "paint layer" in guide(replace(TRAINED, current_truth=True)).why_not("accept")
    assert guide(TRAINED).why_not("difference").startswith("Needs two predictions")
    assert guide(replace(TRAINED, comparable=True)).why_not("difference") == ""
    for task in ("training", "predicting", "checking"):
        busy = guide(replace(TRAINED, task=task))
        for button in ("train", "continue", "predict", "check", "load"):
            assert "running" in busy.why_not(button)
    assert "being loaded" in guide(replace(TRAINED, task="loading")).why_not("train")
    assert all(reason.endswith(".") for reason in guide(OPEN).blocked.values())
