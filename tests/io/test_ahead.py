"""Reading a volume before it is asked for; what a first picture does not need is not imported."""

import subprocess
import sys
import time

import numpy as np
import pytest
from session_tools import tiny_volume

from napari_diffseg.io.ahead import read_ahead, volume_at
from napari_diffseg.io.geometry import VolumeError
from napari_diffseg.io.volume import write_volume


@pytest.fixture
def path(tmp_path):
    write_volume(tmp_path / "ct.nii.gz", tiny_volume())
    return tmp_path / "ct.nii.gz"


def test_a_volume_that_was_read_ahead_is_handed_over_once(path):
    read_ahead(path)
    first = volume_at(path)
    np.testing.assert_array_equal(first.hu, tiny_volume().hu)
    path.unlink()
    with pytest.raises(VolumeError, match="no such file"):
        volume_at(path)


def test_it_is_read_in_the_background(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    read_ahead(path)
    time.sleep(1)  # far longer than it takes
    path.unlink()
    np.testing.assert_array_equal(volume_at(path.relative_to(path.parent)).hu, tiny_volume().hu)


def test_what_is_wrong_with_it_is_said_where_it_is_asked_for(tmp_path):
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(b"no volume")
    read_ahead(path)
    with pytest.raises(VolumeError, match=r"ct\.nii\.gz"):
        volume_at(path)


def test_the_first_picture_waits_for_no_library_that_it_does_not_need(path):
    code = (
        "import sys; from napari_diffseg.io.volume import read_volume\n"
        "assert read_volume(sys.argv[1]).hu.size\n"
        "sys.exit(' '.join({'torch', 'highdicom', 'contourpy', 'monai'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
