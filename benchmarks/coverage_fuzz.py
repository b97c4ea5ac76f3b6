"""Fuzz our own parsers, guided by the lines that they reach.

    pip install atheris
    python benchmarks/coverage_fuzz.py nrrd -max_total_time=60

Targets: ``journal``, ``names``, ``nrrd``, ``metaimage``, ``nifti``, ``arrays``, ``model``. Anything
but a plain refusal ends the run with the input that caused it. ``faults_files.py`` judges time,
memory and the folder outside as well; this finds what takes many steps to reach.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("src", "training", "models"))]

import torch  # noqa: E402, F401

with atheris.instrument_imports(include=["napari_diffseg", "nrrd"]):
    import fault_seeds

    from napari_diffseg.io import load_names, read_labels, read_volume
    from napari_diffseg.io.errors import UserError
    from napari_diffseg.network.segmenter import Segmenter
    from napari_diffseg.session.arrays import read_arrays
    from napari_diffseg.session.journal import decode


def _file(name: str, *doors: Callable[[Path], object]) -> Callable[[bytes], None]:
    folder = Path(tempfile.mkdtemp())

    def run(data: bytes) -> None:
        (folder / name).write_bytes(data)
        for door in doors:
            with suppress(UserError):
                door(folder / name)

    return run


def _arrays(data: bytes) -> None:
    with suppress(ValueError):
        read_arrays(io.BytesIO(data), ("slices", "mask", "confidence"), 1 << 20)


TARGETS: dict[str, tuple[str, Callable[[bytes], None]]] = {
    "journal": ("sessions/*/*/journal", lambda data: list(decode(data)) and None),
    "names": ("names.json", _file("names.json", load_names)),
    "nrrd": ("mask.seg.nrrd", _file("a.seg.nrrd", read_volume, read_labels)),
    "metaimage": ("ct.mha", _file("a.mha", read_volume)),
    "nifti": ("ct.nii", _file("a.nii", read_volume)),
    "arrays": ("sessions/*/*/round-0001.npz", _arrays),
    "model": ("model.safetensors", _file("a.safetensors", Segmenter.load)),
}

if __name__ == "__main__":
    seeds, run = TARGETS[sys.argv.pop(1)]
    good = Path(tempfile.mkdtemp())
    fault_seeds.make(good)
    corpus = Path(tempfile.mkdtemp())
    for path in good.glob(seeds):
        (corpus / "seed").write_bytes(path.read_bytes())
    atheris.Setup([*sys.argv, "-rss_limit_mb=3000", "-timeout=10", str(corpus)], run)
    atheris.Fuzz()
