"""The process that runs nnU-Net: ``python -m diffseg_training.benchmark.nnunet_process FOLDER``.

It stands alone so that nnU-Net's environment variables, worker processes and memory are its own.
Planning, preprocessing, network, loss, augmentation and training step are nnU-Net's; only the
loop is ours, because its epochs of 250 iterations are longer than most budgets here.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any


def train(request: dict[str, Any]) -> tuple[Any, dict[str, dict[str, float]]]:
    """Plan, preprocess and train; return the trainer, and seconds and steps of both stages."""
    import torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.run.run_training import get_trainer_from_args

    from diffseg_training.benchmark.supervised import share_left
    from diffseg_training.benchmark.tasks import LearningBudget

    began = time.perf_counter()
    torch.manual_seed(request["seed"])
    planning.extract_fingerprints([1], num_processes=1, check_dataset_integrity=True)
    plans = planning.plan_experiments([1])
    planning.preprocess([1], plans, configurations=("2d",), num_processes=(1,))
    cuda = torch.cuda.is_available() if request["device"] is None else request["device"] == "cuda"
    trainer = get_trainer_from_args(
        request["dataset"], "2d", "all", device=torch.device("cuda" if cuda else "cpu")
    )
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    trainer.network.train()
    budget = LearningBudget(request["seconds"], request["iterations"])
    steps, planned = 0, time.perf_counter() - began
    began += planned
    while (left := share_left(budget, steps, time.perf_counter() - began)) > 0:
        for group in trainer.optimizer.param_groups:
            # nnU-Net's own decay, step by step.
            group["lr"] = request["learning_rate_factor"] * trainer.initial_lr * left**0.9
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    trainer.on_train_end()
    trainer.set_deep_supervision_enabled(False)
    stages = {
        "planning": {"seconds": planned, "steps": 0},
        "training": {"seconds": time.perf_counter() - began, "steps": steps},
    }
    return trainer, stages


def predict(trainer: Any, folder: Path) -> None:
    """Predict every tested volume with nnU-Net's sliding window and mirroring."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network.eval(),
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    target = folder / "masks"
    target.mkdir()
    predictor.predict_from_files_sequential(str(folder / "test"), str(target))


def _about(plan: Any) -> str:
    pixels = " x ".join(str(side) for side in plan.patch_size)
    return f"nnunetv2 {version('nnunetv2')}, {pixels} pixels, batches of {plan.batch_size}"


def main() -> None:
    """Do what ``request.json`` in the folder asks, and write ``result.json``."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text())
    trainer, stages = train(request)
    predict(trainer, folder)
    result = {"stages": stages, "about": _about(trainer.configuration_manager)}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
