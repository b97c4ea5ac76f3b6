"""Exports as 3D Slicer's own core sees them, and its files as they are read here.

``make test-slicer`` makes the environment that this needs; elsewhere it is skipped.
"""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, SPLEEN, block, tiny_backbone, tiny_volume
from synthetic import affine_of

from napari_diffseg.io import Geometry, read_labels, write_volume
from napari_diffseg.io.formats import is_sheared
from napari_diffseg.session import Session

PYTHON = Path(__file__).parents[2] / ".venv-slicer" / "bin" / "python"
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="run make test-slicer")

OBLIQUE = affine_of((0, 1, 2), (-1, 1, 1), (1.9, 2.1, 5), (30, -40, 7), (4, -3, 8))
TILTED = affine_of((0, 1, 2), (-1, -1, 1), (1.9, 2.1, 5), (30, -40, 7))
TILTED[1, 2] = 5 * np.tan(np.radians(15))  # a tilted gantry: the grid is sheared
GRIDS = {"oblique": OBLIQUE, "tilted": TILTED}


def slicer(*words):
    script = Path(__file__).with_name("in_slicer.py")
    done = subprocess.run(
        [PYTHON, "-I", script, *map(str, words)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def read_by_slicer(path, tmp_path):
    slicer("read", path, tmp_path / "seen.npz")
    with np.load(tmp_path / "seen.npz") as arrays:
        return dict(arrays)


@pytest.fixture(params=GRIDS)
def session(request):
    ct = tiny_volume()
    geometry = Geometry.from_affine(GRIDS[request.param], ct.geometry.shape)
    labels = [LIVER, replace(SPLEEN, id=7, name="Milz – 脾")]
    session = Session(replace(ct, geometry=geometry), labels, tiny_backbone(), folder=False)
    session.paint.set_slice(1, block())
    session.paint.set_slice(3, block(7))
    return session


def test_segments_have_names_colours_places_and_voxels(tmp_path, session):
    path = tmp_path / "mask.seg.nrrd"
    session.export_mask(path)
    seen = read_by_slicer(path, tmp_path)
    segments = json.loads(str(seen["segments"]))
    assert [(s["name"], tuple(s["colour"]), s["value"]) for s in segments] == [
        (label.name, label.colour, label.id) for label in session.paint.labels
    ]
    geometry = session.volume.geometry
    expected = geometry.from_canonical(session.merged())
    for n, segment in enumerate(segments):
        np.testing.assert_allclose(segment["to_ras"], geometry.affine, atol=1e-4)
        i, j, k = segment["start"]
        array = seen[f"array{n}"].T != 0
        part = expected[i : i + array.shape[0], j : j + array.shape[1], k : k + array.shape[2]]
        assert (array == (part == segment["value"])).all()
        assert array.sum() == (expected == segment["value"]).sum() > 0


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nrrd", "mask.mha", "ct.nii.gz", "ct.nrrd"])
def test_images_lie_in_their_place(tmp_path, session, name):
    volume, path = session.volume, tmp_path / name
    if "mask" in name:
        session.export_mask(path)
        expected = session.merged()
    else:
        write_volume(path, volume)
        expected = volume.hu
    if is_sheared(volume.geometry) and name.endswith(".nii.gz"):
        # Slicer reads NIfTI with ITK, which opens no sheared one: why a note advises .seg.nrrd.
        with pytest.raises(AssertionError, match="FileFormatError"):
            read_by_slicer(path, tmp_path)
        return
    seen = read_by_slicer(path, tmp_path)
    # Slicer turns the axes to its own order, with a matrix that fits.
    array = volume.geometry.placed(seen["array"].T, seen["to_ras"])
    assert array is not None
    assert (array == volume.geometry.from_canonical(expected)).all()


@pytest.mark.parametrize("grid", ["plain", *GRIDS])
def test_a_segmentation_that_slicer_wrote_is_read(tmp_path, grid):
    ct = tiny_volume()
    if grid in GRIDS:
        ct = replace(ct, geometry=Geometry.from_affine(GRIDS[grid], ct.geometry.shape))
    write_volume(tmp_path / "ct.nrrd", ct)
    slicer("write", tmp_path / "ct.nrrd", tmp_path / "m.seg.nrrd")
    seen = read_by_slicer(tmp_path / "ct.nrrd", tmp_path)
    for overlap in ("last", "first"):
        drawn = np.zeros(seen["array"].T.shape, np.uint8)  # in Slicer's own order of axes
        for n in (0, 1) if overlap == "last" else (1, 0):
            drawn[5:20, 4 + 8 * n : 16 + 8 * n, 1:3] = 1 + n
        expected = ct.geometry.placed(drawn, seen["to_ras"])
        assert expected is not None
        found = read_labels(tmp_path / "m.seg.nrrd", ct.geometry, overlap=overlap)
        assert (ct.geometry.from_canonical(found.mask) == expected).all()
        assert [label.name for label in found.labels] == ["Leber – 肝", "spleen"]
        assert found.labels[0].colour == (255, 0, 128)
        (note,) = found.notes
        assert f"overlap in {15 * 4 * 2} voxels; the {overlap} one" in note
