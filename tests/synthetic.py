"""Volumes and DICOM series made up for the tests."""

import itertools

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    generate_uid,
)
from scipy.spatial.transform import Rotation

ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(order, signs, spacing=(1.5, 0.75, 3.0), origin=(-20.0, 31.0, 7.5), degrees=(0, 0, 0)):
    """Affine whose source axis n runs along RAS axis order[n], then turned by the angles."""
    affine = np.eye(4)
    axes = np.zeros((3, 3))
    for n in range(3):
        axes[order[n], n] = signs[n]
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ axes * spacing
    affine[:3, 3] = origin
    return affine


def save_nifti(path, array, affine, qform=1, sform=1):
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    nib.save(image, path)
    return path


def distinct(shape, dtype=np.int16):
    """Array in which every voxel differs, so that no flip or swap goes unseen."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


STUDY, FRAME = generate_uid(), generate_uid()


def stored(shape):
    """12-bit values (k, rows, columns) in which every voxel differs from those around it."""
    return (np.arange(np.prod(shape)) % 4093).astype(np.uint16).reshape(shape)


def jpeg_lossless(path, plane):
    """Encode a plane as scanners most often do; pydicom has no encoder for it, ITK's GDCM has."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    writer.SetUseCompression(True)
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(plane[None]))
    data = pydicom.dcmread(path)
    path.unlink()
    assert data.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    return data.PixelData


def save_series(
    folder,
    positions,
    *,
    rows=4,
    columns=5,
    series=None,
    number=1,
    orientation=(1, 0, 0, 0, 1, 0),
    syntax=ExplicitVRLittleEndian,
    names=None,
    change=None,
):
    """Write one slice for each position, in (L, P, S) mm; HU = stored - 1024."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    pixels = stored((len(positions), rows, columns))
    for n, position in enumerate(positions):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / (names[n] if names else f"{number}-{n:03}")
        data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SpecificCharacterSet = "ISO_IR 100"
        data.PatientName, data.PatientID = "DOE^JÄNE", "PAT-4711"
        data.PatientBirthDate, data.PatientSex = "", ""
        data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, series
        data.FrameOfReferenceUID, data.Modality = FRAME, "CT"
        data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20200101", "", "", ""
        data.ReferringPhysicianName, data.PositionReferenceIndicator = "", ""
        data.SeriesNumber, data.InstanceNumber = number, n + 1
        data.SeriesDescription = f"series {number}"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImagePositionPatient = [f"{p:.6g}" for p in position]
        data.ImageOrientationPatient = [f"{o:.10g}" for o in orientation]
        data.PixelSpacing, data.SliceThickness = [0.7, 0.9], 9
        data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.PixelRepresentation = 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.PixelData = pixels[n].tobytes()
        if change:
            change(n, data)
        if syntax == JPEGLosslessSV1:
            data.PixelData = jpeg_lossless(folder / "frame.dcm", pixels[n])
            data["PixelData"].is_undefined_length = True
            meta.TransferSyntaxUID = syntax
        elif syntax.is_compressed:
            data.compress(syntax, generate_instance_uid=False)
        else:
            meta.TransferSyntaxUID = syntax
        data.save_as(path, enforce_file_format=True)
    return pixels


def enhanced(folder, path, order=None):
    """Make one Enhanced CT of the series in a folder, its frames in some order of file names."""
    slices = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    slices = [slices[n] for n in order or range(len(slices))]
    data, one = pydicom.dcmread(sorted(folder.iterdir())[0]), slices[0]
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = EnhancedCTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.NumberOfFrames = len(slices)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(data, tag)
    for tag in ("SliceThickness", "RescaleSlope", "RescaleIntercept"):
        delattr(data, tag)
    shared, measures, turned = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = one.PixelSpacing, one.SliceThickness
    turned.ImageOrientationPatient = one.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turned]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = []
    for item in slices:
        own, place, value, content = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = item.ImagePositionPatient
        value.RescaleSlope, value.RescaleIntercept = item.RescaleSlope, item.RescaleIntercept
        value.RescaleType = "HU"
        content.FrameAcquisitionNumber = item.get("AcquisitionNumber", 1)
        own.PlanePositionSequence, own.PixelValueTransformationSequence = [place], [value]
        own.FrameContentSequence = [content]
        data.PerFrameFunctionalGroupsSequence.append(own)
    data.PixelData = b"".join(item.PixelData for item in slices)
    data.save_as(path, enforce_file_format=True)
    return data


def line(count, step=(0, 0, 2.5), start=(-10, 20, 100)):
    return [np.array(start, float) + n * np.array(step, float) for n in range(count)]


def deleting(name):
    return lambda n, data: delattr(data, name)
