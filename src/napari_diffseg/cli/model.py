"""``napari-diffseg model show``: what a saved model is, before it is used or passed on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from napari_diffseg.cli.console import figure, table


def add_model(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the sub-commands of ``model``."""
    subparsers = parser.add_subparsers(metavar="show", required=True)
    text = "print the card of a saved model"
    show = subparsers.add_parser("show", parents=[common], help=text, description=text)
    show.add_argument("path", metavar="FILE", type=Path, help="saved model")
    show.add_argument("--json", action="store_true", help="print JSON instead of text")
    show.set_defaults(run=_show)


def _show(args: argparse.Namespace) -> int:
    found = _describe(args.path)
    print(json.dumps(found, indent=2, allow_nan=False) if args.json else _text(found))
    return 0


def _describe(path: Path) -> dict[str, Any]:
    """Load the whole model, so that what is shown is known to be usable."""
    from napari_diffseg.network.card import file_sha256
    from napari_diffseg.network.segmenter import Segmenter

    segmenter = Segmenter.load(path)
    config = segmenter.config
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        "labels": [
            {"id": one.id, "name": one.name, "colour": list(one.colour)} for one in segmenter.labels
        ],
        "intensity": {
            "hu": list(segmenter.intensity.hu),
            "value": list(segmenter.intensity.value),
        },
        "strategy": config.strategy,
        "head": config.head,
        "timestep": config.timestep,
        "grid_width": config.columns,
        "parameters": sum(one.numel() for one in segmenter.parameters()),
        "card": segmenter.card.to_json(),
    }


def _text(found: dict[str, Any]) -> str:
    card, hu = found["card"], found["intensity"]["hu"]
    cases, slices = card["cases"], card["slices"]
    learnt = f"{cases} case{'s' * (cases != 1)}, {slices} painted slice{'s' * (slices != 1)}"
    lines = (
        ("file", found["file"]),
        ("SHA-256", found["sha256"]),
        ("made by", f"napari-diffseg {card['version']}" if card["version"] else "not stated"),
        ("learnt from", learnt if cases else "not stated"),
        ("licence", card["licence"] or "not stated"),
        ("intensity", f"{hu[0]:g} to {hu[-1]:g} HU"),
        ("network", f"{found['parameters']:,} weights, {found['head']} head, {found['strategy']}"),
        ("grid width", f"{found['grid_width']} at timestep {found['timestep']}"),
        ("backbone", card["backbone"] or "not stated"),
        ("validation", card["validation_kind"] or "not stated"),
    )
    width = max(len(key) for key, _ in lines)
    text = "\n".join(f"{key.ljust(width)}  {value}" for key, value in lines)
    dice = card["validation"]
    rows = [(one["name"], str(one["id"]), figure(dice.get(one["name"]))) for one in found["labels"]]
    return f"{text}\n\n{table(('label', 'id', 'Dice'), rows)}"
