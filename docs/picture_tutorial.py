"""Takes the tutorial's pictures of the real window: ``docs/images/tutorial-*.png``.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/picture_tutorial.py --seconds 60

The painted slices are the sample's automatic labels, and so is the corrected one; what is predicted
is the network's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from diffseg_training.window import SampleWindow
from napari_diffseg.gui.review_dialog import ReviewDialog

PAINTED = (14, 24, 34, 44)
SHOWN = 29
ORGANS = ("liver", "right kidney", "spleen", "aorta", "stomach", "left kidney")
WIDTH = 860  # pixels of a picture


def main() -> None:
    """Go through the tutorial, and take a picture at each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()

    from PIL import Image

    def take(name: str) -> None:
        window.wait(0.8)
        whole = Image.fromarray(window.viewer.screenshot(canvas_only=False, flash=False)[..., :3])
        height = round(whole.height * WIDTH / whole.width)
        path = options.o / f"tutorial-{name}.png"
        small = whole.resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)

    window = SampleWindow(1280, 800)
    workspace, panel = window.workspace, window.panel
    take("open")
    window.paint(PAINTED, ORGANS)
    workspace.go(PAINTED[2])
    workspace.take_brush(1)
    take("paint")
    workspace.go(SHOWN)
    settings = panel.more.form.settings(options.seconds)
    workspace.train(settings, from_model=False)
    layer = workspace.layers.prediction
    window.until(lambda: layer is not None and bool(layer.data[SHOWN].any()))
    take("train")
    window.until(lambda: not workspace.runner.running)
    window.until(lambda: bool(workspace.suggested))
    workspace.go_to_suggestion()
    take("suggestion")

    session, z = workspace.begun, workspace.current
    painted = np.zeros(256, np.uint8)
    for label_id, name in window.names().items():
        painted[label_id] = next((one.id for one in session.paint.labels if one.name == name), 0)
    session.prediction.edit(z, painted[window.truth[z]])
    workspace.layers.show_prediction(session.prediction.mask, session.prediction.confidence)
    workspace.accept()
    workspace.train(settings, from_model=True)
    window.until(lambda: not workspace.runner.running)
    panel.linked.show(True)
    panel.slices.buttons["linked"].setChecked(True)
    window.viewer.dims.set_point((1, 2), (180.0, 130.0))
    take("planes")
    panel.linked.show(False)
    panel.slices.buttons["linked"].setChecked(False)
    panel.result.buttons["review"].click()
    window.until(lambda: bool(panel.findChildren(ReviewDialog)))
    (dialog,) = panel.findChildren(ReviewDialog)
    window.wait(0.5)
    dialog.grab().save(str(options.o / "tutorial-review.png"))
    dialog.close()
    window.close()


if __name__ == "__main__":
    main()
