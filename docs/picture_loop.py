"""Takes ``docs/images/loop.gif``: painting, training and the result in the real window.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/picture_loop.py

The painted slices are the sample's automatic labels; what is predicted is the network's. Prints how
long each step took, from the start of the window on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from diffseg_training.window import SampleWindow

PAINTED = (14, 24, 34, 44)
SHOWN = (29, 32, 36, 39, 42)
ORGANS = ("liver", "right kidney", "spleen", "aorta", "stomach", "left kidney")
WIDTH = 760  # pixels of the picture
COLOURS = 64


def main() -> None:
    """Open, paint, train, predict, and keep a picture of each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=45)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "images" / "loop.gif")
    options = parser.parse_args()

    from PIL import Image

    frames: list[tuple[Image.Image, int]] = []
    begun = time.perf_counter()

    def report(step: str) -> None:
        print(f"{time.perf_counter() - begun:6.1f} s  {step}", flush=True)

    def keep(milliseconds: int) -> None:
        whole = Image.fromarray(window.viewer.screenshot(canvas_only=False, flash=False)[..., :3])
        height = round(whole.height * WIDTH / whole.width)
        frames.append((whole.resize((WIDTH, height), Image.Resampling.LANCZOS), milliseconds))

    window = SampleWindow(1280, 800)
    workspace = window.workspace
    window.wait(1)
    report("the window with the CT")
    keep(1200)
    window.paint(PAINTED, ORGANS)
    for z in PAINTED:
        workspace.go(z)
        window.wait(0.3)
        keep(700)
    workspace.go(SHOWN[0])
    report("painted; now Train")
    trained = time.perf_counter()
    workspace.train(window.panel.more.form.settings(options.seconds), from_model=False)
    prediction, taken = None, trained
    while workspace.runner.running:
        window.wait(0.5)
        layer = workspace.layers.prediction
        if prediction is None and layer is not None and layer.data[SHOWN[0]].any():
            prediction = time.perf_counter() - trained
            report(f"first prediction of the slice in view, {prediction:.0f} s after Train")
        if time.perf_counter() - taken > options.seconds / 6:
            taken = time.perf_counter()
            keep(600)
    report(f"every slice predicted, {time.perf_counter() - trained:.0f} s after Train")
    for z in SHOWN:
        workspace.go(z)
        window.wait(0.3)
        keep(900 if z != SHOWN[-1] else 2000)

    pictures = [frame.quantize(COLOURS, dither=Image.Dither.NONE) for frame, _ in frames]
    options.o.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(
        options.o,
        save_all=True,
        append_images=pictures[1:],
        duration=[milliseconds for _, milliseconds in frames],
        loop=0,
        optimize=True,
    )
    print(f"{options.o}: {options.o.stat().st_size / 1e6:.2f} MB, {len(pictures)} pictures")
    window.close()


if __name__ == "__main__":
    main()
