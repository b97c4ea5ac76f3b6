"""Labels from neighbouring slices, without training."""

import numpy as np

from napari_diffseg.engine.neighbours import between, fitted
from napari_diffseg.io.geometry import Geometry
from napari_diffseg.io.volume import Volume


def moving_disc(slices=7, shift=2):
    """A disc of soft tissue in fat that moves to the right and grows from slice to slice."""
    y, x = np.mgrid[:96, :96]
    hu = np.full((slices, 96, 96), -1000, np.int16)
    truth = np.zeros(hu.shape, np.uint8)
    hu[:, np.hypot(y - 48, x - 48) < 44] = -90
    for z in range(slices):
        disc = np.hypot(y - 48, x - 30 - shift * z) < 12 + z
        hu[z][disc] = 80
        truth[z][disc] = 3
    hu += np.random.default_rng(0).integers(-8, 8, hu.shape, dtype=np.int16)
    geometry = Geometry.from_affine(np.diag([-1.0, -1.0, 3.0, 1.0]), (96, 96, slices))
    return Volume(hu, geometry, "disc"), truth


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_a_copy_is_fitted_to_the_image():
    volume, truth = moving_disc(2)
    for source, z in ((0, 1), (1, 0)):
        copied = dice(truth[source] == 3, truth[z] == 3)
        moved = fitted(volume, truth[source], source, z)
        assert set(np.unique(moved)) == {0, 3}
        assert dice(moved == 3, truth[z] == 3) > max(0.95, copied + 0.05)


def test_the_gap_between_two_slices_is_filled():
    volume, truth = moving_disc(7)
    found = between(volume, {0: truth[0], 3: truth[3], 4: truth[4], 6: truth[6]})
    assert sorted(found) == [1, 2, 5]
    for z, plane in found.items():
        nearest = min((0, 3, 4, 6), key=lambda k: abs(k - z))
        copied = dice(truth[nearest] == 3, truth[z] == 3)
        assert dice(plane == 3, truth[z] == 3) > max(0.93, copied)
