"""A window whose texts are all translated: nothing is left out, and nothing breaks."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from napari_diffseg.engine.finetune import TrainSettings

TESTS = Path(__file__).parents[1]
TOOLS = TESTS.parent / "tools"

SCRIPT = """
import time
from qtpy.QtWidgets import QAbstractButton, QApplication, QLabel, QTableWidget
import napari
from napari_diffseg.gui.io import volume_layer
from napari_diffseg.gui.panel import Panel
from session_tools import tiny_volume

viewer = napari.Viewer(show=True)
panel = Panel(viewer)
viewer.window.add_dock_widget(panel, area="right", name="Segment CT")
data, options, _ = volume_layer(tiny_volume())
viewer.add_image(data, **options)

def until(done):
    for _ in range(20_000):
        QApplication.processEvents()
        if done():
            return
        time.sleep(0.005)
    raise SystemExit("not ready")

until(lambda: panel.desk.active is not None and panel.desk.active.session is not None)
panel.tools.fold.setChecked(True)
panel.more.fold.setChecked(True)
panel.labels.buttons["add"].click()
workspace = panel.desk.active
layer = workspace.layers.paint
layer.data[1, 2:6, 2:6] = 1
workspace.paint_sync.flush()
panel.refresh()
texts = set()
for one in panel.findChildren(QAbstractButton):
    texts |= {one.text(), one.toolTip(), one.accessibleName()}
for one in panel.findChildren(QLabel):
    texts |= {one.text(), one.toolTip()}
for table in panel.findChildren(QTableWidget):
    header = [table.horizontalHeaderItem(k) for k in range(table.columnCount())]
    texts |= {item.text() for item in header if item} | {item.toolTip() for item in header if item}
print("\\n".join(sorted(text.replace("\\n", " ") for text in texts if text)))
viewer.close()
"""


def test_every_text_of_the_panel_is_in_the_catalogue(tmp_path, home):
    make = (
        "import pathlib, strings; strings.apply(lambda text: '\\u27e6' + text + '\\u27e7', "
        f"pathlib.Path({str(tmp_path / 'translated')!r}))"
    )
    subprocess.run([sys.executable, "-c", make], cwd=TOOLS, check=True)
    paths = [str(tmp_path / "translated"), str(TESTS)]
    code = f"import sys; sys.path[:0] = {paths!r}\n" + SCRIPT
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-X", "utf8", "-c", code],
        capture_output=True,
        encoding="utf-8",
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    texts = done.stdout.splitlines()
    assert sum("\u27e6" in text for text in texts) > 130
    left = {text for text in texts if "\u27e6" not in text and any(map(str.isalpha, text))}
    names = {field.name.replace("_", " ").capitalize() for field in fields(TrainSettings)}
    numbers = {"30 s", "S 10.0 mm"}
    assert left - names - numbers <= {"Undo", "Redo", "tiny"}  # buttons' names, and the CT's
