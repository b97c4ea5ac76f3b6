"""Takes the guide's pictures of the real window.

``docs/images/tools.png`` is the panel with the tools unfolded, ``window.png`` the window after a
real training on the sample CT.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/picture_window.py --seconds 60

The painted slices are the sample's automatic labels; the prediction in view is the network's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffseg_training.window import SampleWindow

PAINTED = (14, 24, 34, 44)
SHOWN = 29
ORGANS = ("liver", "right kidney", "spleen", "aorta", "stomach", "left kidney")


def main() -> None:
    """Open, paint, train, predict, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "images" / "window.png")
    options = parser.parse_args()

    from PIL import Image

    window = SampleWindow(1440, 930)
    workspace = window.workspace
    window.paint(PAINTED, ORGANS)
    workspace.go(SHOWN)
    workspace.take_brush(1)
    options.o.parent.mkdir(parents=True, exist_ok=True)
    window.panel.tools.fold.setChecked(True)
    window.wait(1.5)
    window.panel.grab().save(str(options.o.with_name("tools.png")))
    window.panel.tools.fold.setChecked(False)
    workspace.train(window.panel.more.form.settings(options.seconds), from_model=False)
    window.until(lambda: not workspace.runner.running)
    workspace.take_brush(1)
    window.wait(1.5)
    picture = Image.fromarray(window.viewer.screenshot(canvas_only=False, flash=False)[..., :3])
    picture.save(options.o, optimize=True)
    print(f"{options.o}: {options.o.stat().st_size / 1000:.0f} kB")
    window.close()


if __name__ == "__main__":
    main()
