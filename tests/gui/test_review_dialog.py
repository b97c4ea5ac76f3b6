"""The newest round, to click through."""

import numpy as np
from qtpy.QtWidgets import QApplication

from napari_diffseg.gui.review_dialog import ReviewDialog


def _dialog(window):
    found = [w for w in QApplication.topLevelWidgets() if isinstance(w, ReviewDialog)]
    return next((w for w in found if w.isVisible()), None)


def test_a_round_is_reviewed_measured_and_clicked_through(window):
    window.open()
    window.panel.refresh()
    button = window.panel.result.buttons["review"]
    assert not button.isEnabled()
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    for z in (1, 4):
        window.paint_block(z, 1)
    window.train()
    window.idle()
    window.click(button)
    window.until(lambda: _dialog(window) is not None)
    dialog = _dialog(window)
    assert "not measured" in dialog.quality.text()
    window.qtbot.mouseClick(dialog.measure, _left())
    window.idle()
    window.until(lambda: bool(window.session.trainer.quality))
    assert "Another slice is worth" in window.sentence

    # Corrected on slice 2: the review goes there.
    window.session.prediction.edit(2, np.ones_like(window.session.prediction.mask[2]))
    window.train()
    window.idle()
    window.workspace.go(5)
    window.click(button)
    window.until(lambda: _dialog(window) is not None)
    dialog = _dialog(window)
    assert dialog.changed.item(0).text().startswith("Slice 2 ·")
    dialog.changed.setCurrentRow(0)
    assert window.workspace.current == 2
    dialog.close()


def _left():
    from qtpy.QtCore import Qt

    return Qt.MouseButton.LeftButton
