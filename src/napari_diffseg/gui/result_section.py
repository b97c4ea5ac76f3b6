"""The Result and Export sections."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton

from napari_diffseg.gui.guide import Guide
from napari_diffseg.gui.layers import VolumeLayers
from napari_diffseg.gui.theme import Section, allow, row, tool


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
