"""Pieces of a prediction that lie where the structure cannot be."""

from __future__ import annotations

from napari_diffseg.engine.predict import stray_pieces
from napari_diffseg.engine.registration import Registration
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session.paint import Snapshot
from napari_diffseg.session.prediction import Prediction


def take_off_stray(
    prediction: Prediction,
    segmenter: Segmenter,
    volume: Volume,
    taken: Snapshot,
    registration: Registration | None,
) -> tuple[int, ...]:
    """Make background of pieces astray.

    Of structures that the model's card calls one piece the largest piece is kept, and of others
    what paint or propagated labels support.

    Returns
    -------
    The slices that it changed.
    """
    largest = prediction.keep_largest(segmenter)
    stray = stray_pieces(
        segmenter, volume, prediction.mask, taken.slices, registration, taken.planes
    )
    return tuple(sorted({*largest, *prediction.take_off(stray)}))
