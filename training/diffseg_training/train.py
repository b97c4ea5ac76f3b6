"""Pre-train a denoising U-Net on prepared slices, on one CPU or many GPUs.

Started by ``torchrun``, each process takes its share of every batch (DDP over NCCL or Gloo) and
the first one writes. Nothing depends on how many there are but the order of summation.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint as recompute
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from diffseg_training import checkpoint
from diffseg_training.checkpoint import Header
from diffseg_training.cost import network_cost
from diffseg_training.data import Draw, Draws, Shard
from diffseg_training.diffusion import add_noise, signal_levels
from diffseg_training.memory import keep_freed_memory
from diffseg_training.pack import open_store
from diffseg_training.progress import PretrainProgress, mean_loss
from diffseg_training.resident import ResidentDraws
from diffseg_training.settings import PretrainError, PretrainSettings, Recipe
from diffseg_training.start import intensity_of, origin, summary
from diffseg_training.validate import validate, validation_images
from napari_diffseg.io.files import make_folder
from napari_diffseg.network.backbone import Backbone, load_backbone, save_backbone
from napari_diffseg.network.device import autocast, native_bf16, pick_device
from napari_diffseg.network.unet import Stage, UNet

BEST = "best.safetensors"


class Pretrainer:
    """One run of pre-training, resumed where ``out`` holds a checkpoint.

    Parameters
    ----------
    recipe
        Network and settings.
    data
        Folder of the prepared slices.
    out
        Folder for checkpoints, logs and the best network.

    Raises
    ------
    PretrainError
        If the settings do not fit each other, the data or the checkpoint.
    """

    def __init__(self, recipe: Recipe, data: Path, out: Path) -> None:
        self.recipe, self.out, self.settings = recipe, out, recipe.train
        self.stopped = False
        settings = recipe.train
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.device, self.rank, self.world = _join(settings)
        if self.device.type == "cpu":
            keep_freed_memory()
        else:
            torch.backends.cudnn.benchmark = True  # all batches have one shape
        if settings.batch % (self.world * settings.accumulate):
            raise PretrainError(
                f"batch {settings.batch} is not a multiple of {self.world} processes x "
                f"{settings.accumulate} accumulated parts"
            )
        store = open_store(data)
        slices, held = store.slices("train"), store.slices("validation")
        if not len(slices) or not len(held):
            raise PretrainError(
                f"{data}: {len(slices)} slices to train on and {len(held)} to validate with; "
                "prepare with another --validation, or name a patient with --held-out"
            )
        start = load_backbone(settings.init_from) if settings.init_from else None
        torch.manual_seed(settings.seed)
        self.net = UNet(recipe.unet)
        if start is not None:
            if start.unet.config != recipe.unet:
                raise PretrainError(
                    f"init_from {settings.init_from}: its network differs from the recipe's"
                )
            self.net.load_state_dict(start.unet.state_dict())
        self.net.to(self.device)
        self.layout = torch.contiguous_format
        if native_bf16(self.device) and settings.precision == "auto":
            self.layout = torch.channels_last  # where low-precision convolutions are fastest
        self.net.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.ema = AveragedModel(self.net, multi_avg_fn=partial(_average, settings.ema))
        self.optimiser = torch.optim.Adam(self.net.parameters(), settings.learning_rate, fused=True)
        self.header = Header(
            name=recipe.name,
            step=0,
            seconds=0.0,
            unet=recipe.unet,
            settings=settings,
            intensity=intensity_of(settings, store, start),
            data=summary(store),
            history={"train": [], "validation": []},
            start=origin(start),
        )
        self._resume()
        if settings.checkpointing:
            _recompute_stages(self.net)
        self.model: nn.Module = self.net
        if settings.compile:
            self.model = torch.compile(self.net)  # type: ignore[assignment]
        if self.world > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.model, device_ids=ids)
        self.levels = signal_levels(settings.schedule).to(self.device)
        size = recipe.unet.image_size
        self.draws: Draws | ResidentDraws = (
            ResidentDraws(slices, self.header.intensity, size, settings, self.device)
            if settings.resident
            else Draws(slices, self.header.intensity, size, settings)
        )
        self.held = validation_images(
            held, self.header.intensity, size, settings.validation_slices
        ).to(self.device)
        self.flops = network_cost(recipe.unet).step * settings.batch // self.world

    def _resume(self) -> None:
        path = self.out / checkpoint.NAME
        if not path.exists():
            return
        header, tensors = checkpoint.read(path)
        if header.unet != self.recipe.unet:
            raise PretrainError(f"{path}: of another network; choose another folder")
        checkpoint.restore(tensors, self.net, self.ema, self.optimiser)
        self.header = replace(header, settings=self.settings, data=self.header.data)

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def stop(self) -> None:
        """Ask the run to save and end after the current step."""
        self.stopped = True

    def run(self) -> Iterator[PretrainProgress]:
        """Train to the last iteration, yielding at every logged or validated step."""
        settings, header = self.settings, self.header
        first, steps = header.step, settings.iterations
        logs = str(self.out / "tensorboard")
        writer = SummaryWriter(logs, purge_step=first) if self.leads else None
        batches = self._batches(first, steps)
        begun = logged = saved = time.perf_counter()
        since, inside, losses = first, 0.0, torch.zeros((), device=self.device)
        for step in range(first + 1, steps + 1):
            lr = learning_rate(step - 1, settings)
            loss, spent = self._step(batches, lr)
            losses += loss
            inside += spent
            validated = None
            if step % settings.validate_every == 0 or step == steps:
                validated = self._validate()
            now = time.perf_counter()
            self.header = replace(self.header, step=step, seconds=header.seconds + now - begun)
            due = now - saved >= 60 * settings.save_minutes
            last = self._agreed(step == steps or self.stopped)
            if validated or step % settings.log_every == 0 or last:
                mean = float(self._mean(losses)) / (step - since)
                now = time.perf_counter()
                wall, done = now - logged, step - since
                progress = PretrainProgress(
                    step=step,
                    steps=steps,
                    loss=mean,
                    seconds=now - begun,
                    remaining=(now - begun) / (step - first) * (steps - step),
                    slices_per_second=done * settings.batch / wall,
                    gflops=done * self.flops / wall / 1e9,
                    outside=max(0.0, 1 - inside / wall),
                    validation=validated,
                )
                if writer:
                    self._record(progress, lr, writer)
                logged, since, inside = now, step, 0.0
                losses.zero_()
                yield progress
            if self._agreed(due) or last:
                self._save(validated)
                saved = time.perf_counter()
            elif validated:
                self._keep_best(validated)
            if self.leads and settings.keep_every and step % settings.keep_every == 0:
                save_backbone(self.out / f"step-{step}.safetensors", self._backbone())
            if last:
                break
        if writer:
            writer.close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _batches(self, first: int, last: int) -> Iterator[Draw]:
        """Micro-batches of this process, on its device."""
        settings, draws = self.settings, self.draws
        if isinstance(draws, ResidentDraws):
            for step in range(first, last):
                yield from draws.parts(step, self.rank, self.world)
            return
        loader = DataLoader(
            draws,
            batch_sampler=Shard(settings, first, last, self.rank, self.world),
            num_workers=settings.workers,
            pin_memory=self.device.type == "cuda",
            persistent_workers=settings.workers > 0,
        )
        for draw in loader:
            yield Draw(*(tensor.to(self.device, non_blocking=True) for tensor in draw))

    def _step(self, batches: Iterator[Draw], lr: float) -> tuple[Tensor, float]:
        """Do one optimiser step; return its mean loss and the seconds spent in the network."""
        settings, total = self.settings, torch.zeros((), device=self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad()
        spent = 0.0
        for part in range(settings.accumulate):
            image, t, noise = next(batches)
            image = image.contiguous(memory_format=self.layout)
            begun = time.perf_counter()
            with self._unsynchronised(part < settings.accumulate - 1):
                with self._precision():
                    predicted = self.model(add_noise(image, noise, t, self.levels), t)
                loss = (predicted.float() - noise).square().mean() / settings.accumulate
                loss.backward()
            total += loss.detach()
            spent += time.perf_counter() - begun
        begun = time.perf_counter()
        if settings.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip)
        self.optimiser.step()
        self.ema.update_parameters(self.net)
        return total, spent + time.perf_counter() - begun

    def _precision(self) -> AbstractContextManager[None]:
        return nullcontext() if self.settings.precision == "float32" else autocast(self.device)

    def _unsynchronised(self, wanted: bool) -> AbstractContextManager[None]:
        if wanted and isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def _mean(self, value: Tensor) -> Tensor:
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.world
        return value

    def _agreed(self, wanted: bool) -> bool:
        """Whether any process wants it: clocks and signals differ between processes."""
        if self.world == 1:
            return wanted
        vote = torch.tensor(float(wanted), device=self.device)
        dist.all_reduce(vote, dist.ReduceOp.MAX)
        return bool(vote)

    def _validate(self) -> dict[int, float]:
        """Loss by timestep; every process measures it, so that none waits at a barrier."""

        def predict(x: Tensor, t: Tensor) -> Tensor:
            with self._precision():
                noise: Tensor = self.ema.module(x, t)
            return noise

        return validate(predict, self.held, self.levels, max(1, self.settings.batch // 2))

    def _record(self, progress: PretrainProgress, lr: float, writer: SummaryWriter) -> None:
        history = self.header.history
        history["train"].append([progress.step, progress.loss])
        for name, value in (
            ("loss/train", progress.loss),
            ("learning rate", lr),
            ("speed/slices a second", progress.slices_per_second),
            ("speed/GFLOP a second", progress.gflops),
            ("speed/share outside the network", progress.outside),
        ):
            writer.add_scalar(name, value, progress.step)
        if progress.validation:
            history["validation"].append([progress.step, progress.validation])
            for t, value in progress.validation.items():
                writer.add_scalar(f"validation/t={t}", value, progress.step)
            writer.add_scalar("loss/validation", mean_loss(progress.validation), progress.step)
        writer.flush()

    def _backbone(self) -> Backbone:
        """The averaged network so far."""
        averaged, header = self.ema.module, self.header
        assert isinstance(averaged, UNet)
        card = {"training": header.to_json()}
        return Backbone(header.name, averaged, header.intensity, self.settings.schedule, card)

    def _save(self, validated: dict[int, float] | None) -> None:
        if self.leads:
            path = self.out / checkpoint.NAME
            checkpoint.save(path, self.header, self.net, self.ema, self.optimiser)
        if validated:
            self._keep_best(validated)

    def _keep_best(self, validated: dict[int, float]) -> None:
        earlier = [mean_loss(v) for s, v in self.header.history["validation"][:-1]]
        if not self.leads or (earlier and mean_loss(validated) >= min(earlier)):
            return
        save_backbone(self.out / BEST, self._backbone(), torch.float32)


def train(recipe: Recipe, data: Path, out: Path) -> Iterator[PretrainProgress]:
    """Train a recipe to its last iteration; see :class:`Pretrainer`."""
    make_folder(out)
    yield from Pretrainer(recipe, data, out).run()


def learning_rate(step: int, settings: PretrainSettings) -> float:
    """Learning rate of a step (from 0), falling linearly to the last step after a warm-up."""
    share = step / max(1, settings.iterations - 1)
    course = settings.learning_rate + share * (
        settings.final_learning_rate - settings.learning_rate
    )
    return course * min(1.0, (step + 1) / (settings.warmup + 1))


def _average(
    decay: float, averages: list[Tensor], values: list[Tensor], updates: Tensor | int
) -> None:
    """Exponential moving average whose memory grows to ``decay`` as updates come in."""
    count = float(updates)
    torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + count) / (10 + count)))


def _recompute_stages(net: UNet) -> None:
    for stage in net.modules():
        if isinstance(stage, Stage):
            stage.forward = partial(  # type: ignore[method-assign]
                recompute, stage.forward, use_reentrant=False
            )


def _join(settings: PretrainSettings) -> tuple[torch.device, int, int]:
    """Device, rank and number of processes; joins the group where torchrun started several."""
    device = pick_device(settings.device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device, int(os.environ.get("RANK", "0")), world
