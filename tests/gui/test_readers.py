"""A second reader in the window."""

import numpy as np
from qtpy.QtWidgets import QApplication, QFileDialog, QInputDialog, QMenu

from napari_diffseg.gui.comparison import ComparisonDialog


def _choose(window, text):
    window.click(window.panel.labels.buttons["import"])
    menu = QApplication.activePopupWidget()
    assert isinstance(menu, QMenu)
    (action,) = [a for a in menu.actions() if a.text() == text]
    menu.close()
    action.trigger()


def test_somebody_else_reads_and_is_compared(window, tmp_path, monkeypatch):
    window.open()
    window.add_label("liver")
    window.paint_block(2, 1)
    first = window.session
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("Ann", True))
    _choose(window, "Read as someone else…")
    window.until(lambda: window.session is not first and window.workspace.reader == "Ann")
    assert "Reading as Ann" in window.sentence
    assert [label.name for label in window.session.paint.labels] == ["liver"]
    assert not window.workspace.layers.paint.data.any()
    window.paint_block(3, 1)

    _choose(window, "Compare with first reader")
    window.until(lambda: bool(window.panel.findChildren(ComparisonDialog)))
    (dialog,) = window.panel.findChildren(ComparisonDialog)
    assert dialog.labels.item(0, 1).text() == "0.000"
    path = tmp_path / "agreement.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    dialog.save.click()
    window.until(path.exists)
    assert path.read_text().splitlines()[0].startswith("id,label,voxels A")
    dialog.reject()

    everybody = tmp_path / "readers.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(everybody), ""))
    _choose(window, "Agreement of all readers…")
    window.until(everybody.exists)
    assert everybody.read_text().splitlines()[1].startswith("first reader,Ann,liver,0.0000")

    _choose(window, "Read as first reader")
    window.until(lambda: window.workspace.reader == "first reader")
    np.testing.assert_array_equal(window.session.paint.mask.any(axis=(1, 2)), np.arange(6) == 2)
