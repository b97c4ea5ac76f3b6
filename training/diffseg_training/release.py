"""Turn a checkpoint into a shipped backbone: weights, card, registry line, sample grid."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffseg_training import checkpoint
from diffseg_training.benchmark.tables import markdown
from diffseg_training.checkpoint import Header
from diffseg_training.cost import network_cost
from diffseg_training.generate import generate, write_figures
from diffseg_training.settings import PretrainError, ReleaseSettings, SampleSettings
from diffseg_training.start import slices_seen
from diffseg_training.store import SliceStore
from diffseg_training.validate import validate_backbone
from napari_diffseg.io.files import atomic_write, make_folder
from napari_diffseg.network.backbone import Backbone, load_backbone, registry_line, save_backbone


def load_trained(path: Path) -> tuple[Backbone, Header]:
    """Read the averaged network of a checkpoint, or the best network that training kept.

    Raises
    ------
    PretrainError
        If it is neither.
    """
    if path.is_dir():
        path = path / checkpoint.NAME
    if not path.is_file():
        raise PretrainError(f"{path}: no such checkpoint")
    try:
        return checkpoint.averaged_backbone(path)
    except PretrainError:
        backbone = load_backbone(path)
        if "training" not in backbone.card:
            raise PretrainError(f"{path}: neither a checkpoint nor a network kept by train") from (
                None
            )
        return backbone, Header.from_json(backbone.card["training"])


def release(source: Path, folder: Path, settings: ReleaseSettings) -> Path:
    """Write weights, card, sample grids and registry line to ``folder``; return the weights.

    Raises
    ------
    PretrainError
        If the weights are too large or the figures unreadable.
    """
    backbone, header = load_trained(source)
    card = make_card(header, settings)
    if settings.data:
        slices = SliceStore(Path(settings.data)).slices("validation")
        count = header.settings.validation_slices
        losses = validate_backbone(backbone, slices, count)
        card["validation"] = {str(t): round(loss, 5) for t, loss in losses.items()}
        card["curves"]["validation"].append([header.step, card["validation"]])
    backbone = replace(backbone, name=settings.name, card=card)
    make_folder(folder)
    path = folder / f"{settings.name}.safetensors"
    with atomic_write(path) as part:
        save_backbone(part, backbone, torch.float16)
        size = part.stat().st_size / 1e6
        if size > settings.megabytes:
            raise PretrainError(f"{path}: {size:.1f} MB is over {settings.megabytes:g} MB")
    if settings.samples:
        released = load_backbone(path)
        wanted = SampleSettings(count=settings.samples, steps=settings.steps)
        done = [g.hu for g in generate(released, wanted) if g.hu is not None]
        for extra in write_figures(folder, np.concatenate(done), f"{settings.name}-samples"):
            if extra.suffix != ".png":
                extra.unlink()
    _write(folder / f"{settings.name}.md", card_text(settings, card, size))
    _register(folder, path)
    return path


def make_card(header: Header, settings: ReleaseSettings) -> dict[str, Any]:
    """JSON card of a backbone: data, steps, losses; no names, no paths."""
    values = header.to_json()
    train, validation = values["history"]["train"], values["history"]["validation"]
    card = {
        "recipe": header.name,
        "steps": header.step,
        "slices_seen": slices_seen({"training": values}),
        "hours": round(header.seconds / 3600, 2),
        "parameters": network_cost(header.unet).parameters,
        "settings": {k: v for k, v in values["settings"].items() if k != "init_from"},
        "data": _with_confirmed_licences(header.data),
        "start": _start(header),
        "validation": validation[-1][1] if validation else {},
        "curves": {"train": _thinned(train), "validation": _thinned(validation)},
    }
    if settings.figures:
        card["few_shot"] = _figures(Path(settings.figures))
    return card


def _start(header: Header) -> dict[str, Any]:
    """Name of the weights that the run began at, and what they had seen."""
    found = {"weights": header.start.get("weights", "random")}
    if "card" in header.start:
        found["slices_seen"] = slices_seen(header.start["card"])
    return found


def _figures(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON list, or of JSON lines."""
    try:
        text = path.read_text()
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines()]
        else:
            rows = list(json.loads(text))
    except (OSError, TypeError, json.JSONDecodeError) as error:
        raise PretrainError(f"{path}: not readable JSON ({error})") from error
    if not rows or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        raise PretrainError(f"{path}: must hold rows with the same names, as a list or JSON lines")
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
    return markdown(list(rows[0]), cells)


def _thinned(history: list[Any], most: int = 40) -> list[Any]:
    if len(history) <= most:
        return history
    kept = np.unique(np.linspace(0, len(history) - 1, most).round().astype(int))
    return [history[index] for index in kept]


def _confirmed() -> dict[str, dict[str, str]]:
    """Return the collections whose licence was looked up, by name."""
    listed = resources.files("diffseg_models").joinpath("collections.toml").read_text("utf-8")
    return {entry["name"]: entry for entry in tomllib.loads(listed)["collection"]}


def _with_confirmed_licences(data: dict[str, Any]) -> dict[str, Any]:
    """Copy a card's data; what the gatherer of the slices remembered gives way."""
    confirmed = _confirmed()
    collections = {
        name: {**counts, "licence": confirmed[name]["licence"]} if name in confirmed else counts
        for name, counts in data["collections"].items()
    }
    return {**data, "collections": collections}


def _licences(collections: dict[str, Any]) -> list[str]:
    """Make the card's section on the collections."""
    confirmed = _confirmed()
    open_ones = [name for name in collections if name not in confirmed]
    lines = [
        "Licences are those that the National Cancer Institute states for each series in the index "
        "of its Imaging Data Commons, release 25. How many series were looked up in it, what else "
        "was read, and the citations are in ATTRIBUTION.md.",
        "",
    ]
    if open_ones:
        lines += [
            f"Not confirmed, as stated by whoever gathered the slices: {', '.join(open_ones)}.",
            "",
        ]
    lines += ["| collection | licence | patients | volumes | slices |", "|---|---|---|---|---|"]
    for name, c in collections.items():
        licence = c["licence"]
        if name in confirmed:
            licence = f"[{confirmed[name]['licence']}]({confirmed[name]['licence_url']})"
        lines.append(f"| {name} | {licence} | {c['patients']} | {c['volumes']} | {c['slices']} |")
    return lines


def card_text(settings: ReleaseSettings, card: dict[str, Any], size: float) -> str:
    """The card as Markdown."""
    data, own = card["data"], card["settings"]
    lines = [
        f"# {settings.name}",
        "",
        "Denoising diffusion U-Net pre-trained on unlabelled CT, for few-shot segmentation in "
        "napari-diffseg. Not a medical device.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {card['parameters']:,} |",
        f"| file | float16 safetensors, {size:.1f} MB |",
        f"| trained | {card['steps']:,} steps x {own['batch']} slices, "
        f"{card['hours']} h, from {_began(card['start'])} |",
        f"| schedule | {own['schedule']}, T = 1000, noise prediction |",
        f"| weights | moving average, decay {own['ema']} with warm-up |",
        f"| trained on | {data['train']['slices']:,} slices of {data['train']['patients']} "
        "patients |",
        f"| held out | {data['validation']['slices']:,} slices of "
        f"{data['validation']['patients']} patients |",
        f"| HU of all voxels | {data['statistics']['min']:g} to {data['statistics']['max']:g}, "
        f"0.5 and 99.5 percentiles {data['statistics']['p0.5']:g} and "
        f"{data['statistics']['p99.5']:g} |",
        "",
        "## Data and licences",
        "",
        *_licences(data["collections"]),
        "",
        "## Validation loss by noise level",
        "",
        "Mean squared error of the predicted noise on held-out patients, averaged weights.",
        "",
    ]
    history = card["curves"]["validation"]
    if history:
        levels = list(history[0][1])
        lines += [
            "| step | mean | " + " | ".join(f"t = {t}" for t in levels) + " |",
            "|---" * (len(levels) + 2) + "|",
            *(
                f"| {step} | {sum(losses.values()) / len(losses):.4f} | "
                + " | ".join(f"{value:.4f}" for value in losses.values())
                + " |"
                for step, losses in history
            ),
            "",
        ]
    if "few_shot" in card:
        lines += ["## Few-shot figures", "", _table(card["few_shot"])]
    if settings.samples:
        lines += [
            "## Generated slices",
            "",
            f"{settings.samples} slices, DDIM with {settings.steps} steps, seed 0, not selected.",
            "",
            f"![lung window]({settings.name}-samples-lung.png)",
            "",
            f"![abdomen window]({settings.name}-samples-abdomen.png)",
            "",
        ]
    return "\n".join(lines)


def _began(start: dict[str, Any]) -> str:
    if "slices_seen" in start:
        return f"an earlier {start['weights']} that had seen {start['slices_seen']:,} slices"
    return f"{start['weights']} weights"


def _register(folder: Path, path: Path) -> None:
    registry = folder / "registry.toml"
    known = tomllib.loads(registry.read_text()) if registry.exists() else {}
    known.pop(path.stem, None)
    kept = [
        f'[{name}]\nfile = "{line["file"]}"\nsha256 = "{line["sha256"]}"\n'
        for name, line in known.items()
    ]
    _write(registry, "\n".join([registry_line(path), *kept]))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
