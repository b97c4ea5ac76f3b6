"""What PyTorch's optimisers load when a training begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TRAIN = """
from session_tools import LIVER, block, tiny_backbone, tiny_volume, trained
from napari_diffseg.session import Session
session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=False)
session.paint.set_slice(0, block())
session.paint.set_slice(4, block())
trained(session)
print("trained")
import triton
"""


def test_a_training_does_not_load_triton_and_whoever_wants_it_finds_it(tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("print('triton')", encoding="utf-8")
    path = [str(tmp_path), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TRAIN],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout.split() == ["trained", "triton"], done.stderr
