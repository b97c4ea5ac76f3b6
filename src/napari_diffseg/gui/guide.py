"""What to do next: one sentence for every state, and why a button is greyed out.

Pure functions of a small description of the state, so that every sentence can be tested without
a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Task = Literal["", "training", "adapting", "predicting", "checking", "loading"]


@dataclass(frozen=True)
class Situation:
    """All that the sentence depends on."""

    volume: str = ""  # name of the open CT, empty when there is none
    foreign: str = ""  # name of a picture in the viewer that is not a CT of ours
    opening: bool = False  # the session is being made
    recoverable: int = 0  # slices painted in an earlier session
    waiting: bool = False  # an earlier session waits for the user's choice
    elsewhere: str = ""  # the process that has this CT's session open; waits for a choice, too
    read_only: str = ""  # why nothing can be changed, as a sentence
    labels: tuple[str, ...] = ()  # their names
    painted: int = 0  # slices that hold paint
    changed: int = 0  # slices whose paint changed since the last round
    corrected: int = 0  # slices whose prediction was corrected by hand and not accepted yet
    model: bool = False  # there is a trained model
    taught: bool = False  # and it has learnt from this very CT, by paint or without
    predicted: int = 0  # slices that the model has predicted
    suggested: bool = False  # a slice is suggested to look at next
    slices: int = 0  # of the volume
    current: int = 0  # current slice
    current_predicted: bool = False
    current_preview: bool = False
    current_truth: bool = False  # it is painted in full or accepted
    plane: str = ""  # the coronal or sagittal plane in view, if it is not painted in full
    rounds: int = 0  # finished ones
    comparable: bool = False  # there is a prediction from before the newest one
    task: Task = ""  # what is running
    done: int = 0  # slices predicted so far by the running task
    error: str = ""  # what went wrong last, in one line
    said: str = ""  # what went well last, in one line ("Saved …")


@dataclass(frozen=True)
class Guide:
    """The sentence, its tone, and for each greyed-out button the reason."""

    sentence: str
    tone: Literal["next", "busy", "error"] = "next"
    blocked: Mapping[str, str] | None = None  # reason by button name; others can be pressed

    def why_not(self, button: str) -> str:
        """Give the reason why a button is greyed out, empty when it is not."""
        return (self.blocked or {}).get(button, "")


_LABELS = ("add", "remove", "import")
_TOOLS = (
    *("fill holes", "keep largest", "remove islands", "smooth", "grow", "shrink"),
    *("below", "above", "between", "outline", "model's", "undo", "redo"),
)
_STATES = ("full", "scribbles", "clear")
_RUNS = ("train", "continue", "check")
_LOOKS = (
    *("linked", "review", "next", "confidence", "contour", "difference"),
    *("mask", "numbers", "report", "model"),
)
BUTTONS = (
    *(*_LABELS, *_TOOLS, *_STATES, *_RUNS, "predict", "accept", "next"),
    *("confidence", "contour", "difference", "mask", "numbers", "report", "model", "load"),
    *("linked", "review", "adapt"),
)


def guide(s: Situation) -> Guide:
    """Say what to do next."""
    blocked = _blocked(s)
    if s.error:
        return Guide(s.error, "error", blocked)
    if s.task or s.opening:
        return Guide(_busy(s), "busy", blocked)
    sentence = _next(s)
    return Guide(f"{s.said} {sentence}" if s.said else sentence, "next", blocked)


def _busy(s: Situation) -> str:
    if s.opening:
        return f"Getting {s.volume} ready."
    if s.task == "training":
        return (
            f"Learning from {_slices(s.painted)}. Look around: the slice in view is "
            "predicted again as it learns. Finish once you like what you see."
        )
    if s.task == "adapting":
        return (
            "The model learns from the pixels of this CT that it is surest of. Paint meanwhile, or "
            "Stop it and train on your own slices."
        )
    if s.task == "loading":
        return "Loading a model."
    if s.task == "checking":
        return (
            "Measuring the quality: each painted slice is left out of a training once. "
            "You can look around meanwhile."
        )
    return (
        f"Predicting outwards from slice {s.current}: {s.done} of {s.slices} slices done. "
        "You can look at them already."
    )


def _next(s: Situation) -> str:
    if not s.volume:
        if s.foreign:
            return (
                f"“{s.foreign}” was not opened by napari-diffseg, so its geometry is not known: "
                "open the file again with Open below."
            )
        return "Drag a CT onto the viewer: a NIfTI, NRRD or MHA file, or a DICOM folder."
    if s.elsewhere:
        return (
            f"This CT is open in another window (process {s.elsewhere}): "
            "look at it read-only, take it over, or begin a new session."
        )
    if s.waiting:
        return (
            f"Earlier work on this CT was found ({_slices(s.recoverable)} painted): "
            "restore it, or begin a new session."
        )
    if s.read_only:
        return s.read_only
    if not s.labels:
        return "Add a label, such as liver, to paint with."
    if not s.painted:
        if s.predicted and not s.corrected:
            return (
                "A model of other patients predicted this one: correct a slice and Accept it, "
                "then Train. Or Export."
            )
        if not s.predicted:
            return f"Paint {_names(s.labels)} on two or three slices, then Train."
    if not s.model:
        if s.painted == 1:
            return "One slice painted. Paint one or two more, some way off, or Train now."
        return f"{_slices(s.painted)} painted: press Train."
    if s.corrected:
        return f"You corrected {_slices(s.corrected)}: Accept each of them, then Train again."
    if s.changed:
        return f"{_slices(s.changed)} changed since round {s.rounds}: Train again, or paint more."
    if s.predicted < s.slices:
        return f"{s.predicted} of {s.slices} slices predicted: press Predict all."
    if s.plane:
        return f"Paint all that is on it, then press {s.plane} painted in full. Or Export."
    if s.current_predicted and not s.current_truth:
        return "Correct this slice's prediction if need be, then Accept it. Or Export."
    if s.painted >= s.slices:
        return "Every slice is painted or accepted now: Export."
    return "Go to the next suggested slice and correct it, or Export."


def _blocked(s: Situation) -> dict[str, str]:
    everything = ""
    if not s.volume:
        everything = "Open a CT first."
    elif s.opening:
        everything = "The CT is being made ready."
    elif s.elsewhere:
        everything = "Choose above: read-only, take over, or a new session."
    elif s.waiting:
        everything = "Restore the earlier work or begin a new session first."
    if everything:
        return dict.fromkeys(BUTTONS, everything)
    reason: dict[str, str] = {}
    if not s.labels:
        reason = dict.fromkeys((*_TOOLS, *_STATES, *_RUNS), "Add a label first.")
    elif not s.painted:
        reason = dict.fromkeys(_RUNS, "Paint at least one slice first.")
    if s.painted == 1:
        reason["check"] = "Needs two painted slices, for one is left out."
    if not s.model or s.taught:
        reason["adapt"] = (
            "This model has learnt from this CT already." if s.taught else "Load a model first."
        )
    if not s.model:
        for button in ("continue", "predict", "model"):
            reason.setdefault(button, "Train a model first.")
    if not s.predicted:
        reason |= dict.fromkeys(("accept", "next"), "Train first: nothing is predicted yet.")
        if s.task != "training":  # which shows previews
            reason |= dict.fromkeys(("confidence", "contour"), "Nothing is predicted yet.")
    elif s.painted >= s.slices:
        reason["next"] = "Every slice is painted or accepted already."
    elif not s.suggested:
        reason["next"] = "The next slice is being chosen."
    if s.current_preview:
        reason["accept"] = "This is a preview of the running training: Finish or Stop it first."
    elif s.predicted and not s.current_predicted:
        reason["accept"] = "This slice is not predicted yet."
    elif s.predicted and s.current_truth:
        reason["accept"] = "This slice is painted or accepted: correct it in the paint layer."
    if not s.predicted or not s.rounds:
        reason["review"] = "Train first: there is no round yet."
    if s.labels and not s.corrected:
        reason["model's"] = "No prediction is corrected."
    if not s.comparable:
        reason["difference"] = "Needs two predictions to compare: train once more."
    if not s.predicted and not s.painted:
        nothing = "Nothing is painted or predicted yet."
        reason |= dict.fromkeys(("mask", "numbers", "report"), nothing)
    if s.task:
        why = {
            "training": "Training is running: Finish or Stop it first.",
            "adapting": "The model adapts to this CT: wait or Stop it.",
            "predicting": "Prediction is running: wait or Stop it.",
            "checking": "The quality check is running: Stop it first.",
            "loading": "A model is being loaded: wait for it.",
        }[s.task]
        reason |= dict.fromkeys((*_RUNS, "predict", "load", "adapt"), why)
        if s.task == "predicting":
            why = "Wait until every slice is predicted, or Stop."
            reason |= dict.fromkeys(("mask", "numbers", "review"), why)
    if s.read_only:
        only = "Read-only: take over or begin a new session first."
        reason |= dict.fromkeys((b for b in BUTTONS if b not in _LOOKS), only)
    return reason


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def _names(names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return names[0]
    if len(names) > 3:
        return "all labels"
    return f"{', '.join(names[:-1])} and {names[-1]}"
