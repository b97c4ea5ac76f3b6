"""RTSTRUCT: labels as closed outlines in patient millimetres, on the slices of a CT.

Outlines are traced half a pixel outside of the pixel centres, so that filling them again gives the
very mask that was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from napari_diffseg.io import dicomseg
from napari_diffseg.io.dicom_file import read_dicom
from napari_diffseg.io.dicom_scan import read_header
from napari_diffseg.io.formats import LPS, StoredImage, reading
from napari_diffseg.io.geometry import Geometry, GridError, VolumeError
from napari_diffseg.io.labels import MAX_LABEL, Label, default_colour
from napari_diffseg.io.segframes import indexer

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OFF_PLANE = 0.1
"""An outline may lie this far from the slice that it was drawn on, in slices."""
_FARTHEST = 1e6
"""A point may lie so far from the first voxel, in voxels."""
_MOST_CROSSINGS = 1 << 22
"""So many crossings of outlines and lines of pixels are computed at a time."""
_STUDY = "1.2.840.10008.3.1.2.3.1"  # what RTSTRUCT calls a study by; retired, and still demanded

_Outline = tuple[float, NDArray[np.float64]]  # slice k, and points (i, j)


def is_rtstruct(path: Path) -> bool:
    """Whether a DICOM file is an RTSTRUCT."""
    with reading(path):
        return bool(read_header(path).get("Modality") == "RTSTRUCT")


def read_rtstruct(path: Path, geometry: Geometry | None, resample: bool = False) -> StoredImage:
    """Read the closed outlines of an RTSTRUCT as a mask.

    Outlines of one structure on one slice are combined by exclusive or, so that an outline within
    another one is a hole. Where structures overlap, the smaller one wins, so that an outline of the
    whole body hides nothing.

    Parameters
    ----------
    path
        The file.
    geometry
        The grid of the CT, as any file of that CT gives it.
    resample
        Accept outlines between the slices: each slice takes those nearest to it.

    Raises
    ------
    VolumeError
        If there is no grid, the file is damaged, or the outlines do not lie on the CT's slices.
    """
    if geometry is None:
        raise VolumeError(f"{path}: holds outlines without a grid; open their CT first")
    with reading(path):
        found = list(_structures(path, read_dicom(path), geometry))
    if len(found) > MAX_LABEL:
        raise VolumeError(f"{path}: holds more than {MAX_LABEL} structures; export fewer")
    own = [label.id for label, _ in found]
    if len(set(own)) < len(own) or not all(1 <= number <= MAX_LABEL for number in own):
        found = [
            (Label(n, label.name, label.colour), outlines)
            for n, (label, outlines) in enumerate(found, 1)
        ]
    array = np.zeros(geometry.shape, np.uint8)
    for label, outlines in sorted(found, key=lambda one: -_area(one[1])):
        for k, drawn in _by_slice(path, outlines, geometry, resample).items():
            array[:, :, k][_filled(drawn, geometry.shape[:2])] = label.id
    if found and not array.any():
        raise VolumeError(f"{path}: its outlines lie outside of the volume; open their own CT")
    return StoredImage(array, geometry.affine, labels=tuple(label for label, _ in found))


def _structures(
    path: Path, dataset: Dataset, geometry: Geometry
) -> Iterator[tuple[Label, list[_Outline]]]:
    """Structures that have closed outlines, in voxels of the grid."""
    names = {
        int(roi.ROINumber): str(roi.get("ROIName") or f"structure {roi.ROINumber}").strip()
        for roi in dataset.get("StructureSetROISequence") or ()
    }
    to_index = indexer(geometry)
    for roi in dataset.get("ROIContourSequence") or ():
        outlines = []
        for contour in roi.get("ContourSequence") or ():
            if contour.get("ContourGeometricType") not in _CLOSED:
                continue
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            index = to_index(points * LPS.diagonal()[:3])
            if not (np.abs(index) < _FARTHEST).all():  # not a number, or in another world
                raise VolumeError(f"{path}: has points at no place that a CT has; export it again")
            if np.ptp(index[:, 2]) > 2 * _OFF_PLANE:
                raise VolumeError(
                    f"{path}: its outlines are not drawn on this CT's slices; open their own CT"
                )
            outlines.append((float(index[:, 2].mean()), index[:, :2]))
        if outlines:
            number = int(roi.ReferencedROINumber)
            colour = tuple(int(c) for c in roi.get("ROIDisplayColor") or ())
            plain = default_colour((number - 1) % MAX_LABEL + 1)
            label = Label(
                number,
                names.get(number, f"structure {number}"),
                (colour[0], colour[1], colour[2]) if len(colour) == 3 else plain,
            )
            yield label, outlines


def _by_slice(
    path: Path, outlines: list[_Outline], geometry: Geometry, resample: bool
) -> dict[int, list[NDArray[np.float64]]]:
    """Outlines (i, j) of one structure by the slice k that they count for."""
    planes: dict[float, list[NDArray[np.float64]]] = {}
    near = -np.inf
    for k, points in sorted(outlines, key=lambda one: one[0]):
        near = near if k - near < _OFF_PLANE else k
        planes.setdefault(near, []).append(points)
    heights = np.array(sorted(planes))
    if not resample:
        if np.abs(heights - np.rint(heights)).max() > _OFF_PLANE:
            raise GridError(
                f"{path}: its outlines lie between the slices of this CT; open their own CT, or "
                "ask for resampling"
            )
        wanted = {round(plane): plane for plane in planes}
    else:
        # Half the usual distance of the outlines reaches the slices in between, and no gap.
        reach = max(0.5, float(np.median(np.diff(heights))) / 2 if len(heights) > 1 else 0.5)
        slices = np.arange(geometry.shape[2])
        nearest = heights[np.abs(slices[:, None] - heights).argmin(1)]
        wanted = {
            int(k): float(plane)
            for k, plane in zip(slices, nearest, strict=True)
            if abs(k - plane) <= reach + _OFF_PLANE
        }
    return {k: planes[plane] for k, plane in wanted.items() if 0 <= k < geometry.shape[2]}


def _area(outlines: list[_Outline]) -> float:
    """Area of outlines over all slices, in pixels; holes count as area, too."""
    total = 0.0
    for _, points in outlines:
        i, j = points.T
        total += abs(float(i @ np.roll(j, -1) - j @ np.roll(i, -1))) / 2
    return total


def _filled(outlines: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (i, j) whose centres lie within an odd number of outlines.

    Along each line of pixels, every crossing of an outline turns inside to outside.
    """
    turns = np.zeros((shape[0], shape[1] + 1), np.int32)
    for a, b in _edges(outlines, max(1, _MOST_CROSSINGS // shape[0])):
        low, high = np.minimum(a[:, 0], b[:, 0]), np.maximum(a[:, 0], b[:, 0])
        # A vertex on a line of pixels belongs to the edge above it alone.
        first = np.clip(np.ceil(low), 0, shape[0]).astype(int)
        stop = np.clip(np.ceil(high), 0, shape[0]).astype(int)
        count = np.maximum(stop - first, 0)
        edge = np.repeat(np.arange(len(a)), count)
        lines = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
        share = (lines - a[edge, 0]) / (b[edge, 0] - a[edge, 0])
        crossing = a[edge, 1] + share * (b[edge, 1] - a[edge, 1])
        columns = np.clip(np.ceil(crossing), 0, shape[1]).astype(int)
        np.add.at(turns, (lines, columns), 1)
    return np.asarray(turns.cumsum(axis=1)[:, :-1] % 2 == 1)


def _edges(
    outlines: Sequence[NDArray[np.float64]], most: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Beginnings and ends (n, 2) of the edges of outlines, at most so many at a time."""
    for points in outlines:
        ends = np.roll(points, -1, axis=0)
        for n in range(0, len(points), most):
            yield points[n : n + most], ends[n : n + most]


def write_rtstruct(
    path: Path, array: NDArray[Any], geometry: Geometry, labels: Sequence[Label]
) -> None:
    """Write an RTSTRUCT for a volume that was read from a DICOM folder, still there.

    Each structure is numbered by its label's id.

    Raises
    ------
    VolumeError
        If the volume did not come from DICOM, its series is gone or lacks identifiers, or there
        are no labels.
    """
    images, order = dicomseg.source_images(path, geometry, "RTSTRUCT")
    if len({str(image.get("SeriesInstanceUID", "")) for image in images}) > 1:
        raise VolumeError(
            f"{path}: slices of the DICOM series have series UIDs of their own, so no "
            "RTSTRUCT can refer to them; choose .nii.gz or .seg.nrrd"
        )
    if not labels:
        raise VolumeError(f"{path}: an RTSTRUCT needs at least one label; paint or add one")
    references = _references(images, order)
    dataset = _heading(images[0])
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(images[0], references)]
    frame = str(images[0].FrameOfReferenceUID)
    dataset.StructureSetROISequence = [
        _item(
            ROINumber=label.id,
            ReferencedFrameOfReferenceUID=frame,
            ROIName=label.name,
            ROIGenerationAlgorithm="SEMIAUTOMATIC",
        )
        for label in labels
    ]
    dataset.ROIContourSequence = [
        _item(
            ROIDisplayColor=list(label.colour),
            ReferencedROINumber=label.id,
            ContourSequence=list(_contours(array == label.id, geometry, references)),
        )
        for label in labels
    ]
    dataset.RTROIObservationsSequence = [
        _item(
            ObservationNumber=n,
            ReferencedROINumber=label.id,
            RTROIInterpretedType="",
            ROIInterpreter="",
        )
        for n, label in enumerate(labels, 1)
    ]
    dataset.ApprovalStatus = "UNAPPROVED"
    # Explicit lengths of DS end at 64 kB, which a long outline exceeds.
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _references(images: list[Dataset], order: list[int]) -> dict[int, Dataset]:
    """What each slice k of the volume is called by."""
    found = {}
    for n, k in enumerate(order):
        image = images[n] if len(images) == len(order) else images[0]
        found[k] = _item(
            ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID
        )
        if len(images) < len(order):
            found[k].ReferencedFrameNumber = n + 1
    return found


def _heading(image: Dataset) -> Dataset:
    """Patient, study, series and equipment."""
    now = datetime.now()
    dataset = _item(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=RTStructureSetStorage,
        SOPInstanceUID=generate_uid(),
        Modality="RTSTRUCT",
        StudyInstanceUID=image.StudyInstanceUID,
        SeriesInstanceUID=generate_uid(),
        SeriesNumber=101,
        SeriesDescription="napari-diffseg structures",
        InstanceNumber=1,
        OperatorsName="",
        FrameOfReferenceUID=image.FrameOfReferenceUID,
        PositionReferenceIndicator="",
        Manufacturer="napari-diffseg",
        ManufacturerModelName="napari-diffseg",
        SoftwareVersions=version("napari-diffseg"),
        StructureSetLabel="napari-diffseg",
        StructureSetDate=now.strftime("%Y%m%d"),
        StructureSetTime=now.strftime("%H%M%S"),
    )
    for name in dicomseg.MAY_BE_EMPTY:
        setattr(dataset, name, image.get(name))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return dataset


def _frame_of_reference(image: Dataset, references: dict[int, Dataset]) -> Dataset:
    series = _item(
        SeriesInstanceUID=image.SeriesInstanceUID,
        ContourImageSequence=[references[k] for k in sorted(references)],
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY,
        ReferencedSOPInstanceUID=image.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=image.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _contours(
    mask: NDArray[np.bool_], geometry: Geometry, references: dict[int, Dataset]
) -> Iterator[Dataset]:
    """Outlines of one structure (i, j, k) in patient millimetres, slice by slice."""
    positions: Any = geometry.reference["dicom"]["positions"]
    across = (LPS @ geometry.affine)[:3, :2]
    number = 0
    for k in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        padded = np.pad(mask[:, :, k], 1).astype(np.float64)
        for line in contour_generator(z=padded).lines(0.5):
            columns_rows = np.asarray(line)[:-1] - 1  # closed: the last point is the first again
            points = np.asarray(positions[k]) + columns_rows[:, ::-1] @ across.T
            number += 1
            # An outline on a slice that the series lacks refers to none; its place says all.
            image = {"ContourImageSequence": [references[k]]} if k in references else {}
            yield _item(
                ContourNumber=number,
                **image,
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.4f}" for value in points.ravel()],
            )
