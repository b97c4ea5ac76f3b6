"""DICOM-SEG: masks as a DICOM segmentation object beside the CT series they were painted on.

A DICOM-SEG belongs to the patient and study of its series, so the writer copies their identifiers
from the series' own files at that moment; nothing else in this package ever holds them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from napari_diffseg.io import segframes
from napari_diffseg.io.anatomy import coded
from napari_diffseg.io.dicom import ordered
from napari_diffseg.io.dicom_scan import Slice, read_dicom
from napari_diffseg.io.formats import LPS, StoredImage, reading
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label, class_indices, default_colour
from napari_diffseg.io.multiframe import FRAMES

# The identifiers that tie a segmentation to its series; without them no viewer can match the two.
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# What DICOM requires to be there, but allows to be empty.
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip

_FORMS = {
    "PatientSex": "[MFO]|",
    "PatientBirthDate": r"(?!0{8})\d{8}|",
    "StudyDate": r"(?!0{8})\d{8}|",
    "StudyTime": r"(\d{2}){1,3}(\.\d{1,6})?|",
}
"""What some of these may look like; anything else stands for unknown."""


def write_dicomseg(
    path: Path, array: NDArray[Any], geometry: Geometry, labels: Sequence[Label]
) -> None:
    """Write a binary DICOM-SEG for a volume that was read from a DICOM folder, still there.

    Segments are numbered from 1 in the order of the labels, as DICOM demands; each keeps its
    label's id in Segment Description.

    Raises
    ------
    VolumeError
        If the volume did not come from DICOM, its series is gone or lacks identifiers, or there
        are no labels.
    """
    images, order = source_images(path, geometry, "DICOM-SEG")
    if not labels:
        raise VolumeError(f"{path}: a DICOM-SEG needs at least one label; paint or add one")
    release = version("napari-diffseg")
    algorithm = hd.AlgorithmIdentificationSequence(
        name="napari-diffseg", version=release, family=codes.DCM.ArtificialIntelligence
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty or unusual values in the source's own header
        segmentation = hd.seg.Segmentation(
            source_images=images,
            pixel_array=class_indices(labels)[array.T[order]],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_describe(n, x, algorithm) for n, x in enumerate(labels, 1)],
            series_instance_uid=generate_uid(),
            series_number=100,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="napari-diffseg",
            manufacturer_model_name="napari-diffseg",
            software_versions=release,
            device_serial_number="0",
            content_label="SEGMENTATION",
            series_description="napari-diffseg segmentation",
        )
        segmentation.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, for names in any language
        segmentation.save_as(path)


def read_dicomseg(path: Path, geometry: Geometry | None = None) -> StoredImage:
    """Read a DICOM-SEG without overlapping segments.

    On a ``geometry``, each frame lies where its own position and orientation put it, whatever its
    order, its direction and the images that it refers to. Without one, frames must make a volume.

    Raises
    ------
    VolumeError
        If the file is damaged, no segmentation, or has overlapping segments.
    """
    with reading(path):
        dataset = pydicom.dcmread(path)
        if dataset.get("Modality") != "SEG":
            raise VolumeError(f"{path}: is no DICOM-SEG; for a CT series give its folder")
        ids, labels = np.zeros(65536, np.uint16), []
        for description in dataset.SegmentSequence:
            n = int(description.SegmentNumber)
            own = re.fullmatch(r"label (\d+)", str(description.get("SegmentDescription", "")))
            ids[n] = int(own[1]) if own else n
            lab = description.get("RecommendedDisplayCIELabValue")
            colour = default_colour(int(ids[n]))
            if lab is not None:
                r, g, b = (int(c) for c in hd.color.CIELabColor.from_dicom_value(lab).to_rgb())
                colour = (r, g, b)
            labels.append(Label(int(ids[n]), str(description.SegmentLabel), colour))
        if geometry:
            array, affine = segframes.on_grid(path, dataset, geometry), geometry.affine
        else:
            segmentation = hd.seg.Segmentation.from_dataset(dataset, copy=False)
            volume = segmentation.get_volume(combine_segments=True)
            array, affine = volume.array, LPS @ volume.affine
        return StoredImage(ids[array], affine, labels=tuple(labels))


def source_images(
    path: Path, geometry: Geometry, what: str
) -> tuple[list[pydicom.Dataset], list[int]]:
    """Headers that a segmentation refers to, and the slice of the volume for each of their frames.

    A multi-frame file is one header; otherwise there is one for each slice. ``what`` names the
    kind of file for errors.

    Raises
    ------
    VolumeError
        If the volume did not come from DICOM, or its series is gone, changed or without
        identifiers.
    """
    reference = geometry.reference.get("dicom")
    if reference is None or geometry.source is None:
        raise VolumeError(
            f"{path}: {what} needs a volume that was read from a DICOM folder; "
            "choose .nii.gz or .seg.nrrd"
        )
    slices = ordered(geometry.source, reference["series"])[1].slices
    if len({str(item.header.get("SeriesInstanceUID", "")) for item in slices}) > 1:
        raise VolumeError(
            f"{path}: slices of the DICOM series have series UIDs of their own, so no "
            f"{what} can refer to them; choose .nii.gz or .seg.nrrd"
        )
    order = sorted(range(len(slices)), key=lambda k: slices[k].frame or 0)
    multi = slices[0].frame is not None
    if multi and (
        len({item.path for item in slices}) > 1
        or len(slices) < len(read_dicom(slices[0].path, stop_before_pixels=True)[FRAMES].value)
    ):
        raise VolumeError(
            f"{path}: the volume is not the whole of one multi-frame DICOM file, so no {what} "
            "can refer to it; choose .nii.gz or .seg.nrrd"
        )
    if not multi and len({item.uid for item in slices}) < len(slices):
        raise VolumeError(
            f"{path}: slices of the DICOM series share identifiers, so no {what} can refer to "
            "them; choose .nii.gz or .seg.nrrd"
        )
    places = tuple(tuple(item.position.tolist()) for item in slices)
    if (tuple(item.uid for item in slices), places) != (
        reference["slices"],
        reference["positions"],
    ):
        raise VolumeError(f"{path}: the DICOM series has changed on disk; open it again")
    images = []
    for item in slices[:1] if multi else slices:
        image = read_dicom(item.path, stop_before_pixels=True)
        missing = [name for name in _NEEDED if not image.get(name)]
        if missing or not item.uid:
            raise VolumeError(
                f"{path}: the DICOM series has no {', '.join(missing or ['SOPInstanceUID'])}, so "
                f"no {what} can refer to it; choose .nii.gz or .seg.nrrd"
            )
        _clean(image, item, slices[0].orientation, geometry)
        images.append(image)
    return images, order


def _clean(
    image: pydicom.Dataset, item: Slice, directions: NDArray[np.float64], geometry: Geometry
) -> None:
    """Bring a source header to what the standard lets a segmentation refer to.

    Unknown values become empty, text becomes Unicode, directions are made orthogonal and the same
    for all slices, and a missing thickness becomes the distance of the slices.
    """
    image.decode()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPInstanceUID, image.SOPClassUID = item.uid, item.storage
    for name in MAY_BE_EMPTY:
        value = str(image.get(name) or "")
        fits = re.fullmatch(_FORMS.get(name, ".*"), value, re.DOTALL)
        if name not in image or not fits:
            setattr(image, name, None)
    row, column = directions
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    image.ImageOrientationPatient = [f"{c:.12f}"[:16] for c in (*row, *column)]
    if not image.get("SliceThickness"):
        image.SliceThickness = f"{np.linalg.norm(geometry.affine[:3, 2]):.10g}"


def _describe(number: int, label: Label, algorithm: Any) -> Any:
    category, kind, side = coded(label.name)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=algorithm,
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    if side is not None:
        (item,) = description.SegmentedPropertyTypeCodeSequence
        item.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(side)]
    description.SegmentDescription = f"label {label.id}"
    return description
