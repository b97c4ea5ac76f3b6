"""The guard of the whole suite: nothing reaches another machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_ELSEWHERE = "192.0.2.1"  # reserved for documentation, RFC 5737
_TRY = f"import socket; socket.create_connection(('{_ELSEWHERE}', 80), timeout=1)"


@pytest.fixture
def log() -> Path:
    return Path(os.environ["NAPARI_DIFFSEG_TEST_CONNECTIONS"])


def test_a_connection_is_forbidden_and_noted(log: Path) -> None:
    with pytest.raises(RuntimeError, match="without a network"):
        socket.create_connection((_ELSEWHERE, 80), timeout=1)
    assert _ELSEWHERE in log.read_text()
    log.unlink()


def test_names_are_not_looked_up(log: Path) -> None:
    with pytest.raises(RuntimeError, match="without a network"):
        socket.getaddrinfo("example.invalid", 80)
    log.unlink()


def test_a_process_that_a_test_starts_is_guarded_too(log: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _TRY], capture_output=True, text=True)
    assert "without a network" in done.stderr
    assert _ELSEWHERE in log.read_text()
    log.unlink()


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
