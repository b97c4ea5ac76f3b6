"""Reading a volume in a thread while the program that will ask for it is still starting."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from napari_diffseg.io.volume import Volume, read_volume

_begun: dict[Path, Future[Volume]] = {}


def read_ahead(path: Path) -> None:
    """Begin to read a volume, which :func:`volume_at` hands over."""
    found: Future[Volume] = Future()

    def read() -> None:
        try:
            found.set_result(read_volume(path))
        except BaseException as error:  # it is raised where the volume is asked for
            found.set_exception(error)

    _begun[path.resolve()] = found
    # No pool: the end of the program would wait for its threads.
    Thread(target=read, daemon=True).start()


def volume_at(path: Path) -> Volume:
    """Read a volume, or take the one that is being read; the next call reads it again.

    Raises
    ------
    VolumeError
        If there is no usable volume at the path.
    """
    found = _begun.pop(path.resolve(), None)
    return read_volume(path) if found is None else found.result()
