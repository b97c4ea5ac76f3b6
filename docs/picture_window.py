"""Takes ``docs/images/window.png``: the real window after a real training on the sample CT.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/picture_window.py --seconds 60

The painted slices are the sample's automatic labels; the prediction in view is the network's.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

PAINTED = (14, 24, 34, 44)
SHOWN = 29
ORGANS = ("liver", "right kidney", "spleen", "aorta", "stomach", "left kidney")


def main() -> None:
    """Open, paint, train, predict, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "images" / "window.png")
    options = parser.parse_args()
    os.environ["NAPARI_DIFFSEG_HOME"] = tempfile.mkdtemp(prefix="napari-diffseg-picture-")

    import napari
    from PIL import Image
    from qtpy.QtWidgets import QApplication

    from napari_diffseg.gui.io import volume_layer
    from napari_diffseg.gui.panel import Panel
    from napari_diffseg.io.labels import load_names
    from napari_diffseg.io.sample import sample_labels_path, sample_names_path, sample_volume_path
    from napari_diffseg.io.volume import read_labels, read_volume

    def pump(done, limit: float = 1800.0) -> None:
        until = time.monotonic() + limit
        while not done() and time.monotonic() < until:
            QApplication.processEvents()
            time.sleep(0.005)

    def wait(seconds: float) -> None:
        until = time.monotonic() + seconds
        pump(lambda: time.monotonic() > until)

    volume = read_volume(sample_volume_path())
    truth = read_labels(sample_labels_path(), volume.geometry).mask
    names = load_names(sample_names_path())
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1440, 930)
    panel = Panel(viewer)
    viewer.window.add_dock_widget(panel, area="right", name="Segment CT (napari-diffseg)")
    data, kwargs, _ = volume_layer(volume)
    viewer.add_image(data, **kwargs)
    pump(lambda: panel.desk.active is not None and panel.desk.active.session is not None)
    workspace = panel.desk.active
    session = workspace.session
    chosen = np.zeros(256, np.uint8)
    for label_id, name in names.items():
        if name in ORGANS:
            label = session.add_label(name)
            chosen[label_id] = label.id
    for z in PAINTED:
        workspace.layers.paint.data[z] = chosen[truth[z]]
    workspace.recolour()
    workspace.truth.flush()
    workspace.go(SHOWN)
    workspace.train(panel.more.form.settings(options.seconds), from_model=False)
    pump(lambda: not workspace.runner.running)
    workspace.take_brush(1)
    wait(1.5)
    picture = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)[..., :3])
    options.o.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.o, optimize=True)
    print(f"{options.o}: {options.o.stat().st_size / 1000:.0f} kB")
    viewer.close()


if __name__ == "__main__":
    main()
