"""What a run of training reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PretrainProgress:
    """Figures of a logged step.

    Attributes
    ----------
    step, steps
        Optimiser steps done and planned.
    loss
        Mean loss since the last progress.
    seconds
        Wall time of this process so far.
    remaining
        Expected wall time to the end.
    slices_per_second
        Over all processes, since the last progress.
    gflops
        Achieved 1e9 floating-point operations a second of this process, since the last progress.
    outside
        Share of wall time that was not forward, backward, optimiser and average.
    validation
        Loss by timestep where this step was validated, else ``None``.
    """

    step: int
    steps: int
    loss: float
    seconds: float
    remaining: float
    slices_per_second: float
    gflops: float
    outside: float
    validation: dict[int, float] | None = None


def mean_loss(validation: dict[int, float] | dict[str, float]) -> float:
    """Mean over the noise levels."""
    return sum(validation.values()) / len(validation)


def describe(progress: PretrainProgress) -> str:
    """One line of the log."""
    hours, minutes = divmod(round(progress.remaining / 60), 60)
    line = (
        f"step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
        f"{progress.slices_per_second:.1f} slices/s  {progress.gflops:.0f} GFLOP/s  "
        f"{100 * progress.outside:.1f} % outside the network  "
        f"{hours} h {minutes:02d} min left"
    )
    if progress.validation:
        levels = " ".join(f"{t}:{v:.4f}" for t, v in progress.validation.items())
        line += f"\n  validation {mean_loss(progress.validation):.4f} ({levels})"
    return line
