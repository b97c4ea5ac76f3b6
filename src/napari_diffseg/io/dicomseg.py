"""DICOM-SEG: masks as a DICOM segmentation object beside the CT series they were painted on.

A DICOM-SEG belongs to the patient and study of its series, so the writer copies their identifiers
from the series' own files at that moment; nothing else in this package ever holds them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
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
from napari_diffseg.io.dicom_file import check_pixels, read_dicom
from napari_diffseg.io.dicom_scan import Slice
from napari_diffseg.io.formats import LPS, StoredImage, reading
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import (
    Label,
    Overlap,
    class_indices,
    default_colour,
    overlap_note,
)
from napari_diffseg.io.multiframe import FRAMES

# The identifiers that tie a segmentation to its series; without them no viewer can match the two.
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# What DICOM requires to be there, but allows to be empty.
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip

_PERSONAL_GROUPS = (0x0010, 0x0012, 0x0032, 0x0038)
"""Of elements on the patient, a clinical trial, a request and a visit."""
_PERSONAL = (
    "StudyDescription", "PhysiciansOfRecord", "PhysiciansOfRecordIdentificationSequence",
    "NameOfPhysiciansReadingStudy", "PhysiciansReadingStudyIdentificationSequence",
    "ReferringPhysicianIdentificationSequence", "ConsultingPhysicianName",
    "ConsultingPhysicianIdentificationSequence", "ProcedureCodeSequence", "ReferencedStudySequence",
    "ReasonForPerformedProcedureCodeSequence", "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence", "IssuerOfAccessionNumberSequence",
    "ReferencedPatientSequence",
)  # fmt: skip
"""Elements on the study that are optional, too."""

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
    series = {str(image.SOPInstanceUID): str(image.SeriesInstanceUID) for image in images}
    for image in images:  # highdicom takes images of one series only; see _refer
        image.SeriesInstanceUID = images[0].SeriesInstanceUID
    if not labels:
        raise VolumeError(f"{path}: a DICOM-SEG needs at least one label; paint or add one")
    extra = _extra(array, order)
    places: Any = geometry.reference["dicom"]["positions"]
    every = sorted([*order, *extra]) if extra else order
    positions = [hd.PlanePositionSequence("PATIENT", places[k]) for k in every] if extra else None
    release = version("napari-diffseg")
    algorithm = hd.AlgorithmIdentificationSequence(
        name="napari-diffseg", version=release, family=codes.DCM.ArtificialIntelligence
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty or unusual values in the source's own header
        segmentation = hd.seg.Segmentation(
            source_images=images,
            pixel_array=class_indices(labels)[array.T[every]],
            plane_positions=positions,
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
        if extra:
            _name_sources(segmentation, images, order, places)
        _refer(segmentation, series)
        _forget(segmentation)
        segmentation.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, for names in any language
        segmentation.save_as(path)


def _extra(array: NDArray[Any], order: list[int]) -> list[int]:
    """Slices that the series lacks and that a mask (i, j, k) holds something on."""
    return [k for k in np.flatnonzero(array.any(axis=(0, 1))).tolist() if k not in set(order)]


def _name_sources(
    segmentation: pydicom.Dataset, images: list[pydicom.Dataset], order: list[int], places: Any
) -> None:
    """Have every frame that lies on a slice of the series refer to it.

    highdicom does so for all frames or, where one lies on none, for none of them. ``order`` is the
    slice that each image, or each frame of the one image, lies on; ``places`` where slices lie.

    Source: DICOM PS3.3, C.7.6.16.2.6 "Derivation Image Macro".
    """
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        own = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        off = np.linalg.norm(np.array([places[k] for k in order]) - own, axis=1)
        if off.min() > 1e-3:
            continue
        n = int(off.argmin())
        image = images[n] if len(images) == len(order) else images[0]
        source, derivation = pydicom.Dataset(), pydicom.Dataset()
        source.ReferencedSOPClassUID = image.SOPClassUID
        source.ReferencedSOPInstanceUID = image.SOPInstanceUID
        if len(images) < len(order):
            source.ReferencedFrameNumber = n + 1
        purpose = codes.cid7202.SourceImageForImageProcessingOperation
        source.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(purpose)]
        source.SpatialLocationsPreserved = "YES"
        kind = codes.cid7203.SegmentationImageDerivation
        derivation.DerivationCodeSequence = [hd.sr.CodedConcept.from_code(kind)]
        derivation.SourceImageSequence = [source]
        frame.DerivationImageSequence = [derivation]


def _refer(segmentation: pydicom.Dataset, series: Mapping[str, str]) -> None:
    """List the images under the series that each is of; ``series`` is by image.

    Source: DICOM PS3.3, C.12.2 "Common Instance Reference Module".
    """
    (item,) = segmentation.ReferencedSeriesSequence
    listed = []
    for uid in dict.fromkeys(series.values()):
        of = pydicom.Dataset()
        of.SeriesInstanceUID = uid
        of.ReferencedInstanceSequence = [
            image
            for image in item.ReferencedInstanceSequence
            if series[str(image.ReferencedSOPInstanceUID)] == uid
        ]
        listed.append(of)
    segmentation.ReferencedSeriesSequence = listed


def _forget(segmentation: pydicom.Dataset) -> None:
    """Drop what highdicom copies of patient and study and the standard does not require.

    Source: DICOM PS3.3, C.7.1.1 "Patient Module" to C.7.2.3 "Clinical Trial Study Module".
    """
    for element in list(segmentation):
        of_patient = element.tag.group in _PERSONAL_GROUPS or element.keyword in _PERSONAL
        if of_patient and element.keyword not in MAY_BE_EMPTY:
            del segmentation[element.tag]


def read_dicomseg(
    path: Path, geometry: Geometry | None = None, overlap: Overlap = "last"
) -> StoredImage:
    """Read a DICOM-SEG; where segments overlap, ``overlap`` says which wins.

    On a ``geometry``, each frame lies where its own position and orientation put it, whatever its
    order, its direction and the images that it refers to. Without one, frames must make a volume.

    Raises
    ------
    VolumeError
        If the file is damaged, no segmentation, or has overlapping segments that are refused.
    """
    with reading(path):
        dataset = read_dicom(path)
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
            array, shared = segframes.on_grid(path, dataset, geometry, overlap)
            affine = geometry.affine
        else:
            check_pixels(path, dataset)
            array, affine, shared = _combined(path, dataset, overlap)
        notes = (overlap_note(shared, overlap),) if shared is not None else ()
        return StoredImage(ids[array], affine, notes=notes, labels=tuple(labels))


def _combined(
    path: Path, dataset: pydicom.Dataset, overlap: Overlap
) -> tuple[NDArray[Any], NDArray[np.float64], int | None]:
    """Segment numbers of a file's own grid, its affine, and 0 where segments overlap."""
    segmentation = hd.seg.Segmentation.from_dataset(dataset, copy=False)
    numbers = np.array(list(segmentation.segment_numbers))
    shared = None
    try:
        volume = segmentation.get_volume(combine_segments=True)
        array = volume.array
    except Exception as error:
        # What highdicom raises of an overlap is hidden by an error of its own tidying up.
        if not ("overlap" in str(error).lower() or "overlap" in str(error.__context__).lower()):
            raise
        if overlap == "refuse":
            raise segframes.overlapping(path) from error
        # The largest number wins, so for the first segment to win the numbers are turned round.
        order = numbers if overlap == "last" else numbers[::-1]
        segmentation = hd.seg.Segmentation.from_dataset(dataset, copy=False)
        volume = segmentation.get_volume(
            segment_numbers=order, combine_segments=True, relabel=True, skip_overlap_checks=True
        )
        array, shared = np.array([0, *order])[volume.array], 0
    return array, LPS @ volume.affine, shared


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
    at = [k for k, uid in enumerate(reference["slices"]) if uid is not None]
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
    now = [(item.uid, tuple(item.position.tolist())) for item in slices]
    if now != [(reference["slices"][k], reference["positions"][k]) for k in at]:
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
    return images, [at[k] for k in order]


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
