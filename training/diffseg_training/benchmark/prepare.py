"""Bring public labelled CT sets into nnU-Net's folder layout with the 13 organs of FLARE22."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from diffseg_training.store import write_json
from napari_diffseg.io.files import atomic_write

ORGANS = {
    "liver": 1,
    "right kidney": 2,
    "spleen": 3,
    "pancreas": 4,
    "aorta": 5,
    "inferior vena cava": 6,
    "right adrenal gland": 7,
    "left adrenal gland": 8,
    "gallbladder": 9,
    "esophagus": 10,
    "stomach": 11,
    "duodenum": 12,
    "left kidney": 13,
}
"""Ids of FLARE22, which arXiv 2402.15216v2 uses."""

FLARE22_COUNTS = {"unlabelled": 207_029, "train": 3_879, "test": 915}
"""Transverse slices that the papers count."""

# Ids 1, 2, ... of the two sets; "-" is the portal vein, which FLARE22 does not have.
_BOTH = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach"),
    *("aorta", "inferior vena cava"),
)
_AMOS = (*_BOTH, "pancreas", "right adrenal gland", "left adrenal gland", "duodenum")
_BTCV = (*_BOTH, "-", "pancreas", "right adrenal gland", "left adrenal gland")
_TOTALSEGMENTATOR = {
    "kidney_right": "right kidney",
    "kidney_left": "left kidney",
    "inferior_vena_cava": "inferior vena cava",
    "adrenal_gland_right": "right adrenal gland",
    "adrenal_gland_left": "left adrenal gland",
}


class PrepareError(ValueError):
    """A download does not look as its publishers describe it."""


@dataclass(frozen=True)
class Case:
    """One labelled scan of a download; `labels` gives its mask with FLARE22's ids."""

    name: str
    image: Path
    labels: Callable[[], NDArray[np.uint8]]


def _table(names: Iterable[str]) -> NDArray[np.uint8]:
    """Lookup from a set's ids 1, 2, ... to ours; what has no name here becomes background."""
    table = np.zeros(256, np.uint8)
    for number, name in enumerate(names, start=1):
        table[number] = ORGANS.get(name, 0)
    return table


def _mapped(path: Path, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return table[np.asarray(nib.load(path).dataobj).astype(np.uint8)]


def _pairs(
    folder: Path, images: str, labels: Callable[[str], str], table: NDArray[np.uint8]
) -> Iterator[Case]:
    for image in sorted(folder.glob(images)):
        name = image.name.removesuffix(".nii.gz")
        path = folder / labels(name)
        if path.exists():
            yield Case(name.removesuffix("_0000"), image, lambda p=path: _mapped(p, table))  # type: ignore[misc]


def flare22(folder: Path) -> Iterator[Case]:
    """FLARE22: ``images/FLARE22_Tr_0001_0000.nii.gz`` and ``labels/FLARE22_Tr_0001.nii.gz``."""
    own = _table(ORGANS)
    return _pairs(
        folder, "images/*.nii.gz", lambda n: f"labels/{n.removesuffix('_0000')}.nii.gz", own
    )


def amos22(folder: Path) -> Iterator[Case]:
    """AMOS22: ``imagesTr/amos_0001.nii.gz`` and ``labelsTr``; cases above 500 are MRI, left out."""
    for case in _pairs(
        folder, "imagesTr/amos_*.nii.gz", lambda n: f"labelsTr/{n}.nii.gz", _table(_AMOS)
    ):
        if int(case.name.split("_")[1]) <= 500:
            yield case


def btcv(folder: Path) -> Iterator[Case]:
    """BTCV: ``img/img0001.nii.gz`` and ``label/label0001.nii.gz``."""
    return _pairs(
        folder, "img/*.nii.gz", lambda n: f"label/{n.replace('img', 'label')}.nii.gz", _table(_BTCV)
    )


def msd(folder: Path) -> Iterator[Case]:
    """Medical Segmentation Decathlon: one organ a task; its tumours and vessels count to it."""
    organ = next((o for o in ("liver", "pancreas", "spleen") if o in folder.name.lower()), None)
    if organ is None:
        raise PrepareError(
            f"{folder}: give the folder of Task03_Liver, Task07_Pancreas or Task09_Spleen"
        )
    return _pairs(
        folder, f"imagesTr/{organ}_*.nii.gz", lambda n: f"labelsTr/{n}.nii.gz", _table([organ] * 2)
    )


def totalsegmentator(folder: Path) -> Iterator[Case]:
    """TotalSegmentator: ``s0000/ct.nii.gz`` and ``s0000/segmentations/liver.nii.gz``, ..."""
    for image in sorted(folder.glob("*/ct.nii.gz")):
        yield Case(image.parent.name, image, lambda p=image: _one_file_an_organ(p))  # type: ignore[misc]


def _one_file_an_organ(image: Path) -> NDArray[np.uint8]:
    mask = np.zeros(nib.load(image).shape[:3], np.uint8)
    theirs = {ours: name for name, ours in _TOTALSEGMENTATOR.items()}
    for organ, number in ORGANS.items():
        path = image.parent / "segmentations" / f"{theirs.get(organ, organ)}.nii.gz"
        if not path.exists():
            raise PrepareError(f"{path}: the mask of the {organ} is missing")
        mask[np.asarray(nib.load(path).dataobj) > 0] = number
    return mask


SOURCES: Mapping[str, Callable[[Path], Iterator[Case]]] = {
    "flare22": flare22,
    "amos22": amos22,
    "btcv": btcv,
    "msd": msd,
    "totalsegmentator": totalsegmentator,
}


def prepare(source: str, folder: Path, target: Path) -> Iterator[str]:
    """Write a download as ``imagesTr``, ``labelsTr``, ``dataset.json`` and ``labels.json``.

    Images are linked where the file system can, else copied. Cases that are complete in the
    target are left alone, so that an interrupted run goes on. Grids are kept: each method
    resamples as it needs.

    Parameters
    ----------
    source
        Key of :data:`SOURCES`.
    folder
        The unpacked download.
    target
        Folder to make.

    Yields
    ------
    str
        Name of each case when it is done.

    Raises
    ------
    PrepareError
        If the download is not as its publishers describe it.
    """
    cases = list(SOURCES[source](folder))
    if not cases:
        layout = (SOURCES[source].__doc__ or "").splitlines()[0]
        raise PrepareError(f"{folder}: holds no labelled scans; expected {layout}")
    for name in ("imagesTr", "labelsTr"):
        (target / name).mkdir(parents=True, exist_ok=True)
    found: set[int] = set()
    for case in cases:
        image = target / "imagesTr" / f"{case.name}_0000.nii.gz"
        labels = target / "labelsTr" / f"{case.name}.nii.gz"
        if not image.exists():
            _link(case.image, image)
        if labels.exists():
            mask = np.asarray(nib.load(labels).dataobj).astype(np.uint8)
        else:
            mask = case.labels()
            original = nib.load(case.image)
            if mask.shape != original.shape[:3]:
                raise PrepareError(
                    f"{case.image}: image {original.shape} and labels {mask.shape} differ"
                )
            with atomic_write(labels) as part:
                nib.save(nib.Nifti1Image(mask, original.affine), part)
        found |= set(np.unique(mask).tolist())
        yield case.name
    names = {name: number for name, number in ORGANS.items() if number in found}
    about: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **names},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    write_json(target / "dataset.json", about)
    write_json(target / "labels.json", names)
    if source == "flare22":
        split = flare22_split({case.name: transverse_slices(case.image) for case in cases})
        write_json(target / "split.json", split)


def flare22_split(slices: Mapping[str, int], tested: int = 10) -> dict[str, list[str]]:
    """Split FLARE22's labelled scans 4:1 so that the slices are the papers' 3,879 and 915.

    The papers do not list their test scans. This is the first combination, in order of the names,
    that has their counts.

    Parameters
    ----------
    slices
        Transverse slices of each scan.
    tested
        Number of test scans.

    Raises
    ------
    PrepareError
        If the total is another, or no combination has the counts.
    """
    wanted = FLARE22_COUNTS["test"]
    total = sum(slices.values())
    if total != wanted + FLARE22_COUNTS["train"]:
        raise PrepareError(
            f"the labelled scans have {total} transverse slices, the papers' "
            f"{wanted + FLARE22_COUNTS['train']}: the download is incomplete or another release"
        )
    names = sorted(slices)
    # reach[i] holds the (scans, slices) that can be made of names[i:]
    reach: list[set[tuple[int, int]]] = [{(0, 0)}]
    for name in reversed(names):
        more = {(n + 1, s + slices[name]) for n, s in reach[0] if n < tested}
        reach.insert(0, reach[0] | {pair for pair in more if pair[1] <= wanted})
    left = (tested, wanted)
    if left not in reach[0]:
        raise PrepareError(f"no {tested} of the labelled scans have {wanted} slices together")
    test = []
    for index, name in enumerate(names):
        rest = (left[0] - 1, left[1] - slices[name])
        if left != (0, 0) and rest in reach[index + 1]:
            test.append(name)
            left = rest
    return {"train": [name for name in names if name not in test], "test": test}


def check_unlabelled(folder: Path, scans: int = 1000) -> int:
    """Count the transverse slices of the papers' first 1000 unlabelled scans, and compare.

    Raises
    ------
    PrepareError
        If the count is not the papers' 207,029.
    """
    images = sorted(folder.glob("*.nii.gz"))[:scans]
    count = sum(map(transverse_slices, images))
    if count != FLARE22_COUNTS["unlabelled"]:
        raise PrepareError(
            f"{folder}: the first {len(images)} scans have {count} transverse slices, the papers' "
            f"{FLARE22_COUNTS['unlabelled']}: the download is incomplete or another release"
        )
    return count


def transverse_slices(path: Path) -> int:
    """Number of slices along the axis nearest to inferior-superior, from the header alone."""
    image = nib.load(path)
    axis = [code in "IS" for code in nib.aff2axcodes(image.affine)].index(True)
    return int(image.shape[axis])


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        with atomic_write(target) as part:
            shutil.copyfile(source, part)
