"""What the session of one patient is worth on the next one, before any paint.

    python benchmarks/next_patient.py A.nii.gz A-labels.nii.gz B.nii.gz B-labels.nii.gz \
        --names labels.json --iterations 600

Four slices of A, spread evenly over those that hold a label unless they are given, are painted
with the structures that both have. Mean Dice over all slices of B and these structures is printed
for the model of A's own training, and for the one that is learnt from what A's session keeps.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_diffseg.engine import TrainSettings
from napari_diffseg.engine.metrics import dice, mean_of
from napari_diffseg.io import Volume, read_labels, read_volume
from napari_diffseg.io.labels import labels_for, load_names
from napari_diffseg.session import Session, earlier_sessions, learn_from


def main() -> None:
    """Paint A, train, predict B."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs=4, type=Path, metavar="FILE")
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--painted", type=int, nargs="+", help="slices of A; default: four")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    volume, other = read_volume(options.files[0]), read_volume(options.files[2])
    truth = read_labels(options.files[1], volume.geometry).mask
    reference = read_labels(options.files[3], other.geometry).mask
    shared = sorted((set(np.unique(truth)) & set(np.unique(reference))) - {0})
    labels = labels_for([int(n) for n in shared], (), load_names(options.names))
    truth = np.where(np.isin(truth, shared), truth, 0).astype(np.uint8)
    holding = np.flatnonzero(truth.any(axis=(1, 2)))
    even = holding[(np.array([1, 3, 5, 7]) / 8 * len(holding)).astype(int)].tolist()
    painted = options.painted or even
    settings = TrainSettings(iterations=options.iterations, seed=options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        began = time.monotonic()
        with Session(volume, labels, folder=root / "sessions") as session:
            for z in painted:
                session.paint.set_slice(z, truth[z])
            for _ in session.trainer.train(settings):
                pass
            for _ in session.trainer.predict():
                pass
            session.trainer.save_model(root / "session.safetensors")
        seconds = {"session": time.monotonic() - began}
        began = time.monotonic()
        for _ in learn_from(
            earlier_sessions(root / "sessions"), root / "kept.safetensors", settings
        ):
            pass
        seconds["kept"] = time.monotonic() - began
        for model in ("session", "kept"):
            found = _predicted(other, root / f"{model}.safetensors")
            quality = dice(found, reference, [label.id for label in labels])
            names = {label.id: label.name for label in labels}
            row = {
                "from": volume.name,
                "to": other.name,
                "model": model,
                "slices": painted,
                "iterations": options.iterations,
                "seed": options.seed,
                "mean_dice": round(mean_of(quality.values()), 4),
                "dice": {names[n]: round(value, 4) for n, value in quality.items()},
                "training_seconds": round(seconds[model], 1),
            }
            print(json.dumps(row), flush=True)


def _predicted(volume: Volume, model: Path) -> np.ndarray:
    with Session(volume, folder=False) as session:
        session.trainer.load_model(model)
        for _ in session.trainer.predict():
            pass
        return session.prediction.mask


if __name__ == "__main__":
    main()
