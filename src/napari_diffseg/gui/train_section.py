"""Train: one large button, the budget, a bar with the remaining time, the loss curve."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QLabel, QProgressBar, QPushButton, QToolButton

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.loss_curve import LossCurve
from napari_diffseg.gui.runner import Runner
from napari_diffseg.gui.theme import Palette, Section, allow, row

BUDGETS: tuple[tuple[str, float | None], ...] = (
    ("30 s", 30.0),
    ("1 min", 60.0),
    ("3 min", 180.0),
    ("10 min", 600.0),
    ("∞", None),
)


_STOPS = {
    "training": "Give this training up at the next step; the model from before is kept",
    "predicting": "Stop here; the slices predicted so far are kept",
    "checking": "Stop the check at its next step; the quality from before is kept",
}


class TrainPanel(Section):
    """The fourth section.

    Signals: ``train(from_model)``, ``finish``, ``stop``.
    """

    train = Signal(bool)
    finish = Signal()
    stop = Signal()

    def __init__(self, palette: Palette) -> None:
        super().__init__("Train")
        self.train_button = QPushButton("Train")
        self.train_button.setObjectName("primary")
        self.continue_button = QPushButton("Continue")
        self.continue_button.setObjectName("second")
        self.finish_button = QPushButton("Finish")
        self.finish_button.setObjectName("primary")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setObjectName("stop")
        self.train_button.clicked.connect(lambda: self.train.emit(False))
        self.continue_button.clicked.connect(lambda: self.train.emit(True))
        self.finish_button.clicked.connect(self.finish)
        self.stop_button.clicked.connect(self.stop)
        self.body.addLayout(
            row(self.train_button, self.continue_button, self.finish_button, self.stop_button)
        )

        self._budgets = QButtonGroup(self)
        buttons = []
        for index, (text, seconds) in enumerate(BUDGETS):
            button = QToolButton()
            button.setText(text)
            button.setCheckable(True)
            button.setChecked(seconds == 60)
            span = "without a limit" if seconds is None else f"for up to {text}"
            button.setToolTip(f"Learn {span}, then predict every slice")
            button.setSizePolicy(self.train_button.sizePolicy())
            self._budgets.addButton(button, index)
            buttons.append(button)
        self.body.addLayout(row(*buttons))

        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.time = QLabel()
        self.time.setObjectName("muted")
        self.curve = LossCurve(palette)
        for widget in (self.bar, self.time, self.curve):
            self.body.addWidget(widget)
            widget.hide()

    @property
    def seconds(self) -> float | None:
        """The chosen budget in s; None is until Finish."""
        chosen: int = self._budgets.checkedId()
        return BUDGETS[chosen][1]

    def set_palette(self, palette: Palette) -> None:
        """Follow the viewer's theme."""
        self.curve.set_palette(palette)

    def follow(self, curve: Sequence[float]) -> None:
        """Show the losses so far of the volume that is worked on."""
        self.curve.show_losses(curve)
        self.curve.setVisible(len(curve) > 1)

    def show_state(self, guide: Guide, runner: Runner | None, has_model: bool, slices: int) -> None:
        """Show the right buttons, and how far the running task is."""
        running = runner.running if runner is not None else ""
        self.train_button.setVisible(not running)
        self.continue_button.setVisible(not running and has_model)
        self.finish_button.setVisible(running == "training")
        self.stop_button.setVisible(bool(running))
        self.train_button.setText("Train again" if has_model else "Train")
        allow(
            self.train_button,
            "Learn from all painted slices, beginning at the pre-trained network, "
            "then predict every slice",
            guide.why_not("train"),
        )
        allow(
            self.continue_button,
            "Go on learning from the model that is there",
            guide.why_not("continue"),
        )
        stopping = runner is not None and runner.stopping
        self.stop_button.setEnabled(not stopping)
        self.stop_button.setText("Stopping" if stopping else "Stop")
        self.stop_button.setToolTip(_STOPS.get(running, ""))
        finishing = runner is not None and runner.finishing
        self.finish_button.setText("Finishing" if finishing else "Finish")
        allow(
            self.finish_button,
            "Learn no more: keep what has been learnt so far, and predict every slice",
            _why_not_finish(runner),
        )
        self.bar.setVisible(bool(running))
        self.time.setVisible(bool(running))
        for button in self._budgets.buttons():
            button.setEnabled(not running)
        self.follow(runner.losses if runner is not None else ())
        if runner is not None and running:
            self._show_progress(runner, slices)

    def _show_progress(self, runner: Runner, slices: int) -> None:
        if runner.running == "predicting":
            self.bar.setRange(0, slices)
            self.bar.setValue(runner.done)
            self.time.setText(f"Predicting · {runner.done} of {slices} slices")
            return
        latest = runner.latest
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
