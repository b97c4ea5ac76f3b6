"""Settings of pre-training: frozen dataclasses and nothing else.

A setting is written once, here, with its help in the docstring; ``config`` reads them from TOML
and makes command-line options of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from napari_diffseg.io.errors import UserError
from napari_diffseg.network.unet import UNetConfig

Schedule = Literal["cosine", "linear", "cosine-beta"]


class PretrainError(UserError):
    """Pre-training cannot go on; the message names the file or setting and the fix."""


@dataclass(frozen=True)
class Source:
    """Where volumes come from.

    Attributes
    ----------
    pattern
        Regular expression that the start of the volume's path below its input folder must match.
        A group ``patient`` in it names the patient; without one, each volume is a patient.
    collection
        Name of the public collection, or of the hospital's project.
    licence
        Licence of the images.
    """

    pattern: str
    collection: str = "unnamed"
    licence: str = "unknown"


@dataclass(frozen=True)
class PrepareSettings:
    """How volumes become a store of slices.

    Attributes
    ----------
    grid
        Side of the stored square slices, in pixels.
    spacing
        Target spacing: ``native``, ``median`` (of the data), or millimetres as ``z,y,x``.
    validation
        Share of slices to hold out, by whole patients.
    held_out
        Patients that are held out in any case, before others are drawn.
    excluded
        Patients never to be used, because a benchmark tests on them.
    duplicate
        Root-mean-square difference, as a share of the HU window -1024 to 1000 at 16x16 pixels,
        below which two slices of different volumes are reported as near-duplicates.
    seed
        Seed of the split.
    workers
        Processes that read and resample volumes.
    dask
        Address of a Dask scheduler that does it instead; ``""`` for none.
    """

    grid: int = 256
    spacing: str = "native"
    validation: float = 0.05
    held_out: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    duplicate: float = 0.02
    seed: int = 0
    workers: int = 1
    dask: str = ""


@dataclass(frozen=True)
class PackSettings:
    """How a store becomes a few portable files.

    Attributes
    ----------
    grid
        Side of the packed slices in pixels; 0 keeps the store's.
    megabytes
        Largest size of one file, in MiB.
    """

    grid: int = 0
    megabytes: float = 16.0


@dataclass(frozen=True)
class PretrainSettings:
    """How the network is trained; the defaults are those of arXiv 2402.15216v2.

    Attributes
    ----------
    iterations
        Optimiser steps.
    batch
        Slices a step, over all processes and accumulated parts.
    accumulate
        Parts into which each process divides its share of the batch to save memory.
    learning_rate
        Learning rate of Adam at the first step.
    final_learning_rate
        Learning rate at the last step, reached linearly.
    warmup
        First steps of the run, over which the learning rate rises to its course; for large
        batches.
    ema
        Decay of the weights' moving average once it is warm.
    schedule
        Noise schedule.
    timestep_power
        Timesteps are drawn as 1000 u^power, u uniform: 1 as in the papers, above 1 more often
        where there is little noise.
    hu
        Knots of the intensity map in HU; none means the 0.5 and 99.5 percentiles of the store.
    value
        Network values at the knots.
    flip
        Flip half of the slices left to right.
    crop
        Range of the side of a random square crop, as a share of the stored slice; above 1 pads
        with air. ``1 1`` takes the slice as it is.
    rotate
        Largest angle in degrees by which a slice is turned at random; 0 turns none.
    stretch
        Largest ratio by which a slice is made wider or higher at random; 1 stretches none.
    gamma
        Largest exponent, or one over it, that network values between 0 and 1 are raised to at
        random: bodies look as after more or less contrast medium. 1 leaves them.
    clip
        Largest norm of the gradient; 0 leaves it alone.
    checkpointing
        Compute activations again in the backward pass to save memory.
    precision
        ``auto`` takes bfloat16 where the hardware has it.
    compile
        Compile the network with ``torch.compile``: minutes at the start, then faster steps.
    resident
        Keep all slices in the device's memory and cut, flip and noise them there; ``workers`` are
        not needed then.
    device
        ``auto``, ``cpu`` or ``cuda``.
    threads
        Threads of each process on the CPU; 0 leaves torch's choice.
    workers
        Processes that load slices ahead; 0 loads in the training process.
    seed
        Seed of weights, order, augmentation and noise.
    log_every
        Steps between lines of the log.
    save_minutes
        Minutes between checkpoints; 0 saves after every step.
    keep_every
        Steps between averaged networks that are kept for good, to see later what more training
        was worth; 0 keeps the best alone.
    validate_every
        Steps between validations.
    validation_slices
        Held-out slices that a validation uses.
    init_from
        Name or file of a backbone whose weights to start from.
    """

    iterations: int = 300_000
    batch: int = 32
    accumulate: int = 1
    learning_rate: float = 2e-4
    final_learning_rate: float = 2e-5
    warmup: int = 0
    ema: float = 0.9999
    schedule: Schedule = "cosine"
    timestep_power: float = 1.0
    hu: tuple[float, ...] = ()
    value: tuple[float, ...] = (-1.0, 1.0)
    flip: bool = True
    crop: tuple[float, ...] = (1.0, 1.0)
    rotate: float = 0.0
    stretch: float = 1.0
    gamma: float = 1.0
    clip: float = 0.0
    checkpointing: bool = False
    precision: Literal["auto", "float32"] = "auto"
    compile: bool = False
    resident: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    workers: int = 0
    seed: int = 0
    log_every: int = 50
    save_minutes: float = 10.0
    keep_every: int = 0
    validate_every: int = 5000
    validation_slices: int = 64
    init_from: str = ""


@dataclass(frozen=True)
class SampleSettings:
    """How slices are generated.

    Attributes
    ----------
    count
        Slices to generate.
    method
        ``ddpm`` is the ancestral sampler over all 1000 steps; ``ddim`` takes fewer.
    steps
        Steps of ``ddim``.
    eta
        Share of fresh noise of ``ddim``: 0 is deterministic, 1 as random as ``ddpm``.
    seed
        Seed; slice n of a seed is the same for any batch and device, up to rounding.
    batch
        Slices at a time.
    device
        ``auto``, ``cpu`` or ``cuda``.
    """

    count: int = 16
    method: Literal["ddpm", "ddim"] = "ddim"
    steps: int = 50
    eta: float = 0.0
    seed: int = 0
    batch: int = 8
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class EvaluateSettings:
    """How generated slices are compared with real ones.

    Attributes
    ----------
    extractor
        ``inception:FILE`` with weights that you have, or the name or file of a backbone.
    hu
        HU that become black and white for Inception; the papers' are the percentiles of the
        training data.
    count
        Slices to take of each set, evenly spaced; 0 takes all (the papers: 2,000).
    batch
        Slices at a time.
    device
        ``auto``, ``cpu`` or ``cuda``.
    """

    extractor: str = "starter"
    hu: tuple[float, ...] = (-1000.0, 1000.0)
    count: int = 0
    batch: int = 16
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class ReleaseSettings:
    """What is released.

    Attributes
    ----------
    name
        Name in the registry; letters, digits, ``-`` and ``_``.
    samples
        Generated slices on the card's grids; 0 for none.
    steps
        DDIM steps for them.
    data
        Folder that prepare wrote, to measure the released weights on its held-out slices; none
        means that the card has the losses of the training run alone.
    figures
        Few-shot figures for the card's table: a JSON list of rows, or JSON lines (``.jsonl``).
    megabytes
        Largest weight file.
    """

    name: str = "starter"
    samples: int = 16
    steps: int = 50
    data: str = ""
    figures: str = ""
    megabytes: float = 20.0


@dataclass(frozen=True)
class ConvertSettings:
    """What a file of foreign weights does not say.

    Attributes
    ----------
    hu
        Knots of the intensity map in HU that the network was trained with.
    value
        Network values at the knots.
    schedule
        Noise schedule.
    """

    hu: tuple[float, ...] = (-1000.0, 1000.0)
    value: tuple[float, ...] = (-1.0, 1.0)
    schedule: Schedule = "cosine"


@dataclass(frozen=True)
class Recipe:
    """One configuration file.

    Attributes
    ----------
    name
        Name of the backbone it makes.
    unet
        Shape of the network, table ``[unet]``.
    prepare
        Table ``[prepare]``.
    train
        Table ``[train]``.
    sources
        Tables ``[[sources]]``; the first whose pattern matches a volume is its source.
    """

    name: str
    unet: UNetConfig = field(default_factory=UNetConfig)
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    train: PretrainSettings = field(default_factory=PretrainSettings)
    sources: tuple[Source, ...] = ()
