"""Settings of the whole suite."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from napari_diffseg.session import Session

# On arrays as small as the tests' a second thread brings nothing, and on a busy machine OpenMP's
# threads wait for each other: 30 training steps took 8 s with one thread and 164 s with two.
# It must stand in the environment before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl+C, and so would every
# process that a test starts and then interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def session() -> Session:
    """Two labels, nothing painted, nothing on disk."""
    # Imported here: the lines above must have run before torch is loaded.
    from session_tools import LIVER, SPLEEN, tiny_backbone, tiny_volume

    from napari_diffseg.session import Session

    return Session(tiny_volume(), [LIVER, SPLEEN], tiny_backbone(), folder=False)
