"""The default colours of labels, as the colour-blind see them."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_diffseg.io.labels import default_colour

LEAST = 10.0  # CIEDE2000; about 2 is just noticeable side by side
SAFE = 15  # labels

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen(colours: list[tuple[int, int, int]], sight: np.ndarray) -> np.ndarray:
    """Return what is seen of sRGB colours, as CIELAB."""
    rgb = np.asarray(colours) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ sight.T, 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb[None])[0]


def least_difference(colours: list[tuple[int, int, int]], sight: np.ndarray) -> float:
    lab = seen(colours, sight)
    differences = deltaE_ciede2000(lab[:, None], lab[None])
    return float(differences[~np.eye(len(lab), dtype=bool)].min())


@pytest.mark.parametrize("name", SIGHT)
def test_the_first_fifteen_labels_can_be_told_apart(name: str) -> None:
    colours = [default_colour(label_id) for label_id in range(1, SAFE + 1)]
    assert least_difference(colours, SIGHT[name]) >= LEAST


def test_the_simulation_makes_red_and_green_alike() -> None:
    red_and_green = [(200, 60, 0), (110, 110, 0)]
    normal = least_difference(red_and_green, SIGHT["normal"])
    assert least_difference(red_and_green, SIGHT["deuteranopia"]) < normal / 2


def test_no_label_is_as_grey_or_as_dark_as_a_ct() -> None:
    lab = seen([default_colour(label_id) for label_id in range(1, SAFE + 1)], SIGHT["normal"])
    assert (np.hypot(lab[:, 1], lab[:, 2]) >= 20).all()
    assert lab[:, 0].min() >= 30
