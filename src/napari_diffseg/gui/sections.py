"""The panel's smaller sections: Volume, Slices, Result, Export, More."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_diffseg.gui.form import SettingsForm
from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.layers import VolumeLayers
from napari_diffseg.gui.orientation import PRESETS
from napari_diffseg.gui.strip import SliceStrip, StripModel
from napari_diffseg.gui.theme import Palette, Section, allow, muted, row
from napari_diffseg.gui.train_panel import duration
from napari_diffseg.session import Round, SliceState
from napari_diffseg.volume import Volume


def tool(text: str, help_text: str = "", checkable: bool = False) -> QToolButton:
    """Make a small button that takes its share of the row."""
    button = QToolButton()
    button.setText(text)
    button.setToolTip(help_text)
    button.setCheckable(checkable)
    button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return button


def chip() -> QToolButton:
    """Make a rounded note that can be clicked for more."""
    button = QToolButton()
    button.setObjectName("chip")
    return button


class VolumeSection(Section):
    """Name, size, spacing, findings, chips, window presets; Open where nothing is open.

    Signals: ``window(name)``, ``open_file``, ``open_folder``, ``open_sample``, ``card``,
    ``chosen(index)``.
    """

    window = Signal(str)
    open_file = Signal()
    open_folder = Signal()
    open_sample = Signal()
    card = Signal()
    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__("Volume")
        self.name = QLabel()
        self.name.setObjectName("name")
        self.choice = QComboBox()
        self.choice.setToolTip("Which of the open volumes the panel works on")
        self.choice.activated.connect(self.chosen)
        self.facts = muted()
        self.notes = muted()
        self.device, self.backbone = chip(), chip()
        self.device.setToolTip("Where the network runs")
        self.backbone.clicked.connect(self.card)
        self.presets = QWidget()
        buttons = []
        for name, (width, level) in PRESETS.items():
            button = tool(name, f"Window W{width:g} L{level:g}")
            button.clicked.connect(lambda _=False, n=name: self.window.emit(n))
            buttons.append(button)
        self.presets.setLayout(row(*buttons))
        self.openers = QWidget()
        file, folder = tool("Open file…"), tool("DICOM folder…")
        sample = tool("Sample", "Open the sample CT: chest and upper abdomen, LIDC-IDRI-0001")
        file.clicked.connect(self.open_file)
        folder.clicked.connect(self.open_folder)
        sample.clicked.connect(self.open_sample)
        self.openers.setLayout(row(file, folder, sample))
        for widget in (self.choice, self.name, self.facts, self.notes):
            self.body.addWidget(widget)
        self.chips = QWidget()
        self.chips.setLayout(row(self.device, self.backbone, stretch=True))
        for widget in (self.chips, self.presets, self.openers):
            self.body.addWidget(widget)

    def show_volume(self, volume: Volume | None, names: tuple[str, ...], index: int) -> None:
        """Show which volume is worked on."""
        there = volume is not None
        for widget in (self.facts, self.chips, self.presets):
            widget.setVisible(there)
        self.openers.setVisible(not there)
        self.choice.setVisible(len(names) > 1)
        self.name.setVisible(there and len(names) == 1)
        self.notes.setVisible(volume is not None and bool(volume.geometry.notes))
        if volume is None:
            return
        self.choice.clear()
        self.choice.addItems(names)
        self.choice.setCurrentIndex(index)
        self.name.setText(volume.name)
        z, y, x = volume.hu.shape
        dz, dy, dx = volume.geometry.spacing
        self.facts.setText(f"{z} slices of {y} × {x} · {dz:.3g} × {dy:.3g} × {dx:.3g} mm")
        self.notes.setText("⚠ " + ", ".join(volume.geometry.notes))


    def show_chips(self, device: str, backbone: str) -> None:
        """Show where the network runs, and the pre-trained network that training begins at."""
        self.device.setText(device)
        self.backbone.setText(backbone or "no backbone")
        self.backbone.setToolTip("What training begins at; click for its card")


class SlicesSection(Section):
    """The strip, and the state of the slice in view.

    Signals: ``went(z)``, ``state_set(state)``, ``cleared``.
    """

    went = Signal(int)
    state_set = Signal(object)
    cleared = Signal()

    def __init__(self, palette: Palette) -> None:
        super().__init__("Slices")
        self.strip = SliceStrip(palette)
        self.strip.went.connect(self.went)
        self.body.addWidget(self.strip)
        ends = QLabel("inferior"), QLabel(), QLabel("superior")
        self.where = ends[1]
        for label, side in zip(ends, ("Left", "HCenter", "Right"), strict=True):
            label.setObjectName("muted")
            label.setAlignment(getattr(Qt.AlignmentFlag, f"Align{side}"))
        line = row(*ends)
        line.setStretch(1, 4)
        self.body.addLayout(line)
        self.full = tool("Painted in full", checkable=True)
        self.scribbles = tool("Scribbles", checkable=True)
        self.clear = tool("Clear")
        self.clear.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        self.full.clicked.connect(lambda: self.state_set.emit(SliceState.PAINTED))
        self.scribbles.clicked.connect(lambda: self.state_set.emit(SliceState.SCRIBBLED))
        self.clear.clicked.connect(self.cleared)
        line = row(self.full, self.scribbles, self.clear)
        line.setStretch(2, 0)
        self.body.addLayout(line)

    def show_state(self, model: StripModel, guide: Guide, fresh: SliceState) -> None:
        """Show the strip and the current slice's state."""
        self.strip.show_model(model)
        count = len(model.states)
        state = SliceState(int(model.states[model.current])) if count else SliceState.UNPAINTED
        text = ""
        if count:
            text = f"slice {model.current} of 0–{count - 1}"
            if state == SliceState.ACCEPTED:
                text += " · accepted"
            elif state == SliceState.UNPAINTED:
                text += " · unpainted"
        self.where.setText(text)
        why = guide.why_not("state")
        unpainted = state == SliceState.UNPAINTED
        what = "Strokes on this slice will count as" if unpainted else "This slice is"
        allow(
            self.full,
            f"{what} painted in full: whatever is not painted is background",
            why,
        )
        allow(
            self.scribbles,
            f"{what} scribbles: whatever is not painted is unknown, "
            "and background is painted with its own brush",
            why,
        )
        allow(self.clear, "Take all paint off this slice (Ctrl+Z brings it back)",
              why or ("Nothing is painted on this slice." if unpainted else ""))  # fmt: skip
        shown = fresh if unpainted else state
        self.full.setChecked(bool(count) and not why and shown >= SliceState.PAINTED)
        self.scribbles.setChecked(bool(count) and not why and shown == SliceState.SCRIBBLED)


class ResultSection(Section):
    """Accept, next suggestion, and ways to look at the prediction.

    Signals: ``accept``, ``next``, ``check``, ``predict``, ``confidence(on)``, ``contour(on)``,
    ``difference(on)``.
    """

    accept = Signal()
    next = Signal()
    check = Signal()
    predict = Signal()
    confidence = Signal(bool)
    contour = Signal(bool)
    difference = Signal(bool)

    def __init__(self) -> None:
        super().__init__("Result")
        self.accept_button = QPushButton("Accept slice")
        self.next_button = QPushButton("Next suggestion")
        self.accept_button.clicked.connect(self.accept)
        self.next_button.clicked.connect(self.next)
        self.body.addLayout(row(self.accept_button, self.next_button))
        self.confidence_button = tool("Confidence", checkable=True)
        self.contour_button = tool("Contour", checkable=True)
        self.difference_button = tool("Difference", checkable=True)
        self.confidence_button.clicked.connect(self.confidence)
        self.contour_button.clicked.connect(self.contour)
        self.difference_button.clicked.connect(self.difference)
        self.body.addLayout(
            row(self.confidence_button, self.contour_button, self.difference_button)
        )
        self.predict_button, self.check_button = tool("Predict all"), tool("Check quality")
        self.predict_button.clicked.connect(self.predict)
        self.check_button.clicked.connect(self.check)
        self.body.addLayout(row(self.predict_button, self.check_button))

    def show_layers(self, layers: VolumeLayers | None) -> None:
        """Follow what the user switched in napari's own layer list."""
        confidence = layers.confidence if layers is not None else None
        prediction = layers.prediction if layers is not None else None
        self.confidence_button.setChecked(confidence is not None and confidence.visible)
        self.contour_button.setChecked(prediction is not None and prediction.contour > 0)
        self.difference_button.setChecked(layers is not None and layers.difference is not None)

    def show_state(self, guide: Guide, any_prediction: bool) -> None:
        """Enable what makes sense now."""
        allow(
            self.accept_button,
            "Take this slice's prediction as truth; the next training learns from it",
            guide.why_not("accept"),
        )
        allow(
            self.next_button,
            "Go to the slice whose paint should help most",
            guide.why_not("next"),
        )
        nothing = "" if any_prediction else "Nothing is predicted yet."
        allow(self.confidence_button, "Orange where the model is unsure", nothing)
        allow(self.contour_button, "Outline instead of fill", nothing)
        allow(
            self.difference_button,
            "White where the prediction differs from the one before",
            guide.why_not("difference"),
        )
        allow(self.predict_button, "Predict every slice again", guide.why_not("predict"))
        allow(
            self.check_button,
            "Train without each painted slice in turn and compare: the honest Dice of the table",
            guide.why_not("check"),
        )


class ExportSection(Section):
    """Mask, model, report; load a model. Signals are named after what is asked for."""

    mask = Signal()
    model = Signal()
    report = Signal()
    load = Signal()

    def __init__(self) -> None:
        super().__init__("Export")
        self.mask_button = QPushButton("Mask…")
        self.model_button = QPushButton("Model…")
        self.report_button = QPushButton("Report…")
        self.mask_button.clicked.connect(self.mask)
        self.model_button.clicked.connect(self.model)
        self.report_button.clicked.connect(self.report)
        self.body.addLayout(row(self.mask_button, self.model_button, self.report_button))

    def show_state(self, guide: Guide) -> None:
        """Enable what makes sense now."""
        allow(
            self.mask_button,
            "Save paint and prediction as a mask on the source grid, read it again and compare",
            guide.why_not("mask"),
        )
        allow(self.model_button, "Save the model for other volumes", guide.why_not("model"))
        allow(
            self.report_button,
            "Save settings, slices, times and quality as JSON",
            guide.why_not("report"),
        )


class MoreSection(Section):
    """Folded: training settings, rounds, load a model.

    Signals: ``restore(number)``, ``load``.
    """

    restore = Signal(int)
    load = Signal()

    def __init__(self) -> None:
        super().__init__("")
        self.fold = QToolButton()
        self.fold.setObjectName("quiet")
        self.fold.setText("More")
        self.fold.setCheckable(True)
        self.fold.setArrowType(Qt.ArrowType.RightArrow)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.toggled.connect(self._on_fold)
        self.header.insertWidget(0, self.fold)
        self.form = SettingsForm()
        self.rounds = QListWidget()
        self.rounds.setMaximumHeight(96)
        self.restore_button, self.load_button = tool("Restore round"), tool("Load model…")
        self.restore_button.clicked.connect(self._on_restore)
        self.load_button.clicked.connect(self.load)
        self.rounds.itemSelectionChanged.connect(self._allow_restore)
        self.content = (self.form.container.native, muted("Rounds"), self.rounds)
        self.buttons = QWidget()
        self.buttons.setLayout(row(self.restore_button, self.load_button))
        for widget in (*self.content, self.buttons):
            self.body.addWidget(widget)
            widget.hide()
        self._shown: tuple[Round, ...] = ()
        self._why = ""

    def show_state(self, rounds: tuple[Round, ...], current: Round | None, guide: Guide) -> None:
        """List the rounds, the newest first."""
        self._why = guide.why_not("load")
        allow(self.load_button, "Go on from a model that was saved before", self._why)
        if rounds != self._shown or self._current != current:
            self._shown, self._current = rounds, current
            self.rounds.clear()
            for made in reversed(rounds):
                mark = "● " if current is not None and made.number == current.number else "   "
                item = QListWidgetItem(mark + describe_round(made))
                item.setData(Qt.ItemDataRole.UserRole, made.number)
                self.rounds.addItem(item)
        self._allow_restore()

    _current: Round | None = None

    def _allow_restore(self) -> None:
        chosen = self.rounds.currentItem() is not None
        why = self._why or ("" if chosen else "Choose a round in the list first.")
        allow(self.restore_button, "Bring back this round's model and prediction", why)

    def _on_fold(self, unfolded: bool) -> None:
        arrow = Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow
        self.fold.setArrowType(arrow)
        for widget in (*self.content, self.buttons):
            widget.setVisible(unfolded)

    def _on_restore(self) -> None:
        item = self.rounds.currentItem()
        if item is not None:
            self.restore.emit(int(item.data(Qt.ItemDataRole.UserRole)))


def describe_round(made: Round) -> str:
    """Say in one line how a round was trained."""
    if made.settings is None:
        return f"Round {made.number} · loaded model"
    slices = "1 slice" if len(made.slices) == 1 else f"{len(made.slices)} slices"
    text = f"Round {made.number} · {slices} · {duration(made.seconds.get('total', 0))}"
    measured = [value for value in made.quality.values() if value == value]
    if measured:
        text += f" · Dice {sum(measured) / len(measured):.2f}"
    return text
