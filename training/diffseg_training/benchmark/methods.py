"""Every method of the benchmark by name. All of them are ``run(task) -> Outcome``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from diffseg_training.benchmark import baselines
from diffseg_training.benchmark.networks import NETWORKS
from diffseg_training.benchmark.registration import registration
from diffseg_training.benchmark.tasks import BenchmarkTask, Mask, Outcome
from napari_diffseg.io.volume import Volume


class MethodError(ValueError):
    """No such method, or one that cannot do the task."""


@dataclass(frozen=True)
class Options:
    """What a sweep may say of how methods run.

    Attributes
    ----------
    backbone
        Name or file for the methods that use one; the shipped one by default.
    side
        Pixels along the model grid; each method's default otherwise.
    small
        Rival networks in their small variant for a CPU.
    learning_rate_factor
        Learning rate of a rival, as a multiple of its authors'.
    """

    backbone: str | Path | None = None
    side: int | None = None
    small: bool = True
    learning_rate_factor: float = 1.0


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes
    ----------
    name
        On the command line and in rows.
    title
        In tables and figures.
    run
        Does a task.
    budgeted
        Whether it uses a budget of seconds or iterations.
    across
        Whether it can learn from one patient and segment another.
    backbone
        Whether a pre-trained backbone is part of it.
    random
        Whether the seed matters.
    scribbles
        Whether it can learn from scribbles.
    continues
        Whether it can go on from a model of another volume.
    large
        Whether its backbone is the larger one (the papers' size L).
    tuned
        Whether its learning rate is a setting of the benchmark.
    own_grid
        Whether it chooses its model grid itself where none is set.
    within
        Whether it can segment the volume whose slices are painted.
    """

    name: str
    title: str
    run: Callable[[BenchmarkTask, Options], Outcome]
    budgeted: bool = True
    across: bool = True
    backbone: bool = False
    random: bool = True
    scribbles: bool = True
    continues: bool = False
    large: bool = False
    tuned: bool = False
    own_grid: bool = False
    within: bool = True

    def does(self, protocol: str) -> bool:
        """Whether it can do a task of a protocol, see :class:`protocols.Split`."""
        needs = {
            "in-volume": self.within,
            "cross-patient": self.across,
            "patients": self.across,
            "scribbles": self.scribbles,
            "cross-volume": self.continues,
        }
        return needs.get(protocol, True)


BASELINES: dict[str, Callable[[Volume, baselines.PaintedSlices], Mask]] = {
    "nearest-copy": baselines.nearest_copy,
    "shape-interpolation": baselines.shape_interpolation,
    "random-walker": baselines.random_walker,
    "registration": registration,
}
"""Methods without learning, on the painted slices of the volume itself."""


def _on_own_slices(
    method: Callable[[Volume, baselines.PaintedSlices], Mask], task: BenchmarkTask, options: Options
) -> Outcome:
    (example,) = task.train
    if any(volume is not example.volume for volume in task.test):
        raise MethodError("this method needs painted slices of the tested volume itself")
    return Outcome(tuple(method(volume, example.painted) for volume in task.test))


def _contours(task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.contours import contour_interpolation

    return _on_own_slices(contour_interpolation, task, options)


def _biomedisa(task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.biomedisa import biomedisa

    return _on_own_slices(biomedisa, task, options)


def _forest(which: str, task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark import forests

    if which == "handmade":
        return forests.handmade_forest(task, side=options.side or 128)
    return forests.backbone_forest(task, options.backbone, side=options.side or 128)


def _convpaint(task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.convpaint import convpaint

    return convpaint(task, side=options.side or 128)


def _network(name: str, task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.supervised import train_network

    return train_network(
        task, name, options.side or 128, options.small, options.learning_rate_factor
    )


def _ddpm_seg(task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.ddpmseg import ddpm_seg

    return ddpm_seg(
        task, options.backbone, options.side, learning_rate_factor=options.learning_rate_factor
    )


def _nnunet(task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.nnunet import nnunet_2d

    return nnunet_2d(task, options.learning_rate_factor)


def _multi_atlas(task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.atlas import multi_atlas

    return multi_atlas(task)


def _cohort(adapts: bool, task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.ours import cohort

    return cohort(task, options.backbone, options.side, adapts)


def _diffseg(settings: dict[str, Any], task: BenchmarkTask, options: Options) -> Outcome:
    from diffseg_training.benchmark.ours import diffseg

    return diffseg(task, backbone=options.backbone, side=options.side, **settings)


_OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("Ours (app recipe)", {"recipe": "app", "strategy": "linear"}),
    "app-scratch": (
        "Propagated labels and network from scratch",
        {"recipe": "app", "strategy": "scratch"},
    ),
    "decoder": ("Ours, decoder (paper)", {"recipe": "paper", "strategy": "decoder"}),
    "linear": ("Ours, linear (paper)", {"recipe": "paper", "strategy": "linear"}),
    "scratch": ("From scratch (paper)", {"recipe": "paper", "strategy": "scratch"}),
}
_WIDE_HEAD = 256
for _name in ("decoder", "linear", "scratch"):
    _title, _settings = _OURS[_name]
    for _size in "ml":  # sizes of arXiv 2402.15216v2, Table 2; S is the plain name
        _OURS[f"{_name}-{_size}"] = (
            f"{_title}, {_size.upper()}",
            {**_settings, "hidden": _WIDE_HEAD},
        )

_TITLES = {
    "nearest-copy": "Nearest-slice copy",
    "shape-interpolation": "Shape interpolation",
    "random-walker": "3D random walker",
    "registration": "Registration (demons)",
}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(
            Method(
                name,
                _TITLES[name],
                partial(_on_own_slices, run),
                budgeted=False,
                across=False,
                random=False,
                scribbles=name == "random-walker",
            )
            for name, run in BASELINES.items()
        ),
        Method(
            "contour-interpolation",
            "Contour interpolation (ITK)",
            _contours,
            budgeted=False,
            across=False,
            random=False,
            scribbles=False,
        ),
        Method(
            "biomedisa",
            "Biomedisa (smart interpolation)",
            _biomedisa,
            budgeted=False,
            across=False,
            scribbles=False,
        ),
        Method("forest", "Pixel forest, hand-made", partial(_forest, "handmade"), budgeted=False),
        Method(
            "backbone-forest",
            "Pixel forest, backbone",
            partial(_forest, "backbone"),
            budgeted=False,
            backbone=True,
        ),
        *(
            Method(name, spec.title, partial(_network, name), tuned=True)
            for name, spec in NETWORKS.items()
        ),
        Method(
            "multi-atlas",
            "Multi-atlas fusion",
            _multi_atlas,
            budgeted=False,
            random=False,
            scribbles=False,
            within=False,
        ),
        *(
            Method(
                name,
                title,
                partial(_cohort, adapts),
                backbone=True,
                scribbles=False,
                own_grid=True,
                within=False,
            )
            for name, title, adapts in (
                ("cohort", "Ours (train, predict)", True),
                ("cohort-plain", "Ours, not adapted", False),
            )
        ),
        Method("convpaint", "Convpaint (VGG16)", _convpaint, budgeted=False),
        Method("nnunet", "nnU-Net 2D", _nnunet, tuned=True),
        Method("ddpm-seg", "DDPM-Seg", _ddpm_seg, backbone=True, tuned=True),
        *(
            Method(
                name,
                title,
                partial(_diffseg, kw),
                backbone=True,
                continues=kw["strategy"] != "scratch",
                large=name.endswith("-l"),
                own_grid=kw["recipe"] == "app",
            )
            for name, (title, kw) in _OURS.items()
        ),
    )
}


def find_method(name: str) -> Method:
    """Return a method by name; ``decoder@300`` is ``decoder`` at timestep 300.

    Raises
    ------
    MethodError
        If there is none of that name.
    """
    base, _, timestep = name.partition("@")
    if base not in METHODS or (timestep and not (base in _OURS and timestep.isdecimal())):
        raise MethodError(f"there is no method {name!r}; known are {', '.join(METHODS)}")
    if not timestep:
        return METHODS[base]
    title, settings = _OURS[base]
    at = {**settings, "timestep": int(timestep)}
    return replace(
        METHODS[base], name=name, title=f"{title}, t = {timestep}", run=partial(_diffseg, at)
    )


def timed(method: Method, task: BenchmarkTask, options: Options) -> tuple[Outcome, float]:
    """Run a method and measure its wall time in seconds."""
    began = time.perf_counter()
    outcome = method.run(task, options)
    return outcome, time.perf_counter() - began
