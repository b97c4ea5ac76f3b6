"""Settings of the whole suite."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
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


collect_ignore = ["no_network"]

# No test, and no process that a test starts, may reach another machine.
_NO_NETWORK = Path(__file__).parent / "no_network"
_CONNECTIONS = Path(tempfile.gettempdir()) / f"napari-diffseg-connections-{os.getpid()}"
os.environ["NAPARI_DIFFSEG_TEST_CONNECTIONS"] = str(_CONNECTIONS)
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_NO_NETWORK), *filter(None, [os.environ.get("PYTHONPATH")])]
)
_spec = importlib.util.spec_from_file_location("no_network", _NO_NETWORK / "sitecustomize.py")
assert _spec is not None
assert _spec.loader is not None
no_network = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(no_network)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the settings of pytest-xvfb where it is not installed, so without a window."""
    if importlib.util.find_spec("pytest_xvfb") is None:
        for name in ("xvfb_width", "xvfb_height", "xvfb_colordepth"):
            parser.addini(name, "of the virtual screen")


@pytest.fixture(autouse=True)
def nothing_is_sent() -> Iterator[None]:
    """Fail a test during which a connection was tried, even if the error was caught."""
    log = Path(os.environ["NAPARI_DIFFSEG_TEST_CONNECTIONS"])
    log.unlink(missing_ok=True)
    yield
    tried = log.read_text(encoding="utf-8") if log.exists() else ""
    log.unlink(missing_ok=True)
    assert not tried, f"connections to other machines: {tried}"


@pytest.fixture
def session() -> Session:
    """Two labels, nothing painted, nothing on disk."""
    # Imported here: the lines above must have run before torch is loaded.
    from session_tools import LIVER, SPLEEN, tiny_backbone, tiny_volume

    from napari_diffseg.session import Session

    return Session(tiny_volume(), [LIVER, SPLEEN], tiny_backbone(), folder=False)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random backbone."""
    from session_tools import tiny_backbone

    from napari_diffseg.network.backbone import save_backbone

    folder = tmp_path_factory.mktemp("backbones")
    save_backbone(folder / "tiny.safetensors", tiny_backbone())
    return folder


@pytest.fixture
def tiny_shipped(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny backbone the shipped one: on the real one a training takes ten times longer."""
    monkeypatch.setattr("napari_diffseg.network.backbone.files", lambda package: tiny_folder)


@pytest.fixture
def short_adaptation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapt models with a few optimiser steps."""
    monkeypatch.setattr("napari_diffseg.engine.adaptation._STEPS", 10)
