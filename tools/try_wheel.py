"""Try a wheel as a stranger would: in empty environments, with and without each extra.

    python tools/try_wheel.py dist

installs the wheel that is in ``dist`` three times (plain, ``[gui]``, ``[training]``), asks every
program for ``--help`` or for the name of the extra that it lacks, validates the plugin's manifest,
and runs the main job on the sample CT. Needs nothing but Python; takes some five minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SLICES = "10,27,49,92"
LEAST_DICE = 0.65  # four painted slices and a minute give about 0.77
PROGRAMS = {
    "napari-diffseg": "",
    "napari-diffseg-pretrain": "training",
    "napari-diffseg-benchmark": "training",
}
"""Programs, and the extra that each cannot do without."""


class Environment:
    """An empty virtual environment with the wheel and one extra."""

    def __init__(self, folder: Path, wheel: Path, extra: str) -> None:
        self.extra = extra
        venv.create(folder, with_pip=True)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.work = folder / "work"
        self.work.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "NAPARI_DIFFSEG_HOME": str(folder / "home"),
        }
        wanted = f"{wheel}[{extra}]" if extra else str(wheel)
        constraints = str(ROOT / "constraints.txt")
        self.say("python", "-m", "pip", "install", "--quiet", "-c", constraints, wanted)
        self.say("python", "-m", "pip", "check")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in an empty folder."""
        program = shutil.which(words[0], path=str(self.bin)) or words[0]
        return subprocess.run(
            [program, *words[1:]],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )

    def say(self, *words: str) -> str:
        """Run a program that must succeed."""
        done = self.run(*words)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout


def try_programs(there: Environment) -> None:
    """Every program answers, or names the extra that it lacks in one line."""
    for program, needs in PROGRAMS.items():
        done = there.run(program, "--help")
        if needs in ("", there.extra):
            if done.returncode or "usage:" not in done.stdout:
                raise SystemExit(f"{program} --help: {done.returncode} {done.stderr}")
        elif done.returncode != 1 or done.stderr.count("\n") != 1 or needs not in done.stderr:
            raise SystemExit(f"{program} without its extra: {done.returncode} {done.stderr}")
    if there.extra == "gui":
        there.say("npe2", "validate", "napari-diffseg")
        there.say("python", "-c", "import napari_diffseg.gui.widget")
    else:
        done = there.run("napari-diffseg", "open", "--sample")
        if done.returncode != 1 or "napari-diffseg[gui]" not in done.stderr:
            raise SystemExit(f"open without napari: {done.returncode} {done.stderr}")


def try_job(there: Environment) -> float:
    """Segment the sample CT from four painted slices; return the mean Dice of the others."""
    copy = """
import shutil
from napari_diffseg.io import sample
shutil.copy(sample.sample_volume_path(), "ct.nii.gz")
shutil.copy(sample.sample_labels_path(), "painted.nii.gz")
shutil.copy(sample.sample_names_path(), "labels.json")
"""
    there.say("python", "-c", copy)
    there.say("napari-diffseg", "doctor")
    names = ("--names", "labels.json")
    there.say("napari-diffseg", "segment", "ct.nii.gz", "--labels", "painted.nii.gz", "--slices",
              SLICES, *names, "--seconds", "45", "-o", "mask.seg.nrrd", "--save-model",
              "model.safetensors")  # fmt: skip
    there.say("napari-diffseg", "predict", "--model", "model.safetensors", "ct.nii.gz", "-o", "out")
    figures = there.say("napari-diffseg", "evaluate", "mask.seg.nrrd", "painted.nii.gz", *names,
                        "--exclude-slices", SLICES, "--json")  # fmt: skip
    return float(json.loads(figures)["mean"]["dice"])


def main() -> None:
    """Try the wheel in the folder that is named."""
    (wheel,) = Path(sys.argv[1]).resolve().glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    for extra in ("", "gui", "training"):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            there = Environment(Path(folder) / "environment", wheel, extra)
            installed = time.perf_counter() - start
            try_programs(there)
            result = "programs answer"
            if not extra:
                dice = try_job(there)
                result += f"; sample job: mean Dice {dice:.3f}"
                if dice < LEAST_DICE:
                    raise SystemExit(f"the sample's mean Dice is {dice:.3f}, below {LEAST_DICE}")
        took = time.perf_counter() - start
        name = f"[{extra}]" if extra else "no extra"
        print(f"{name}: installed in {installed:.0f} s; {result}; {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
