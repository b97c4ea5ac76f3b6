"""Forbids connections to other machines in the test process and in every Python that it starts.

``tests/conftest.py`` puts this folder at the head of ``PYTHONPATH``, and Python imports a module of
this name when it starts. An audit hook sees every connection that goes through Python's sockets.
What was tried is also written to a file, for code that catches all errors.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

LOG = "NAPARI_DIFFSEG_TEST_CONNECTIONS"
"""Environment variable with the file that every attempt is written to."""

# dask asks for this machine's own address by connecting a datagram socket, which sends nothing.
_DASK_ASKS = ("8.8.8.8", 80)
_HERE = {"", "::1", "::", "0.0.0.0", "localhost", socket.gethostname()}


class ForbiddenConnectionError(RuntimeError):
    """A test tried to reach another machine."""


def _local(address: Any) -> bool:
    if not isinstance(address, tuple):  # AF_UNIX and the like
        return True
    host = str(address[0]).removeprefix("::ffff:")
    return host in _HERE or host.startswith("127.")


def _watch(event: str, details: tuple[Any, ...]) -> None:
    if event not in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        return
    address = details[1] if event != "socket.getaddrinfo" else (details[0],)
    if event == "socket.getaddrinfo" and address[0] is None:
        return
    if event == "socket.connect" and details[0].type == socket.SOCK_DGRAM and address == _DASK_ASKS:
        return
    if not _local(address):
        if log := os.environ.get(LOG):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{sys.argv[:2]}: {event} {address}\n")
        raise ForbiddenConnectionError(f"{event} {address}: the tests run without a network")


if not hasattr(sys, "_no_network"):
    sys._no_network = True  # type: ignore[attr-defined]
    sys.addaudithook(_watch)
