"""Enhanced CT: one DICOM file with all slices of a series.

What a slice has in its header, a frame has in functional groups: its own, or those shared by all.
Source: DICOM PS3.3, C.7.6.16 "Multi-frame Functional Groups".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pydicom
from numpy.typing import NDArray
from pydicom.pixels import iter_pixels

_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": ("StackID", "TemporalPositionIndex", "FrameAcquisitionNumber"),
}
FRAMES = "PerFrameFunctionalGroupsSequence"
"""Element with one item for each frame; only multi-frame files have it."""
_SHARED = "SharedFunctionalGroupsSequence"
TAGS = (FRAMES, _SHARED)
"""Elements of a file's header that :func:`frame_headers` reads."""


def frame_headers(header: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """Header of each frame, as if it were a slice of its own; none without functional groups."""
    (shared,) = header.get(_SHARED) or (pydicom.Dataset(),)
    for own in header.get(FRAMES) or ():
        flat = pydicom.Dataset()
        flat.file_meta = getattr(header, "file_meta", None)
        flat.update({e.tag: e for e in header if e.keyword not in (*TAGS, "NumberOfFrames")})
        for sequence, keywords in _GROUPS.items():
            for group in own.get(sequence) or shared.get(sequence) or ():
                flat.update({group[k].tag: group[k] for k in keywords if k in group})
        yield flat


def frame_pixels(
    dataset: pydicom.Dataset, frames: Iterable[int]
) -> Iterator[tuple[pydicom.Dataset, NDArray[Any]]]:
    """Decode frames of a file one by one, in the order asked for, beside the file's dataset."""
    for plane in iter_pixels(dataset, indices=list(frames)):
        yield dataset, plane
