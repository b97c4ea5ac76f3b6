"""A label of a fixed number of lines, so that nothing below it moves with its text."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QPointF, QSize, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QTextLayout, QTextOption
from qtpy.QtWidgets import QLabel, QSizePolicy


class ElidedLabel(QLabel):
    """Text in so many lines; longer text ends in an ellipsis and is the tooltip in full.

    Parameters
    ----------
    lines
        Height of the label in lines of text, whether they are used or not.
    """

    def __init__(self, lines: int = 1) -> None:
        super().__init__()
        self._lines = lines
        self.setContentsMargins(5, 0, 0, 0)  # as napari's style sheet indents labels
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Qt's question for a size."""
        return QSize(80, self._lines * self.fontMetrics().lineSpacing())

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Qt's question for the smallest size: any width will do."""
        return QSize(0, self.sizeHint().height())

    def shown_lines(self) -> list[str]:
        """Break the text into the lines that are drawn."""
        layout = QTextLayout(self.text(), self.font())
        layout.setTextOption(QTextOption())  # which wraps at words
        starts, width = [], self.contentsRect().width()
        layout.beginLayout()
        while (line := layout.createLine()).isValid():
            line.setLineWidth(width)
            starts.append(line.textStart())
        layout.endLayout()
        text = self.text()
        pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
        kept, rest = pieces[: self._lines - 1], "".join(pieces[self._lines - 1 :])
        if rest:
            mode = Qt.TextElideMode.ElideRight
            kept.append(self.fontMetrics().elidedText(rest, mode, width))
        return [line.rstrip() for line in kept]

    def event(self, event: QEvent) -> bool:
        """Offer the whole text as tooltip where it is not drawn as a whole."""
        if event.type() == QEvent.Type.ToolTip:
            whole = " ".join(self.shown_lines()).split() == self.text().split()
            self.setToolTip("" if whole else self.text())
        return bool(super().event(event))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802
        """Draw the lines, a short text in the middle of the height."""
        painter, metrics = QPainter(self), self.fontMetrics()
        lines = self.shown_lines()
        top = (self.height() - len(lines) * metrics.lineSpacing()) / 2
        for n, line in enumerate(lines):
            y = top + n * metrics.lineSpacing() + metrics.ascent()
            painter.drawText(QPointF(self.contentsRect().left(), y), line)
