"""The catalogue of what the program says, and how a translation of it is applied."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SOURCE = '''"""A module."""

NAMES = {"fill holes": "Fill what is enclosed"}


def say(done: int, total: int) -> str:
    """Say it."""
    return f"{done} of {total:.1f} slices"
'''

GERMAN = """
#: gui/module.py
msgid "Fill what is enclosed"
msgstr "Umschlossenes füllen"

msgid "{done} of {total} slices"
msgstr ""
"Von {total} Schichten "
"{done}"
"""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "utf8", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )


def test_the_catalogue_holds_what_the_program_says() -> None:
    done = run("tools/strings.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_translation_moves_what_is_filled_in(tmp_path: Path) -> None:
    package = tmp_path / "package" / "gui"
    package.mkdir(parents=True)
    (package / "module.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "de.po").write_text(GERMAN, encoding="utf-8")
    code = (
        "import pathlib, sys; sys.path.insert(0, 'tools'); import strings; "
        f"here = pathlib.Path({str(tmp_path)!r}); "
        "words = strings.read_po((here / 'de.po').read_text('utf-8')); "
        "strings.apply(words.__getitem__, here / 'out', here / 'package')"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = {}
    exec((tmp_path / "out/package/gui/module.py").read_text("utf-8"), found)
    assert found["NAMES"] == {"fill holes": "Umschlossenes füllen"}
    say = found["say"]
    assert callable(say)
    assert say(3, 7) == "Von 7.0 Schichten 3"
