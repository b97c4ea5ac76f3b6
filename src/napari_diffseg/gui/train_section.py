"""Train: large buttons, the budget, a bar with the remaining time, the loss curve."""

from __future__ import annotations

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication, QButtonGroup, QProgressBar

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.loss_curve import LossCurve
from napari_diffseg.gui.runner import Runner
from napari_diffseg.gui.section import Section
from napari_diffseg.gui.theme import Palette, allow, group, push, text_label, tool
from napari_diffseg.gui.workspace import Workspace

BUDGETS: tuple[tuple[str, float | None], ...] = (
    ("30 s", 30.0),
    ("1 min", 60.0),
    ("3 min", 180.0),
    ("10 min", 600.0),
    ("∞", None),
)
_BUTTONS = {
    "train": (
        "Train",
        "Learn from all painted slices, beginning at the pre-trained network or the model that "
        "was loaded, then predict every slice",
    ),
    "continue": (
        "Continue",
        "Go on learning from the model that is there: 8 seconds after up to three corrected "
        "slices, which count three times as much",
    ),
    "finish": ("Finish", "Stop learning, keep what has been learnt, and predict every slice"),
    "stop": ("Stop", ""),
}
_ROOMY = 740  # px of the panel with which the curve pushes no button out of sight
_STOPS = {
    "training": "Give this training up at the next step; the model from before is kept",
    "adapting": "Give the adaptation up at the next step; the model stays as it was",
    "predicting": "Stop here; the slices predicted so far are kept",
    "checking": "Stop the check at its next step; the quality from before is kept",
}


class TrainSection(Section):
    """The fourth section."""

    train = Signal(bool)  # whether to go on from the model
    finish = Signal()
    stop = Signal()
    left = Signal()  # the button with the focus goes; Qt would choose the next and scroll to it

    def __init__(self, palette: Palette) -> None:
        super().__init__("Train")
        self.body.addLayout(self.add_buttons(push, _BUTTONS))
        self.buttons["continue"].clicked.connect(lambda: self.train.emit(True))
        for name, style in zip(_BUTTONS, ("primary", "second", "primary", "stop"), strict=True):
            self.buttons[name].setObjectName(style)
        self._budgets = QButtonGroup(self)
        choices = [tool(text) for text, _ in BUDGETS]
        for index, (button, (text, seconds)) in enumerate(zip(choices, BUDGETS, strict=True)):
            button.setCheckable(True)
            button.setChecked(seconds == 60)
            button.setAccessibleName("Without a limit" if seconds is None else text)
            span = "without a limit" if seconds is None else f"for up to {text}"
            button.setToolTip(f"Learn {span}, then predict every slice")
            self._budgets.addButton(button, index)
        self.budgets = group(*choices)
        self.body.addWidget(self.budgets)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.time = text_label()
        self.curve = LossCurve(palette)
        self._roomy = self._running = False
        self._settled = QTimer(self, singleShot=True, interval=QApplication.doubleClickInterval())
        self._settled.timeout.connect(lambda: self._let_click(True))
        for widget in (self.bar, self.time, self.curve):
            self.body.addWidget(widget)
            widget.hide()

    def fit_into(self, height: int) -> None:
        """Leave the loss in sight after a training if a panel of this height in px has room."""
        self._roomy = height >= _ROOMY

    @property
    def seconds(self) -> float | None:
        """The chosen budget in s; None is until Finish."""
        chosen: int = self._budgets.checkedId()
        return BUDGETS[chosen][1]

    def show_state(self, workspace: Workspace | None, guide: Guide) -> None:
        """Show the right buttons, and how far the running task is."""
        session = workspace.session if workspace is not None else None
        runner = workspace.runner if workspace is not None and session is not None else None
        has_model = session is not None and session.trainer.segmenter is not None
        running = runner.running if runner is not None else ""
        stopping = runner is not None and runner.stopping
        finishing = runner is not None and runner.finishing
        changes = bool(running) != self._running
        if (changes or stopping or finishing) and self._has_focus():
            self.left.emit()
        if changes:
            # Train and Stop change places: the second click of a double-click is for neither.
            self._running = bool(running)
            self._let_click(False)
            self._settled.start()
        super().show_state(workspace, guide)
        self.buttons["train"].setVisible(not running)
        self.buttons["continue"].setVisible(not running and has_model)
        self.buttons["finish"].setVisible(running == "training")
        self.buttons["stop"].setVisible(bool(running))
        self.buttons["train"].setText("Train again" if has_model else "Train")
        self.buttons["finish"].setText("Finishing" if finishing else "Finish")
        self.buttons["stop"].setText("Stopping" if stopping else "Stop")
        self.buttons["stop"].setEnabled(not stopping)
        self.buttons["stop"].setToolTip(_STOPS.get(running, "Nothing is running."))
        allow(self.buttons["finish"], self.help_of("finish"), _why_not_finish(runner))
        self.bar.setVisible(bool(running))
        self.time.setVisible(bool(running))
        for button in self._budgets.buttons():
            button.setEnabled(not running)
        losses = runner.losses if runner is not None else []
        self.curve.show_losses(losses)
        self.curve.setVisible(len(losses) > 1 and (bool(running) or self._roomy))
        if runner is not None and running:
            self._show_progress(runner)

    def _has_focus(self) -> bool:
        return self.window().focusWidget() in [self.buttons[name] for name in _BUTTONS]

    def _let_click(self, allowed: bool) -> None:
        for name in _BUTTONS:
            self.buttons[name].setAttribute(
                Qt.WidgetAttribute.WA_TransparentForMouseEvents, not allowed
            )

    def _show_progress(self, runner: Runner) -> None:
        latest = runner.latest
        if runner.running == "predicting" and latest is None:
            slices, remaining = len(runner.session.volume.hu), runner.remaining
            self.bar.setRange(0, slices)
            self.bar.setValue(runner.done)
            left = "" if remaining is None else f" · {duration(remaining)} left"
            self.time.setText(f"Predicting · {runner.done} of {slices} slices{left}")
            return
        if latest is None or latest.remaining is None or latest.remaining == float("inf"):
            self.bar.setRange(0, 0)  # Qt's bar for work of unknown length
            passed = f" · {duration(latest.seconds)} so far" if latest else ""
            self.time.setText((latest.stage.capitalize() if latest else "Starting") + passed)
            return
        total = latest.seconds + latest.remaining
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * latest.seconds / max(total, 1e-6)))
        left = f"{duration(latest.remaining)} left"
        self.time.setText(f"{latest.stage.capitalize()} · step {latest.step} · {left}")


def _why_not_finish(runner: Runner | None) -> str:
    if runner is None or not runner.losses:
        return "Nothing has been learnt yet."
    if runner.stopping:
        return "The training is being stopped."
    return "What has been learnt is being kept." if runner.finishing else ""


def duration(seconds: float) -> str:
    """Write a time for people: ``"42 s"``, ``"2 min 5 s"``."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
