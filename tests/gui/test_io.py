"""What the npe2 manifest contributes: readers, a writer, sample data, the panel."""

from pathlib import Path

import nibabel as nib
import npe2
import numpy as np
import pytest
from npe2 import PluginManifest
from session_tools import LIVER
from synthetic import affine_of, distinct, line, save_nifti, save_series

import napari_diffseg
from napari_diffseg.gui.io import GEOMETRY, LABELS, VOLUME, get_reader, write_labels
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.volume import read_volume

MANIFEST = Path(napari_diffseg.__file__).with_name("napari.yaml")


@pytest.fixture
def manager():
    manager = npe2.PluginManager()
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    manager.register(manifest)
    return manager


def test_manifest_is_valid_and_complete(manager):
    contributions = manager.get_manifest("napari-diffseg").contributions
    assert [widget.command for widget in contributions.widgets] == ["napari-diffseg.panel"]
    assert [sample.key for sample in contributions.sample_data] == ["ct"]
    installed = PluginManifest.from_distribution("napari-diffseg")
    assert installed.contributions == contributions


@pytest.mark.parametrize(
    "name",
    [f"a.{e}" for e in ("nii", "nii.gz", "hdr", "img", "nrrd", "nhdr", "mha", "mhd", "dcm")],
)
def test_reader_offers_itself_for_volumes(manager, name):
    commands = [reader.command for reader in manager.iter_compatible_readers([name])]
    assert commands == ["napari-diffseg.read"]
    assert not list(manager.iter_compatible_readers(["a.png"]))


def test_nifti_is_read_in_canonical_order_with_its_geometry(tmp_path):
    affine = affine_of((2, 0, 1), (1, -1, 1))
    path = save_nifti(tmp_path / "ct.nii.gz", distinct((3, 4, 5)), affine)
    ((data, kwargs, kind),) = get_reader(str(path))(str(path))
    volume = read_volume(path)
    assert kind == "image"
    assert np.array_equal(data, volume.hu)
    assert kwargs["name"] == "ct"
    assert kwargs["scale"] == volume.geometry.spacing
    assert kwargs["contrast_limits"] == (-160, 240)
    np.testing.assert_allclose(kwargs["metadata"][VOLUME].geometry.affine, affine)
    assert get_reader(str(tmp_path / "none.nii")) is None


def test_dicom_folder_is_read(tmp_path, manager):
    save_series(tmp_path, line(3))
    commands = [reader.command for reader in manager.iter_compatible_readers([str(tmp_path)])]
    assert commands == ["napari-diffseg.read"]
    ((data, kwargs, _),) = get_reader([str(tmp_path)])([str(tmp_path)])
    assert data.shape == kwargs["metadata"][VOLUME].geometry.canonical_shape
    assert kwargs["scale"][0] == 2.5


def test_writer_lands_on_the_source_grid(tmp_path):
    affine = affine_of((1, 2, 0), (-1, 1, -1), degrees=(5, 3, 0))
    source = save_nifti(tmp_path / "ct.nii", distinct((3, 4, 5)), affine)
    geometry = read_volume(source).geometry
    mask = (np.arange(60) % 2).astype(np.uint8).reshape(geometry.canonical_shape)
    path = str(tmp_path / "mask.nii.gz")
    meta = {"name": "paint", "metadata": {GEOMETRY: geometry, LABELS: (LIVER,)}}
    assert write_labels(path, mask, meta) == [path]
    stored = nib.load(path)
    np.testing.assert_allclose(stored.affine, affine, atol=1e-5)
    assert np.array_equal(geometry.to_canonical(np.asarray(stored.dataobj)), mask)
    with pytest.raises(VolumeError, match="'cells' has no source grid"):
        write_labels(str(tmp_path / "b.nii.gz"), mask, {"name": "cells", "metadata": {}})
    assert not (tmp_path / "b.nii.gz").exists()


def test_sample_opens_with_the_panel(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.open_sample("napari-diffseg", "ct")
    assert VOLUME in viewer.layers[0].metadata
    qtbot.waitUntil(lambda: "paint" in viewer.layers, timeout=30_000)
    widgets = viewer.window.dock_widgets
    assert len(widgets) == 1
    assert next(iter(widgets)).startswith("Segment CT")
