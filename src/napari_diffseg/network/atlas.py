"""Atlases: coarse images of labelled patients that a model may carry, if it is asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SPACING = 4.0
"""Side of an atlas's voxels in mm."""

UNSEEN = 255
"""Class of voxels whose labels nobody knows."""

_PREFIX = "atlas."


@dataclass(frozen=True, eq=False)
class Atlas:
    """A labelled patient on a grid of 4 mm.

    Attributes
    ----------
    image
        Soft tissue from -200 to 300 HU as 0 to 255, uint8 ``(z, y, x)``.
    classes
        Class indices of the model, uint8 ``(z, y, x)``; :data:`UNSEEN` where nobody knows.
    body
        Low and high corner of the body in mm from the centre of the first voxel ``(2, 3)``, in the
        order z, y, x.
    """

    image: Tensor
    classes: Tensor
    body: Tensor


def to_tensors(atlases: Sequence[Atlas]) -> dict[str, Tensor]:
    """Name the tensors of atlases for a model's file."""
    return {
        f"{_PREFIX}{n}.{name}": getattr(atlas, name).contiguous()
        for n, atlas in enumerate(atlases)
        for name in ("image", "classes", "body")
    }


def from_tensors(tensors: Mapping[str, Tensor], classes: int) -> tuple[Atlas, ...]:
    """Undo :func:`to_tensors`; other tensors are left out.

    Raises
    ------
    ValueError
        If an atlas is not whole, or holds classes that the model has not.
    """
    count = len({name.split(".")[1] for name in tensors if is_atlas(name)})
    found = []
    for n in range(count):
        parts = [tensors.get(f"{_PREFIX}{n}.{name}") for name in ("image", "classes", "body")]
        image, own, body = parts
        if image is None or own is None or body is None:
            raise ValueError("an atlas is not whole")
        sound = image.dtype == own.dtype == torch.uint8 and image.shape == own.shape
        if not sound or image.dim() != 3 or body.shape != (2, 3):
            raise ValueError("an atlas has impossible shapes")
        if ((own >= classes) & (own != UNSEEN)).any() or not torch.isfinite(body).all():
            raise ValueError("an atlas holds impossible values")
        found.append(Atlas(image, own, body))
    return tuple(found)


def is_atlas(name: str) -> bool:
    """Whether a tensor of a model's file belongs to an atlas."""
    return name.startswith(_PREFIX)
