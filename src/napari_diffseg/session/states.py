"""What is known of a slice or a plane."""

from __future__ import annotations

from enum import IntEnum


class SliceState(IntEnum):
    """What is known of a slice, or of a coronal or sagittal plane."""

    UNPAINTED = 0
    SCRIBBLED = 1
    PAINTED = 2
    ACCEPTED = 3
