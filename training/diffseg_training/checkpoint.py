"""Checkpoints of training: one safetensors file with everything that resuming needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from diffseg_training.config import as_json
from diffseg_training.settings import PretrainError, PretrainSettings
from napari_diffseg.io.typed import from_json
from napari_diffseg.network.backbone import (
    Backbone,
    BackboneError,
    Intensity,
    read_tensors,
    write_tensors,
)
from napari_diffseg.network.unet import UNet, UNetConfig

_KEY = "diffseg-checkpoint"
NAME = "checkpoint.safetensors"


@dataclass(frozen=True)
class Header:
    """The JSON part of a checkpoint.

    Attributes
    ----------
    name
        Name of the recipe.
    step
        Optimiser steps done.
    seconds
        Wall time spent on them.
    unet, settings
        Shape of the network, and settings of the run.
    intensity
        HU to network values.
    data
        Summary of the training data: volumes, slices, patients, collections, statistics.
    history
        Training loss ``[step, loss]`` and validation losses ``[step, {timestep: loss}]``.
    start
        What the run started from: ``random`` or a backbone with its steps.
    """

    name: str
    step: int
    seconds: float
    unet: UNetConfig
    settings: PretrainSettings
    intensity: Intensity
    data: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[Any]] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **{
                k: getattr(self, k) for k in ("name", "step", "seconds", "data", "history", "start")
            },
            **{k: as_json(getattr(self, k)) for k in ("unet", "settings", "intensity")},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Header:
        """From :meth:`to_json`'s values."""
        kinds = {"unet": UNetConfig, "settings": PretrainSettings, "intensity": Intensity}
        made: dict[str, Any] = {k: from_json(kind, values[k]) for k, kind in kinds.items()}
        return cls(**{**values, **made})


def save(
    path: Path, header: Header, net: nn.Module, ema: AveragedModel, optimiser: torch.optim.Adam
) -> None:
    """Write a checkpoint; the one that is there stays until the new one is whole."""
    tensors = {f"model.{k}": v for k, v in net.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
    for parameter, state in optimiser.state.items():
        for key, value in state.items():
            tensors[f"adam.{names[parameter]}.{key}"] = value
    write_tensors(path, tensors, _KEY, header.to_json())


def read(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Read a checkpoint.

    Raises
    ------
    PretrainError
        If it is not one, or is damaged.
    """
    try:
        tensors, values = read_tensors(path, _KEY)
        return Header.from_json(values), tensors
    except (BackboneError, KeyError, TypeError) as error:
        raise PretrainError(f"{path}: not a checkpoint of this version ({error})") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def restore(
    tensors: dict[str, Tensor], net: nn.Module, ema: AveragedModel, optimiser: torch.optim.Adam
) -> None:
    """Put a checkpoint's tensors into a network, its average and its optimiser."""
    net.load_state_dict(_part(tensors, "model."))
    ema.load_state_dict(_part(tensors, "ema."))
    adam = _part(tensors, "adam.")
    for name, parameter in net.named_parameters():
        moments = _part(adam, f"{name}.")
        optimiser.state[parameter] = {
            # In the weight's memory layout: the fused optimiser goes through memory, not indices.
            key: value.to(parameter.device)
            if key == "step"
            else torch.empty_like(parameter, requires_grad=False).copy_(value)
            for key, value in moments.items()
        }


def averaged_backbone(path: Path, averaged: bool = True) -> tuple[Backbone, Header]:
    """The averaged (or, if not ``averaged``, the raw) network of a checkpoint as a backbone."""
    header, tensors = read(path)
    unet = UNet(header.unet)
    unet.load_state_dict(_part(tensors, "ema.module." if averaged else "model."))
    return Backbone(header.name, unet, header.intensity, header.settings.schedule), header
