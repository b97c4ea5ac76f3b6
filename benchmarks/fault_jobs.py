"""All the work that processes are killed at: in sessions, exports, commands, pre-training."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from fault_sessions import (
    Paint,
    Predict,
    Save,
    Say,
    Train,
    main,
    nothing_half_written,
    nothing_hidden,
)
from fault_tools import need
from numpy.typing import NDArray
from pretrain_tools import SOURCES, TINY, write_ct
from session_tools import LIVER, SHAPE, block, tiny_backbone, tiny_volume

from diffseg_training import checkpoint
from diffseg_training.prepare import prepare
from diffseg_training.settings import PrepareSettings, PretrainSettings, Recipe
from diffseg_training.train import BEST, train
from napari_diffseg.io.volume import read_labels, write_mask, write_volume
from napari_diffseg.network.backbone import load_backbone, save_backbone
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session import Session, SliceState

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd")


class Export:
    """Export two masks by turns, in every format and over the earlier ones, with a report."""

    seconds, calls = 0.8, 250

    def masks(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        noise = np.random.default_rng(0).integers(0, 2, SHAPE, dtype=np.uint8)
        return np.repeat(block()[None], SHAPE[0], 0), noise

    def export(self, folder: Path, mask: NDArray[np.uint8]) -> None:
        session = Session(tiny_volume(), [LIVER], folder=False)
        for z, plane in enumerate(mask):
            session.paint.set_slice(z, plane, SliceState.PAINTED)
        for ending in ENDINGS:
            session.export_mask(folder / f"mask{ending}")
        session.export_report(folder / "report.json")

    def make(self, folder: Path, seed: int) -> None:
        self.export(folder, self.masks()[0])

    def work(self, folder: Path, seed: int, say: Say) -> None:
        for number in itertools.count(1):
            self.export(folder, self.masks()[number % 2])
            say()

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        nothing_half_written(folder)
        for ending in ENDINGS:
            path = folder / f"mask{ending}"
            if ending == ".mhd" and not path.exists():
                continue  # two files cannot be replaced in one step; a header that is there fits
            found = read_labels(path, tiny_volume().geometry).mask
            same = [np.array_equal(found, mask) for mask in self.masks()]
            need(any(same), f"{path.name} is neither of the two masks")
        self.export(folder, self.masks()[0])
        nothing_hidden(folder)


class Segment:
    """``napari-diffseg segment`` over earlier outputs."""

    seconds, calls = 1.2, 45

    def make(self, folder: Path, seed: int) -> None:
        volume = tiny_volume()
        write_volume(folder / "ct.nii.gz", volume)
        paint = np.zeros(SHAPE, np.uint8)
        paint[[1, 4]] = block()
        write_mask(folder / "painted.nii.gz", paint, volume.geometry, [LIVER])
        save_backbone(folder / "tiny.safetensors", tiny_backbone())
        need(main(self.words(folder)) == 0, "segment failed")

    def words(self, folder: Path) -> list[str]:
        """The command line."""
        return [
            *("segment", str(folder / "ct.nii.gz"), "--labels", str(folder / "painted.nii.gz")),
            *("--backbone", str(folder / "tiny.safetensors"), "--device", "cpu"),
            *("--iterations", "2", "-o", str(folder / "mask.seg.nrrd")),
            *("--save-model", str(folder / "model.safetensors")),
            *("--report", str(folder / "report.json")),
        ]

    def work(self, folder: Path, seed: int, say: Say) -> None:
        need(main(self.words(folder)) == 0, "segment failed")

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        nothing_half_written(folder)
        read_labels(folder / "mask.seg.nrrd", tiny_volume().geometry)
        Segmenter.load(folder / "model.safetensors")
        need(main(self.words(folder)) == 0, "segment fails after a kill")
        nothing_hidden(folder)


class Pretrain:
    """Pre-train a backbone, saving a checkpoint at every step."""

    seconds, calls = 0.8, 90
    steps = 12

    def make(self, folder: Path, seed: int) -> None:
        for patient in range(2):
            write_ct(folder / "ct" / f"patient{patient}-a.nii.gz", patient, slices=3)
        settings = PrepareSettings(grid=20, held_out=("patient1",), validation=0.0)
        list(prepare([folder / "ct"], folder / "store", settings, SOURCES))

    def recipe(self) -> Recipe:
        settings = PretrainSettings(
            iterations=self.steps, batch=2, hu=(-1000.0, 1000.0), log_every=1, validate_every=4,
            threads=1, validation_slices=2, device="cpu", save_minutes=0.0,
        )  # fmt: skip
        return Recipe("tiny", TINY, PrepareSettings(), settings)

    def work(self, folder: Path, seed: int, say: Say) -> None:
        for _ in train(self.recipe(), folder / "store", folder / "run"):
            say()

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        nothing_half_written(folder)
        path = folder / "run" / checkpoint.NAME
        # A step is reported before its checkpoint is written.
        need(path.exists() or sure < 2, "the checkpoint is lost")
        if path.exists():
            step = checkpoint.read(path)[0].step
            need(step >= sure - 1, f"of {sure} steps only {step} are left")
        for _ in train(self.recipe(), folder / "store", folder / "run"):
            pass
        need(checkpoint.read(path)[0].step == self.steps, "the run cannot be resumed")
        load_backbone(folder / "run" / BEST)
        nothing_hidden(folder)


class Prepare:
    """Prepare volumes for pre-training."""

    seconds, calls = 0.35, 75

    def make(self, folder: Path, seed: int) -> None:
        for patient in range(4):
            write_ct(folder / "ct" / f"patient{patient}-a.nii.gz", patient, slices=3)

    def run(self, folder: Path, say: Say) -> str:
        settings = PrepareSettings(grid=20, held_out=("patient1",), validation=0.0)
        for _ in prepare([folder / "ct"], folder / "store", settings, SOURCES):
            say()
        return (folder / "store" / "manifest.json").read_text()

    def work(self, folder: Path, seed: int, say: Say) -> None:
        self.run(folder, say)

    def check(self, folder: Path, seed: int, said: int, sure: int) -> None:
        nothing_half_written(folder)
        done = len(list((folder / "store" / "volumes").glob("*.json")))
        need(done >= sure, f"of {sure} volumes only {done} are left")
        need(self.run(folder, lambda: None) == _whole_manifest(), "the manifest differs")
        nothing_hidden(folder)


@lru_cache(1)
def _whole_manifest() -> str:
    folder = Path(tempfile.mkdtemp())
    try:
        job = Prepare()
        job.make(folder, 0)
        return job.run(folder, lambda: None)
    finally:
        shutil.rmtree(folder)


JOBS = {
    "paint": Paint(),
    "train": Train(),
    "segment": Segment(),
    "predict": Predict(),
    "save": Save(),
    "export": Export(),
    "pretrain": Pretrain(),
    "prepare": Prepare(),
}
