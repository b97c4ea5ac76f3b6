"""The jobs of ``gpu.py``, each of which writes JSON lines; see there."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from gpu_segment import app, rival, rivals, tell

ROOT = Path(__file__).parents[1]
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bfloat16 operations a second that makers state, by a part of the card's name."""

_ending = threading.Event()  # set when the job is asked to end
_running: list[Any] = []  # the trainer that is to save then
_SAVING = 15.0  # s of the limit that pre-training keeps for its checkpoint
_PROBE = (60.0, 150.0)  # s at most of training as it is, and compiled
_INTERVALS = 8  # of the log, which a probe measures
_RATES = "rates.json"


def machine() -> dict[str, Any]:
    """Name, memory, stated and measured bfloat16 peak of the card."""
    import torch

    from diffseg_training.cost import best_matmul
    from napari_diffseg.network.device import native_bf16, pick_device

    device = pick_device()
    kind = torch.bfloat16 if native_bf16(device) else torch.float32
    found: dict[str, Any] = {"torch": torch.__version__, "product": best_matmul(device, kind, 0.5)}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {"card": about.name, "gigabytes": round(about.total_memory / 1e9, 1)}
        found["peak"] = next((peak for key, peak in PEAKS.items() if key in about.name), None)
    return found


def shares(flops: float, known: dict[str, Any]) -> dict[str, float]:
    """A rate of operations, and its share of the measured product and of the stated peak."""
    found = {"tflops": flops / 1e12, "share_of_product": flops / known["product"]}
    if known.get("peak"):
        found["share_of_peak"] = flops / known["peak"]
    return {name: round(value, 4) for name, value in found.items()}


def gigabytes() -> float:
    """Peak memory of the card (of the process without one) since the last reset."""
    from diffseg_training.cost import peak_memory
    from napari_diffseg.network.device import pick_device

    return round(peak_memory(pick_device()) / 1e9, 2)


def tests(options: argparse.Namespace) -> None:
    """Tests marked ``gpu``, of the files that have any."""
    paths = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in p.read_text()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-o", "addopts=", "-o", "timeout=",
         "-p", "no:cacheprovider", "-W", "ignore", "-rA", *map(str, paths)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    kinds = ("FAILED", "ERROR", "SKIPPED", "PASSED")
    told = [line.split("/")[-1] for line in lines if line.startswith(kinds)]
    if done.returncode:
        tell(status="running", output=(done.stdout + done.stderr)[-3000:])
    status = "failed" if done.returncode else "done"
    tell(status=status, exit=done.returncode, summary=lines[-1:], tests=told[-40:])


def speed(options: argparse.Namespace) -> None:
    """Train the starter for moments, as it is and compiled: slices a second of each."""
    known, recipe = machine(), _recipe(options)
    tell(status="running", **known)
    rates = _measured_rates(options)
    flops = network_cost_of_a_step(recipe)
    for kind, rate in rates.items():
        tell(status="running", compiled=kind, slices_per_second=round(rate, 1),
             **shares(rate * flops, known))  # fmt: skip
    tell(status="done", batch=recipe.train.batch)


def network_cost_of_a_step(recipe: Any) -> float:
    """Operations of a step's forward and backward pass for one slice."""
    from diffseg_training.cost import network_cost

    return network_cost(recipe.unet).step


def _weights(recipe: Any) -> int:
    from diffseg_training.cost import network_cost

    return network_cost(recipe.unet).parameters


def _measured_rates(options: argparse.Namespace) -> dict[bool, float]:
    """Slices a second as it is and compiled, each in a process that can be ended.

    A compiler may take longer than all the time there is; what it makes is kept for the next one.
    """
    rates = {False: 0.0, True: 0.0}
    for compiled, usual in zip(rates, _PROBE, strict=True):
        seconds = 8.0 if options.rehearse else usual
        command = [sys.executable, __file__, "probe", "--seconds", str(seconds)]
        command += ["--data", str(options.data), "--work", str(options.work)]
        command += ["--batch", str(options.batch), "--init-from", options.init_from]
        command += ["--widths", options.widths] if options.widths else []
        command += ["--compiled"] if compiled else []
        command += ["--rehearse"] if options.rehearse else []
        what = {"status": "running", "compiled": compiled}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20)
        except subprocess.TimeoutExpired:
            tell(**what, failed=f"not within {seconds:g} s")
            continue
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if told:
            rates[compiled] = median(told[-1]["speeds"][1:] or [0.0])
        else:
            tell(**what, failed=done.stderr.strip().splitlines()[-3:])
    (options.work / _RATES).write_text(json.dumps([rates[False], rates[True]]))
    return rates


def probe(options: argparse.Namespace) -> None:
    """Part of :func:`speed`: train for a while and throw it away."""
    recipe = _recipe(options)
    recipe = replace(recipe, train=replace(recipe.train, compile=options.compiled))
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        speeds = _train(recipe, options.data, Path(folder), options.seconds, _INTERVALS)
    tell(status="done", weights=_weights(recipe), speeds=[round(speed, 1) for speed in speeds])


def pretrain(options: argparse.Namespace) -> None:
    """Pre-train the starter until the time is up, compiled where :func:`speed` found it faster."""
    signal.signal(signal.SIGTERM, _end)
    until = time.perf_counter() + options.seconds - _SAVING
    rates, known, run = options.work / _RATES, machine(), options.work / "run"
    tell(status="running", **known)
    if rates.exists():
        eager, compiled = json.loads(rates.read_text())
    else:
        eager, compiled = _measured_rates(options).values()
    recipe, best = _recipe(options), compiled > eager
    batch, flops = recipe.train.batch, network_cost_of_a_step(recipe)
    left = until - time.perf_counter()
    # The learning rate shall end with the time, of which start and compiler take some.
    more = max(1, int(0.95 * (left - 20) * max(eager, compiled, 0.1) / batch))
    done = _header(run).step if (run / "checkpoint.safetensors").exists() else 0
    settings = replace(
        recipe.train, compile=best, iterations=done + more, keep_every=max(1, more // 8)
    )
    tell(
        status="running", weights=_weights(recipe), compiled=best, steps=more,
        learning_rate=settings.learning_rate,
    )  # fmt: skip
    found = _train(replace(recipe, train=settings), options.data, run, left)
    rate = median(found[1:] or [0.0])
    header = _header(run)
    history, validated = header.history["train"], header.history["validation"]
    tell(
        status="done", compiled=best, steps=header.step, slices=header.step * batch, batch=batch,
        learning_rate=settings.learning_rate, slices_per_second=round(rate, 1),
        gigabytes=gigabytes(), losses=history[:: max(1, len(history) // 40)],
        validation=[[at, sum(v.values()) / len(v)] for at, v in validated], by_level=validated[-1:],
        **shares(rate * flops, known),
    )  # fmt: skip


def _recipe(options: argparse.Namespace) -> Any:
    """Give the starter, or one of other widths, with a large batch that stays on the device."""
    from diffseg_training.config import load_recipe

    recipe = load_recipe("starter")
    start = options.init_from
    if options.widths:  # whose weights begin at random
        widths, start = tuple(int(width) for width in options.widths.split(",")), ""
        recipe = replace(recipe, unet=replace(recipe.unet, widths=widths))
    batch = 2 if options.rehearse else options.batch
    # Adam's learning rate grows with the root of the batch, from 8 slices; more than 1e-3 diverges.
    top = min(1e-3, recipe.train.learning_rate * (batch / recipe.train.batch) ** 0.5)
    settings = replace(
        recipe.train, batch=batch, resident=True, workers=0, learning_rate=top,
        final_learning_rate=top / 20, warmup=100, iterations=10**7, log_every=10, keep_every=0,
        save_minutes=2.0, validate_every=250, validation_slices=128, init_from=start,
    )  # fmt: skip
    if options.rehearse:
        settings = replace(settings, log_every=1, validate_every=5, validation_slices=1)
    return replace(recipe, train=settings)


def _train(
    recipe: Any, data: Path, run: Path, seconds: float, intervals: int = 10**9
) -> list[float]:
    """Train for a time; slices a second of every log interval without a validation."""
    from diffseg_training.train import Pretrainer

    began, speeds = time.perf_counter(), list[float]()
    run.mkdir(parents=True, exist_ok=True)
    trainer = Pretrainer(recipe, data, run)
    _running.append(trainer)
    if _ending.is_set():
        return speeds
    for progress in trainer.run():
        if not progress.validation:
            speeds.append(progress.slices_per_second)
        if time.perf_counter() - began > seconds or len(speeds) >= intervals:
            trainer.stop()
    return speeds


def _end(*_: object) -> None:
    """Save after the step that is running, and train no more."""
    _ending.set()
    for trainer in _running:
        trainer.stop()


def _header(run: Path) -> Any:
    from diffseg_training import checkpoint

    return checkpoint.read(run / checkpoint.NAME)[0]


def pieces(options: argparse.Namespace) -> None:
    """Cut the checkpoint into pieces and put some of them where they are taken home from."""
    from diffseg_training import checkpoint
    from diffseg_training.pieces import split

    path, folder = options.work / "run" / checkpoint.NAME, options.work / "pieces"
    files = sorted(folder.glob("*.piece"))
    if not files or files[0].stat().st_mtime < path.stat().st_mtime:
        files = split(path, folder, 15.9)
    first, last = (int(part) for part in options.pieces.split("-"))
    for file in files[first - 1 : last]:
        shutil.copy(file, options.out / file.name)
    sizes = [round(file.stat().st_size / 2**20, 2) for file in files]
    tell(status="done", pieces=len(files), mebibytes=sizes, taken=[first, min(last, len(files))])


def unet_b(options: argparse.Namespace) -> None:
    """Real steps of ``unet-b`` at 256: slices a second, memory and share of the peak."""
    import torch

    from diffseg_training.config import load_recipe
    from diffseg_training.cost import network_cost

    known, recipe = machine(), load_recipe("unet-b")
    until = time.perf_counter() + options.seconds - 10
    if options.rehearse:
        small = replace(recipe.unet, image_size=32, widths=(16, 16, 32))
        recipe = replace(recipe, unet=small)
    cost = network_cost(recipe.unet)
    micros = (1, 2) if options.rehearse else (8, 16, 32)

    def measured(micro: int, seconds: float, compiled: bool) -> None:
        what = {"status": "running", "micro": micro, "compiled": compiled}
        try:
            rate, memory = _timed_steps(recipe, micro, seconds, compiled)
        except Exception as error:  # no memory, no compiler
            words = str(error).strip().splitlines()[:1]
            tell(**what, failed=f"{type(error).__name__}: {words}")
            torch.cuda.empty_cache()
            return
        tell(
            **what, slices_per_second=round(rate, 2), gigabytes=memory,
            computed_gigabytes=round(cost.memory(micro, True) / 1e9, 2),
            **shares(rate * cost.step, known),
        )  # fmt: skip

    for micro in micros:
        if (left := until - time.perf_counter()) > 0:
            measured(micro, min(10.0, left / 2), False)
    tell(status="done", parameters=cost.parameters, **known)
    if not options.rehearse:  # may take longer than there is time
        measured(micros[1], 10.0, True)


def _timed_steps(recipe: Any, micro: int, seconds: float, compiled: bool) -> tuple[float, float]:
    """Slices a second of whole optimiser steps on random images, and peak memory in GB."""
    import torch

    from diffseg_training.cost import synchronize
    from diffseg_training.diffusion import STEPS, add_noise, signal_levels
    from napari_diffseg.network.device import autocast, native_bf16, pick_device
    from napari_diffseg.network.unet import UNet

    device = pick_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    net = UNet(recipe.unet).to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = [parameter.detach().clone() for parameter in net.parameters()]
    model: Any = torch.compile(net) if compiled else net
    optimiser = torch.optim.Adam(net.parameters(), 1e-4, fused=True)
    levels = signal_levels("cosine").to(device)
    side, began, times = recipe.unet.image_size, time.perf_counter(), list[float]()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        synchronize(device)
        start = time.perf_counter()
        image = torch.rand(micro, 1, side, side, device=device).mul(2).sub(1)
        t, noise = torch.randint(STEPS, (micro,), device=device), torch.randn_like(image)
        with autocast(device) if native_bf16(device) else nullcontext():
            predicted = model(add_noise(image, noise, t, levels), t)
        (predicted.float() - noise).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        torch._foreach_lerp_(average, list(net.parameters()), 1e-4)
        synchronize(device)
        times.append(time.perf_counter() - start)
        if len(times) > 30:
            break
    return micro / median(times[1:]), gigabytes()


def needed(names: str) -> list[str]:
    """Modules that are not there."""
    return [name for name in names.split(",") if name and importlib.util.find_spec(name) is None]


def main() -> int:
    """Run one job."""
    jobs: dict[str, Callable[[argparse.Namespace], None]] = {
        "tests": tests,
        "speed": speed,
        "pretrain": pretrain,
        "probe": probe,
        "pieces": pieces,
        "unet-b": unet_b,
        "app": app,
        "rivals": rivals,
        "rival": rival,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=list(jobs))
    for name in ("out", "work", "data", "labelled"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("needs", "pieces", "init-from", "widths", "method"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if missing := needed(options.needs):
        tell(status="lacking", missing=missing)
        return 0
    if options.job in ("speed", "pretrain") and options.data is None:
        tell(status="lacking", missing=["--data"])
        return 0
    jobs[options.job](options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
