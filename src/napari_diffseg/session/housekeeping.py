"""Keep the folder of sessions from growing for ever, without losing anyone's work."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from napari_diffseg.session.journal import SessionError
from napari_diffseg.session.log import SessionFolder

MAX_BYTES = 20 * 2**30
"""Of all sessions; above, models and predictions of those unused for longest are deleted."""

# A training makes all of these again from the paint, which is in the journal and stays.
_MADE_AGAIN = ("round-*.safetensors", "round-*.npz", "motion.npz", ".*.part/*")

_COUNTED = "slices.npz"  # what later patients learn from; it needs the CT to be made again


def make_room(root: Path, own: Path) -> None:
    """Delete what can be made again from sessions that nobody uses, the oldest first.

    Paint, labels, corrections and the history of rounds are never deleted, and neither is anything
    of a session that is open.

    Parameters
    ----------
    root
        Where sessions are kept, as ``<volume>/<number>``.
    own
        The session that asks; it is left alone, but what it holds counts.
    """
    found, total = [], 0
    for journal in root.glob("*/*/journal"):
        with suppress(OSError):
            if any(place.is_symlink() for place in (journal.parent, journal.parents[1])):
                continue  # what it leads to is not ours
            there = [path for pattern in _MADE_AGAIN for path in journal.parent.glob(pattern)]
            bulk = [path for path in there if not path.parent.is_symlink()]
            size = sum(path.stat().st_size for path in bulk)
            found.append((journal.stat().st_mtime, journal.parent, bulk, size))
            total += size + sum(path.stat().st_size for path in journal.parent.glob(_COUNTED))
    for _, place, bulk, size in sorted(found):
        if total <= MAX_BYTES:
            return
        if place == own or not bulk:
            continue
        with suppress(SessionError):  # it is open
            locked = SessionFolder(place)
            try:
                for path in bulk:
                    with suppress(OSError):
                        path.unlink()
            finally:
                locked.release()
            total -= size
