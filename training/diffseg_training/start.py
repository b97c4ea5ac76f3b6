"""What a run starts from: intensity map, summary of the data, origin of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffseg_training.settings import PretrainError, PretrainSettings
from diffseg_training.store import SliceStore
from napari_diffseg.network.backbone import Backbone, Intensity


def intensity_of(
    settings: PretrainSettings, store: SliceStore, start: Backbone | None
) -> Intensity:
    """HU to network values: as set, else of the backbone to start from, else the percentiles.

    Raises
    ------
    PretrainError
        If the knots do not make a map.
    """
    if settings.hu:
        try:
            return Intensity(settings.hu, settings.value)
        except ValueError as error:
            raise PretrainError(f"hu, value: {error}") from error
    if start is not None:
        return start.intensity
    low, high = store.statistics["p0.5"], store.statistics["p99.5"]
    return Intensity((low, high), (-1.0, 1.0))


def summary(store: SliceStore) -> dict[str, Any]:
    """What the data were, in counts: no patient, no file."""
    volumes = store.manifest["volumes"]
    collections = {}
    for name in sorted({volume["collection"] for volume in volumes}):
        own = [volume for volume in volumes if volume["collection"] == name]
        collections[name] = {
            "licence": ", ".join(sorted({volume["licence"] for volume in own})),
            "volumes": len(own),
            "patients": len({volume["patient"] for volume in own}),
            "slices": sum(volume["slices"] for volume in own),
        }
    counts = {
        split: {
            "patients": len({v["patient"] for v in volumes if v["split"] == split}),
            "slices": sum(v["slices"] for v in volumes if v["split"] == split),
        }
        for split in ("train", "validation")
    }
    return {"collections": collections, "statistics": store.statistics, **counts}


def origin(start: Backbone | None) -> dict[str, Any]:
    """Where the weights came from, for the card."""
    if start is None:
        return {"weights": "random"}
    return {"weights": start.name, "card": start.card}


def slices_seen(card: Mapping[str, Any]) -> int:
    """Slices that a backbone was shown, over all the runs that led to it; repetitions count.

    Parameters
    ----------
    card
        Of a released backbone, or of a file that a run keeps on the way.
    """
    if "slices_seen" in card:
        return int(card["slices_seen"])
    training = card["training"]
    before = slices_seen(training["start"]["card"]) if "card" in training["start"] else 0
    return before + int(training["step"] * training["settings"]["batch"])
