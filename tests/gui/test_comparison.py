"""Numbers out, and the result against a mask of somebody else, through the window."""

import numpy as np
from qtpy.QtWidgets import QApplication, QFileDialog, QMenu
from session_tools import SHAPE, SPLEEN, block

from napari_diffseg.gui.comparison import ComparisonDialog
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import write_mask


def test_the_slices_that_differ_most_are_gone_to(window, tmp_path, monkeypatch):
    window.open()
    window.add_label("liver")
    for z in (1, 2, 4):
        window.paint_block(z, 1)
    other = np.zeros(SHAPE, np.uint8)
    other[1] = other[4] = block(7)
    other[4, 8:12, 8:12] = 0
    other[2, 8:16, 8:16] = 2
    path = tmp_path / "other.seg.nrrd"
    labels = [SPLEEN, Label(7, "Liver", (1, 2, 3))]
    write_mask(path, other, window.session.volume.geometry, labels)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    window.click(window.panel.labels.buttons["import"])
    menu = QApplication.activePopupWidget()
    assert isinstance(menu, QMenu)
    (action,) = [a for a in menu.actions() if a.text() == "Compare with a file…"]
    menu.close()
    action.trigger()
    window.until(lambda: bool(window.panel.findChildren(ComparisonDialog)))
    (dialog,) = window.panel.findChildren(ComparisonDialog)
    names = [dialog.labels.item(row, 0).text() for row in range(dialog.labels.rowCount())]
    assert names == ["liver", "spleen"]
    both = (64 + 48) * 2 / (3 * 64 + 64 + 48)
    assert dialog.labels.item(0, 1).text() == f"{both:.3f}"
    texts = [dialog.slices.item(row).text() for row in range(dialog.slices.count())]
    assert [text.split(" · ")[:2] for text in texts] == [
        ["Slice 2", "256 mm² differ"],
        ["Slice 4", "64 mm² differ"],
    ]
    dialog.slices.setCurrentRow(1)
    assert window.workspace.current == 4
    difference = window.workspace.layers.difference
    assert difference.data.any(axis=(1, 2)).tolist() == [False, False, True, False, True, False]
    dialog.reject()
    assert window.workspace.layers.difference is None
    assert window.session.paint.mask.max() == 1  # comparing changes nothing


def test_numbers_are_exported(window, tmp_path, monkeypatch):
    window.open()
    window.panel.refresh()
    reason = window.panel.export.buttons["numbers"].toolTip()
    assert reason == "Nothing is painted or predicted yet."
    window.add_label("liver")
    window.paint_block(2, 1)
    for name in ("numbers.html", "numbers.csv"):
        path = tmp_path / name
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, p=path: (str(p), ""))
        window.click(window.panel.export.buttons["numbers"])
        window.until(path.exists)
        window.until(lambda n=name: n in window.sentence)
    assert (tmp_path / "numbers.csv").read_text().splitlines()[1].startswith("1,liver,64,1.28,")
    assert "data:image/png" in (tmp_path / "numbers.html").read_text()
