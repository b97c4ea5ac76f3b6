"""Settings of a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.network.segmenter import Strategy


@dataclass(frozen=True)
class TrainSettings:
    """How to train; forms and command-line options are made from these fields.

    Without ``seconds`` and ``iterations``, training goes on until it is finished by hand.
    """

    strategy: Strategy = field(
        default="linear",
        metadata={"help": "what is trained: head only, decoder and head, or all from scratch"},
    )
    recipe: Literal["app", "paper"] = field(
        default="app", metadata={"help": "the app's recipe, or the papers'"}
    )
    timestep: int | None = field(
        default=None,
        metadata={
            "help": "diffusion timestep at which the network sees the image; "
            "default: the recipe's (app 100, paper 0)"
        },
    )
    seconds: float | None = field(
        default=60.0, metadata={"help": "time budget; not used when iterations are given"}
    )
    iterations: int | None = field(default=None, metadata={"help": "optimiser steps"})
    seed: int = field(default=0, metadata={"help": "random seed"})
    device: Literal["auto", "cpu", "cuda", "mps"] = field(
        default="auto", metadata={"help": "where to run"}
    )
    grid: int | None = field(
        default=None,
        metadata={
            "help": "model grid points across the body; default: the backbone's, and with the "
            "app's recipe half as many again on a fast machine"
        },
    )

    def __post_init__(self) -> None:
        if self.timestep is not None and not 0 <= self.timestep <= 1000:
            raise TrainError(f"timestep {self.timestep} is outside 0 to 1000")
        if self.grid is not None and not 32 <= self.grid <= 1024:
            raise TrainError(f"grid {self.grid} is outside 32 to 1024")
        if self.iterations is not None and self.iterations < 1:
            raise TrainError("iterations must be at least 1")
        seconds = self.seconds if self.iterations is None else None
        if seconds is not None and not 0 < seconds < float("inf"):
            raise TrainError("give a time budget above 0 s, or a number of iterations")
