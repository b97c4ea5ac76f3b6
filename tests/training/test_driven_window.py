"""The window on the sample CT, for pictures and for the measurement of its latency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffseg_training.window import SampleWindow, WindowError
from napari_diffseg.session.paint import SliceState


@pytest.mark.usefixtures("tiny_shipped")
def test_the_sample_is_painted_in_full_by_names(
    qapp: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import QLabel

    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path))  # the window takes one of its own
    window = SampleWindow(1000, 700)
    try:
        window.paint((24, 40), ("liver", "aorta"))
        session = window.workspace.session
        assert session is not None
        assert [label.name for label in session.paint.labels] == ["liver", "aorta"]
        full = np.flatnonzero(session.paint.states == SliceState.PAINTED)
        assert full.tolist() == [24, 40]
        assert not (session.paint.states == SliceState.SCRIBBLED).any()
        ids = {label.id for label in session.paint.labels}
        assert set(np.unique(session.paint.mask[24])) == {0, *ids}
        doomed, deleted = QLabel(), []
        doomed.destroyed.connect(lambda: deleted.append(True))
        doomed.deleteLater()
        window.until(lambda: bool(deleted), limit=20)
        with pytest.raises(WindowError, match="not ready after"):
            window.until(lambda: False, limit=0.1)
    finally:
        window.close()
    assert list(tmp_path.iterdir()) == []
