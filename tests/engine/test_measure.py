"""Numbers of labels of known shape."""

import csv
import io
import re

import numpy as np
import pytest

from napari_diffseg.engine.measure import measure, to_csv
from napari_diffseg.engine.measure_report import to_html
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.labels import Label, LabelMap
from napari_diffseg.io.volume import Volume

SPACING = (2.0, 1.0, 0.8)
LABELS = (Label(2, "ball & <box>", (200, 100, 0)), Label(9, "box", (0, 100, 200)))


@pytest.fixture(scope="module")
def case():
    """A ball of 20 mm radius at 50 HU with noise, and a box of 8 × 10 × 16 mm at -100 HU."""
    z, y, x = (np.ogrid[:30, :60, :80][n] * step for n, step in enumerate(SPACING))
    mask = np.zeros((30, 60, 80), np.uint8)
    mask[np.sqrt((z - 30) ** 2 + (y - 30) ** 2 + (x - 26) ** 2) < 20] = 2
    mask[3:7, 40:50, 55:75] = 9
    hu = np.where(mask == 2, 50, np.where(mask == 9, -100, -1000)).astype(np.int16)
    hu[mask == 2] += np.random.default_rng(0).integers(-10, 11, (mask == 2).sum(), dtype=np.int16)
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    volume = Volume(hu, Geometry.from_affine(affine, mask.shape[::-1]), "case")
    return volume, LabelMap(mask, LABELS)


def test_a_ball_and_a_box_have_their_true_numbers(case):
    ball, box = measure(*case)
    assert ball.volume_ml == pytest.approx(4 / 3 * np.pi * 2**3, rel=0.01)
    assert ball.surface_cm2 == pytest.approx(4 * np.pi * 2**2, rel=0.03)
    # The ellipsoid with a ball's moments: 4 times the root of r² / 5.
    assert ball.axes_mm == pytest.approx([4 * 20 / np.sqrt(5)] * 3, rel=0.02)
    assert ball.mean_hu == pytest.approx(50, abs=0.2)
    assert ball.sd_hu == pytest.approx(np.sqrt((21**2 - 1) / 12), rel=0.02)
    assert box.voxels == 800
    assert box.volume_ml == pytest.approx(1.28)
    assert (box.mean_hu, box.sd_hu) == (-100, 0)
    assert box.extent_mm == pytest.approx((8, 10, 16))
    assert box.axes_mm == pytest.approx([4 * side / np.sqrt(12) for side in (16, 10, 8)])
    assert box.slices == (3, 6)


def test_a_label_without_a_voxel_is_left_out_and_one_voxel_is_measured(case):
    volume, labels = case
    mask = np.zeros_like(labels.mask)
    mask[0, 0, 0] = 9
    (one,) = measure(volume, LabelMap(mask, LABELS))
    assert (one.voxels, one.slices, one.sd_hu) == (1, (0, 0), 0)
    assert all(np.isfinite(one.axes_mm))
    assert measure(volume, LabelMap(mask * 0, LABELS)) == ()


def test_the_table_is_csv(case):
    rows = list(csv.DictReader(io.StringIO(to_csv(measure(*case)))))
    assert [row["label"] for row in rows] == ["ball & <box>", "box"]
    assert float(rows[1]["volume ml"]) == 1.28
    assert rows[1]["first slice"] == "3"


def test_the_page_holds_its_pictures_and_no_links(case):
    page = to_html(*case, measure(*case))
    assert len(re.findall('<img src="data:image/png;base64,', page)) == 2
    assert "http" not in page
    assert "ball &amp; &lt;box&gt;" in page
    assert "<box>" not in page
    assert "rgb(200,100,0)" in page
