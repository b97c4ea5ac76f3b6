"""One good file of each kind, how it is opened, and how to spoil it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_mutators as mutators
import nibabel as nib
import numpy as np
import pydicom
import torch
from fault_mutators import BYTES, Mutator
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)
from synthetic import enhanced

from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.io import (
    check_outputs,
    labels_for,
    list_series,
    load_names,
    read_labels,
    read_volume,
    write_mask,
    write_volume,
)
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume
from napari_diffseg.network.backbone import (
    Backbone,
    Intensity,
    import_backbone,
    load_backbone,
    registry_line,
    save_backbone,
)
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.network.unet import UNet, UNetConfig
from napari_diffseg.session import Queue, Session, read_cases

SHAPE = (6, 32, 40)


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    name
        For the results.
    place
        The file or folder, below the folder of good files.
    targets
        Patterns of the files that are spoilt, below ``place`` where it is a folder.
    mutate
        Ways to spoil one, the general ones apart.
    doors
        Everything a user can open it by; each is tried.
    """

    name: str
    place: str
    doors: tuple[Callable[[Path], Any], ...]
    mutate: tuple[Mutator, ...] = ()
    targets: tuple[str, ...] = ()


def volume() -> Volume:
    """A small CT with a bright block; its values would do as labels, too."""
    hu = np.full(SHAPE, 20, np.int16)
    hu[:, 4:28, 4:26] = 40
    hu[:, 8:16, 8:16] = 100
    hu += np.random.default_rng(0).integers(-10, 10, SHAPE, dtype=np.int16)
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    return Volume(hu, Geometry.from_affine(affine, SHAPE[::-1]), "ct")


def painted() -> np.ndarray:
    """Two labels on it."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 8:16, 8:16], mask[2, 20:, 20:] = 1, 7
    return mask


def _series(folder: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for n, plane in enumerate(volume().hu):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.PatientName, data.PatientID, data.Modality = "DOE^JANE", "4711", "CT"
        data.PatientBirthDate = data.PatientSex = data.StudyTime = data.StudyID = ""
        data.AccessionNumber = data.ReferringPhysicianName = ""
        data.StudyDate = "20200101"
        data.StudyInstanceUID, data.SeriesInstanceUID = study, series
        data.FrameOfReferenceUID, data.SeriesNumber = frame, 1
        data.ImagePositionPatient = [0, 0, 5 * n]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [2, 2], 5
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.PixelData = plane.tobytes()
        if pydicom.uid.UID(syntax).is_encapsulated:
            data.compress(syntax, generate_instance_uid=False)
        meta.TransferSyntaxUID = syntax
        data.save_as(folder / f"{n}.dcm", enforce_file_format=True)


def _networks(folder: Path) -> Backbone:
    torch.manual_seed(0)
    unet = UNet(UNetConfig(32, (8, 16), 1, (), 8, "conv"))
    backbone = Backbone("tiny", unet, Intensity((-100.0, 200.0), (-1.0, 1.0)))
    save_backbone(folder / "tiny.safetensors", backbone)
    inside = folder / "backbones"
    inside.mkdir()
    shutil.copy(folder / "tiny.safetensors", inside)
    line = registry_line(inside / "tiny.safetensors")
    (inside / "registry.toml").write_text(line)
    return backbone


def make(folder: Path) -> None:
    """Write all good files into an empty folder."""
    ct, mask = volume(), painted()
    labels = labels_for([1, 7], names={1: "liver", 7: "spleen"})
    for ending in (".nii.gz", ".nii", ".nrrd", ".mha"):
        write_volume(folder / f"ct{ending}", ct)
    write_mask(folder / "mask.seg.nrrd", mask, ct.geometry, labels)
    write_mask(folder / "mask.nii.gz", mask, ct.geometry, labels)
    for name in ("pair", "mhd", "nhdr"):
        (folder / name).mkdir()
    nib.save(nib.Nifti1Pair(np.asarray(nib.load(folder / "ct.nii").dataobj),
                            ct.geometry.affine), folder / "pair" / "ct.hdr")  # fmt: skip
    write_volume(folder / "mhd" / "ct.mhd", ct)
    head, _, data = (folder / "ct.nrrd").read_bytes().partition(b"\n\n")
    (folder / "nhdr" / "ct.nhdr").write_bytes(head + b"\ndata file: ct.raw.gz\n\n")
    (folder / "nhdr" / "ct.raw.gz").write_bytes(data)
    _series(folder / "series")
    _series(folder / "series-rle", RLELossless)
    _series(folder / "series-j2k", JPEG2000Lossless)
    _series(folder / "series-deflated", DeflatedExplicitVRLittleEndian)
    series = read_volume(folder / "series").geometry
    write_mask(folder / "seg.dcm", mask, series, labels)
    write_mask(folder / "mask.rtstruct.dcm", mask, series, labels)
    enhanced(folder / "series", folder / "enhanced.dcm")
    _lists(folder)
    backbone = _networks(folder)
    (folder / "names.json").write_text(json.dumps({"liver": 1, "spleen": 7}))
    (folder / "recipe.toml").write_text(
        'name = "tiny"\n[unet]\nimage_size = 32\nwidths = [8, 16]\nblocks = 1\n'
        "[prepare]\ngrid = 64\n[train]\nbatch = 2\n"
        '[[sources]]\npattern = "(?P<patient>x)"\ncollection = "none"\n'
    )
    with Session(ct, labels, backbone, folder / "sessions") as session:
        session.paint.set_slice(1, mask[1])
        session.paint.set_slice(2, mask[2])
        list(session.trainer.train(TrainSettings(iterations=2, device="cpu")))
        list(session.trainer.predict())
        session.prediction.edit(4, mask[4])
        session.trainer.save_model(folder / "model.safetensors")


def _lists(folder: Path) -> None:
    """Lists of cases, nnU-Net's layout and a queue, each in a folder with what it names."""
    for name in ("list", "table", "nnunet/imagesTr", "nnunet/labelsTr", "queue"):
        (folder / name).mkdir(parents=True)
    for place in ("list", "table", "queue"):
        for name in ("ct.nii.gz", "mask.nii.gz"):
            shutil.copy(folder / name, folder / place)
    shutil.copy(folder / "ct.nii.gz", folder / "nnunet" / "imagesTr" / "a_0000.nii.gz")
    shutil.copy(folder / "mask.nii.gz", folder / "nnunet" / "labelsTr" / "a.nii.gz")
    case = {"volume": "ct.nii.gz", "labels": "mask.nii.gz", "slices": "1,2"}
    (folder / "list" / "cases.json").write_text(json.dumps([case]))
    rows = [",".join(case), "ct.nii.gz,mask.nii.gz,1 2"]
    (folder / "table" / "cases.csv").write_text("\n".join(rows))
    about = {
        "labels": {"background": 0, "liver": 1, "spleen": 7},
        "file_ending": ".nii.gz",
        "channel_names": {"0": "CT"},
        "numTraining": 1,
    }
    (folder / "nnunet" / "dataset.json").write_text(json.dumps(about))
    Queue(folder / "queue").add([folder / "queue" / "ct.nii.gz"])


def _labels(path: Path) -> None:
    read_labels(path)


def _on_grid(path: Path) -> None:
    read_labels(path, volume().geometry, part=True)


def _resampled(path: Path) -> None:
    read_labels(path, volume().geometry, resample=True)


def _beside(path: Path) -> None:
    check_outputs([path.parent / "other.nii.gz"], [path])


def _recover(folder: Path) -> None:
    session = Session.recover(volume(), folder)
    if session is None:
        return
    with session:
        session.merged()
        json.dumps(session.report())
        session.suggest()
        for made in session.rounds.all:
            session.trainer.restore(made.number)
        if session.trainer.segmenter is not None:
            for found in session.trainer.predict():
                assert found.mask.shape == SHAPE[1:]
        session.paint.set_slice(0, painted()[0])
        session.export_mask(folder / "out.nii.gz")


def _cases(path: Path) -> None:
    for case in read_cases(path):
        case()


def _queue(folder: Path) -> None:
    queue = Queue(folder)
    queue.rows()
    queue.next()
    queue.add([folder / "ct.nii.gz"])


def _recipe(path: Path) -> None:
    from diffseg_training.config import load_recipe

    load_recipe(str(path))


def _import(folder: Path) -> None:
    import_backbone(folder)


_IMAGE = (read_volume, _labels, _on_grid, _beside)
_TEXT = mutators.text_header
_SESSION = (mutators.flip, mutators.truncate, mutators.insert)

FORMATS = (
    Format("nifti", "ct.nii", _IMAGE, (mutators.nifti_fields,) * 4),
    Format(
        "nifti-gz",
        "ct.nii.gz",
        _IMAGE,
        tuple(mutators.packed(m) for m in (*BYTES, mutators.nifti_fields)),
    ),
    Format("nifti-pair", "pair/ct.hdr", _IMAGE, (mutators.nifti_fields,) * 4, ("ct.hdr", "ct.img")),
    Format("nrrd", "ct.nrrd", _IMAGE, (_TEXT,) * 8),
    Format("nhdr", "nhdr/ct.nhdr", _IMAGE, (_TEXT,) * 8, ("ct.nhdr", "ct.nhdr", "ct.raw.gz")),
    Format("seg-nrrd", "mask.seg.nrrd", (read_volume, _labels, _on_grid), (_TEXT,) * 8),
    Format("mha", "ct.mha", _IMAGE, (_TEXT,) * 8),
    Format("mhd", "mhd/ct.mhd", _IMAGE, (_TEXT,) * 8, ("ct.mhd", "ct.mhd", "ct.zraw")),
    Format("dicom", "series", (read_volume, list_series), (), ("*.dcm",)),
    Format("dicom-rle", "series-rle", (read_volume,), (), ("*.dcm",)),
    Format("dicom-j2k", "series-j2k", (read_volume,), (), ("*.dcm",)),
    Format("dicom-deflated", "series-deflated", (read_volume,), (), ("*.dcm",)),
    Format("dicom-seg", "seg.dcm", (_labels, _on_grid)),
    Format("dicom-enhanced", "enhanced.dcm", (read_volume,)),
    Format("rtstruct", "mask.rtstruct.dcm", (_on_grid, _resampled), (mutators.dicom_text,) * 12),
    Format("cases", "list/cases.json", (_cases,), (mutators.json_text,) * 8, ("cases.json",)),
    Format("cases-csv", "table/cases.csv", (_cases,), (mutators.table,) * 12, ("cases.csv",)),
    Format("nnunet", "nnunet", (_cases,), (mutators.json_text,) * 8, ("dataset.json",)),
    Format("queue", "queue", (_queue,), (mutators.json_text,) * 8, ("queue.json",)),
    Format("model", "model.safetensors", (Segmenter.load,), (mutators.safetensors_header,) * 8),
    Format("backbone", "tiny.safetensors", (load_backbone,), (mutators.safetensors_header,) * 8),
    Format("registry", "backbones", (_import,), (_TEXT,) * 8, ("registry.toml",)),
    Format(
        "session-journal",
        "sessions",
        (_recover,),
        (mutators.journal_records,) * 12,
        ("*/*/journal",),
    ),
    Format("session-files", "sessions", (_recover,), (), ("*/*/*.npz", "*/*/*.safetensors")),
    Format("session-rounds", "sessions", (_recover,), (mutators.json_text,) * 12, ("*/*/*.json",)),
    Format("names", "names.json", (load_names,), (mutators.json_text,) * 8),
    Format("configuration", "recipe.toml", (_recipe,), (_TEXT,) * 8),
)


def spoilt(
    kind: Format, good: Path, folder: Path, count: int, rng: random.Random
) -> Iterator[tuple[Path, str]]:
    """Make spoilt copies of a kind, one after the other, each in a folder of its own.

    Yields
    ------
    What is to be opened, and how it was spoilt.
    """
    source = good / kind.place
    for n in range(count):
        home = folder / f"{n:05}"
        home.mkdir()
        if source.is_dir() or kind.targets:
            whole = source if source.is_dir() else source.parent
            place = home / "it"
            shutil.copytree(whole, place)
            found = [file for pattern in kind.targets for file in sorted(place.glob(pattern))]
            target = rng.choice(found)
            opened = place if source.is_dir() else place / source.name
        else:
            target = opened = home / source.name
            shutil.copy(source, target)
        mutate = rng.choice((*BYTES, *kind.mutate))
        data = target.read_bytes()
        with suppress(IndexError):  # too short for this one
            data = mutate(data, rng)
        target.write_bytes(data)
        yield opened, f"{target.relative_to(home)}: {mutate.__name__}"
