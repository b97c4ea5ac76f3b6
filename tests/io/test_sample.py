"""The sample CT in the package: readable, small, on one grid with its labels, right way up."""

import numpy as np

from napari_diffseg.io.labels import load_names
from napari_diffseg.io.sample import sample_labels_path, sample_names_path, sample_volume_path
from napari_diffseg.io.volume import read_labels, read_volume


def test_sample_is_a_ct_with_twelve_organs_where_organs_are():
    volume = read_volume(sample_volume_path())
    labels = read_labels(sample_labels_path(), volume.geometry)
    names = load_names(sample_names_path())
    assert volume.hu.dtype == np.int16
    assert volume.hu.shape == (133, 256, 256)
    assert volume.geometry.spacing == (2.5, 1.40625, 1.40625)
    assert (volume.hu.min(), volume.hu.max()) == (-1024, 2000)
    present = {names[label.id] for label in labels.labels}
    assert present == set(names.values()) - {"gallbladder"}
    assert len(names) == 13

    def middle(name):
        number = next(n for n, known in names.items() if known == name)
        voxels = labels.mask == number
        assert 0 < np.median(volume.hu[voxels]) < 300 or name in ("stomach", "duodenum")
        return np.argwhere(voxels).mean(0)

    # z grows upwards, y to the back, x to the patient's left.
    liver, left, right = middle("liver"), middle("left kidney"), middle("right kidney")
    assert liver[0] > max(left[0], right[0])
    assert liver[1] < min(left[1], right[1])
    assert right[2] < left[2]
    assert liver[2] < middle("spleen")[2]


def test_sample_is_small_and_says_where_it_comes_from():
    folder = sample_volume_path().parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 9_500_000
    text = " ".join((folder / "ATTRIBUTION.md").read_text(encoding="utf-8").split())
    for word in ("LIDC-IDRI", "Creative Commons Attribution 3.0", "TotalSegmentator"):
        assert word in text
    assert "pseudo ground truth" in text
