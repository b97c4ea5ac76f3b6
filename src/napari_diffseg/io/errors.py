"""The base of all errors that a user can put right."""

from __future__ import annotations


class UserError(ValueError):
    r"""Something a user can put right: one line of plain text that names it and the fix.

    Whatever a hostile file puts into it, such as a line break or an escape sequence for the
    terminal, becomes a space or a question mark.

    Examples
    --------
    >>> str(UserError("ct.nrrd:\n\x1b[2J is damaged"))
    'ct.nrrd: ?[2J is damaged'
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(plain(message))


def plain(text: object) -> str:
    """Text in one line of printable characters."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in line)
