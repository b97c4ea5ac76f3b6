"""The layers of one volume: CT, paint (truth), prediction (editable), confidence, difference.

Every layer owns its voxels. What a layer shows in passing, such as a preview of a running
training, is therefore never in the session, and comparing a layer with what the program put there
shows which strokes are the user's (see :mod:`napari_diffseg.gui.strokes`).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import Colormap, DirectLabelColormap
from numpy.typing import NDArray

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.gui.io import AXES, GEOMETRY, LABELS
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume

PAINT_OPACITY, PREDICTION_OPACITY = 0.7, 0.4
_CLEAR = (0.0, 0.0, 0.0, 0.0)
_BACKGROUND_GREY = (0.82, 0.82, 0.82, 0.8)

# Sure is clear glass, unsure is orange: the eye is led to where a look is needed.
_UNSURE = Colormap(
    [[0.95, 0.6, 0.1, 0.6], [0.95, 0.6, 0.1, 0.6], [0.95, 0.6, 0.1, 0.0]],
    controls=[0.0, 0.5, 1.0],
    name="napari-diffseg unsure",
)


def clear_history(layer: Labels) -> None:
    """Forget a labels layer's strokes.

    A prediction that is written under napari's undo history would be holed by the next Ctrl+Z,
    which writes back voxels from before it.
    """
    layer._reset_history()


def empty(layer: Any) -> None:
    """Let go of the voxels of a layer that was removed: napari's controls keep the layer itself."""
    layer.metadata = {}
    layer.data = np.zeros((1,) * layer.ndim, layer.data.dtype)
    if isinstance(layer, Labels):
        clear_history(layer)


def checksum(plane: NDArray[Any]) -> int:
    """CRC-32 of a slice, which differs once it is changed."""
    return zlib.crc32(plane.tobytes())


def copied(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copy a mask ``(z, y, x)``; slices without anything on them take no memory until written."""
    copy = np.zeros(mask.shape, np.uint8)
    put(copy, mask)
    return copy


def put(mask: NDArray[np.uint8], new: NDArray[np.uint8]) -> None:
    """Make a mask ``(z, y, x)`` equal to another one, writing only the slices that differ."""
    for plane, wanted in zip(mask, new, strict=True):
        if not np.array_equal(plane, wanted):
            plane[...] = wanted


def label_colormap(labels: Iterable[Label], hidden: Collection[int] = ()) -> DirectLabelColormap:
    """Make the colour map of some labels, with painted background in light grey."""
    colours: dict[int | None, tuple[float, ...]] = {None: _CLEAR, 0: _CLEAR}
    colours[BACKGROUND] = _CLEAR if BACKGROUND in hidden else _BACKGROUND_GREY
    for label in labels:
        rgb = tuple(c / 255 for c in label.colour)
        colours[label.id] = _CLEAR if label.id in hidden else (*rgb, 1.0)
    return DirectLabelColormap(color_dict=colours)


class VolumeLayers:
    """Makes, names, colours and refreshes the layers of one volume, beside that of its CT."""

    def __init__(self, viewer: Any, ct: Image, volume: Volume) -> None:
        self.viewer, self.ct, self.volume = viewer, ct, volume
        self.previewed: set[int] = set()  # slices that show a preview of a running training
        self._put = np.zeros(len(volume.hu), np.uint32)  # checksums of the prediction layer
        self.paint: Labels | None = None
        self.prediction: Labels | None = None
        self.confidence: Image | None = None
        self.difference: Labels | None = None
        self._suffix = ""
        self._labels: tuple[Label, ...] = ()
        self._hidden: frozenset[int] = frozenset()

    def _by_name(self) -> dict[str, Any]:
        """The layers besides the CT, bottom to top; ``None`` for one that was not made."""
        return {
            "confidence": self.confidence,
            "difference": self.difference,
            "prediction": self.prediction,
            "paint": self.paint,
        }

    def own(self) -> list[Any]:
        """List the layers besides the CT that are in the viewer, bottom to top."""
        made = self._by_name().values()
        return [layer for layer in made if layer is not None and layer in self.viewer.layers]

    def made(self, layer: Any) -> bool:
        """Whether a layer is one that is put back when it is removed."""
        kept = (self.paint, self.prediction, self.confidence)
        return layer is not None and any(layer is one for one in kept)

    def has(self, layer: Any) -> bool:
        """Whether a layer belongs to this volume."""
        return layer is not None and (layer is self.ct or self.made(layer))

    def ensure(
        self, paint: NDArray[np.uint8], prediction: NDArray[np.uint8], confidence: NDArray[np.uint8]
    ) -> None:
        """Put missing layers back; those that are there are left alone."""
        there = set(map(id, self.own()))
        if id(self.confidence) not in there:
            layer = Image(copied(confidence), name="confidence", visible=False, **self._place())
            layer.colormap, layer.contrast_limits, layer.blending = _UNSURE, (0, 100), "translucent"
            self.confidence = self._add(layer)
        if id(self.prediction) not in there:
            self.prediction = self._add(self._labels_layer(copied(prediction), "prediction"))
            self.prediction.opacity = PREDICTION_OPACITY
            self.show_prediction(prediction, confidence)
        if id(self.paint) not in there:
            self.paint = self._add(self._labels_layer(copied(paint), "paint"))
            self.paint.opacity = PAINT_OPACITY
        self.rename(self._suffix)
        self.colour(self._labels, self._hidden)

    def rename(self, suffix: str) -> None:
        """Name the layers; the suffix distinguishes volumes when several are open."""
        self._suffix = suffix
        for name, layer in self._by_name().items():
            if layer is not None:
                layer.name = f"{name}{suffix}"

    def colour(self, labels: tuple[Label, ...], hidden: frozenset[int] = frozenset()) -> None:
        """Colour the labels; hidden ones are not drawn. Names go along for writers."""
        self._labels, self._hidden = labels, hidden
        colormap = label_colormap(labels, hidden)
        for layer in (self.paint, self.prediction):
            if layer is not None:
                layer.colormap = colormap
                layer.metadata[LABELS] = labels

    def show_prediction(self, prediction: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> None:
        """Show prediction and confidence ``(z, y, x)`` of all slices, whatever was there."""
        if self.prediction is None or self.confidence is None:
            return
        put(self.prediction.data, prediction)
        put(self.confidence.data, confidence)
        self._put[:] = [checksum(plane) for plane in self.prediction.data]
        self.previewed.clear()
        self.redraw_prediction()

    def show_slice(
        self, z: int, mask: NDArray[np.uint8], confidence: NDArray[np.uint8], preview: bool = False
    ) -> None:
        """Show one slice ``(y, x)``, unless the user is just drawing on it; redraw afterwards."""
        if self.prediction is None or self.confidence is None or self.corrected(z):
            return
        self.prediction.data[z], self.confidence.data[z] = mask, confidence
        self.note_shown(z)
        if preview:
            self.previewed.add(z)

    def note_shown(self, z: int) -> None:
        """Take what the prediction layer holds on a slice as put there by the program."""
        if self.prediction is not None:
            self._put[z] = checksum(self.prediction.data[z])
            self.previewed.discard(z)

    def corrected(self, z: int) -> bool:
        """Whether the prediction layer differs from what the program put there."""
        return self.prediction is not None and checksum(self.prediction.data[z]) != self._put[z]

    def redraw_prediction(self) -> None:
        """Draw what was shown, and forget strokes from before it, which an undo would bring back.

        Drawing costs more than all else in the window: call it once for many slices, and only
        when one of them is in view.
        """
        for layer in (self.prediction, self.confidence):
            if layer is not None and layer.visible:
                layer.refresh(thumbnail=False, extent=False, highlight=False)
        if self.prediction is not None:
            clear_history(self.prediction)

    def show_confidence(self, shown: bool) -> None:
        """Show how sure the model is, or hide it."""
        if self.confidence is not None:
            self.confidence.visible = shown
            self.confidence.refresh()

    def show_contour(self, shown: bool) -> None:
        """Show the prediction as outlines, or filled."""
        if self.prediction is not None:
            self.prediction.contour = 2 if shown else 0

    def show_paint(self, paint: NDArray[np.uint8]) -> None:
        """Make the paint layer equal to the session's truth, as after a restore."""
        if self.paint is not None:
            put(self.paint.data, paint)
            clear_history(self.paint)
            self.paint.refresh()

    def show_difference(self, changed: NDArray[np.bool_] | None) -> None:
        """Show where two rounds differ, or with None take that layer away."""
        if self.difference is not None and self.difference in self.viewer.layers:
            self.viewer.layers.remove(self.difference)
        self.difference = None
        if changed is not None:
            layer = Labels(changed.view(np.uint8), name="difference", **self._place())
            # White over coloured labels: it is no label's colour.
            layer.colormap = DirectLabelColormap(
                color_dict={None: _CLEAR, 0: _CLEAR, 1: (1.0, 1.0, 1.0, 1.0)}
            )
            layer.opacity, layer.editable = 0.75, False
            self.difference = self._add(layer, select=False)
            self.rename(self._suffix)

    def let_correct(self, allowed: bool) -> None:
        """Let the user draw in the prediction layer, or not while a model writes there."""
        if self.prediction is not None:
            self.prediction.editable = allowed

    def let_edit(self, allowed: bool) -> None:
        """Let the user draw, or not in a session that cannot be changed."""
        for layer in (self.paint, self.prediction):
            if layer is not None:
                layer.editable = allowed

    def remove(self) -> None:
        """Take all layers but the CT off the viewer."""
        for layer in self.own():
            self.viewer.layers.remove(layer)
            empty(layer)

    def _labels_layer(self, data: NDArray[np.uint8], name: str) -> Labels:
        layer = Labels(data, name=name, **self._place())
        layer.metadata[GEOMETRY] = self.volume.geometry
        layer.brush_size = max(4, round(min(data.shape[1:]) / 40))
        return layer

    def _place(self) -> dict[str, Any]:
        # Scale only: a permuted or sheared affine would bring napari's non-orthogonal slicing.
        return {"scale": self.volume.geometry.spacing, "axis_labels": AXES, "units": "mm"}

    def _add(self, layer: Any, select: bool = True) -> Any:
        active = self.viewer.layers.selection.active
        self.viewer.layers.append(layer)
        if not select or active is not None:
            self.viewer.layers.selection.active = active if active is not None else layer
        return layer
