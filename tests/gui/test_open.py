"""``napari-diffseg open`` is one process, with the CT in the viewer and the panel beside it."""

import json
import subprocess
import sys

from session_tools import tiny_volume

from napari_diffseg.io.volume import write_volume

# napari's event loop is replaced by one that runs until the CT is ready, and says what is there.
_DRIVER = """
import gc, json, os, sys, time
import napari
from napari_diffseg.cli import main

def run(**_):
    from qtpy.QtWidgets import QApplication
    viewer = napari.current_viewer()
    drawn = []
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    canvas.events.draw.connect(lambda event: drawn.append("torch" in sys.modules))
    end = time.monotonic() + 100
    while len(viewer.layers) < 4 and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
    print(json.dumps({
        "process": os.getpid(),
        "engine_first": drawn[0],
        "collects": gc.isenabled(),
        "layers": [layer.name for layer in viewer.layers],
        "docks": list(viewer.window.dock_widgets),
        "visible": viewer.window._qt_window.isVisible(),
    }))
    sys.stdout.flush()
    viewer.close()

napari.run = run
sys.exit(main(["open", sys.argv[1]]))
"""


def test_open_is_one_process(tmp_path):
    path = tmp_path / "tiny.nii.gz"
    write_volume(path, tiny_volume())
    command = [sys.executable, "-c", _DRIVER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate(timeout=200)
    said = json.loads(out.splitlines()[-1])
    assert process.returncode == 0
    assert said["process"] == process.pid
    assert said["layers"] == ["tiny", "confidence", "prediction", "paint"]
    assert any("Segment CT" in name for name in said["docks"])
    assert said["visible"]
    assert said["collects"]
    assert not said["engine_first"]  # the picture does not wait for it


def test_the_command_line_imports_neither_napari_nor_qt():
    check = (
        "import sys, napari_diffseg.cli as cli\n"
        "assert cli.main(['open', 'gone.nii.gz']) == 1\n"
        "sys.exit(bool({'napari', 'qtpy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], timeout=120).returncode == 0
