"""Gather what the program says in one catalogue, and put a translation of it into the source.

    python tools/strings.py                        write translations/napari-diffseg.pot
    python tools/strings.py --check                whether it is up to date
    python tools/strings.py --apply de.po FOLDER   a translated copy of the package in FOLDER

napari dropped its translations (``napari.utils.translations`` does nothing since 0.7), so there is
no language to follow at run time, and no text is wrapped in a function: texts are found in the
syntax tree. See docs/decisions/0503-strings.md.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Formatter

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "napari_diffseg"
CATALOGUE = ROOT / "translations" / "napari-diffseg.pot"
_HEAD = """\
# What napari-diffseg says. Written by tools/strings.py.
# Names in braces are filled in; they may change places, and each has to stay.
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"""

# Names that other rooms, napari or Qt know under these words.
_NAMES = {"fill holes", "keep largest", "remove islands", "Left", "HCenter", "Right", "Shift",
          "Control", "Alt", "Meta", "Backspace", "Delete", "Escape", "Enter", "Return"}  # fmt: skip
# Single small words that are shown.
_WORDS = {"inferior", "superior", "anterior", "posterior"}
_NOT_SAID = {"filterwarnings", "compile", "match", "fullmatch", "sub", "getLogger", "findChild",
             "setObjectName", "setStyleSheet", "startswith", "endswith", "removeprefix", "strftime",
             "import_module", "getattr", "hasattr", "Literal", "register", "TypeVar"}  # fmt: skip
"""Functions whose arguments nobody sees."""
_SHOWN = {"text_label", "setText", "setToolTip", "setAccessibleName", "setWindowTitle", "addAction",
          "addItem", "setPrefix", "setSuffix", "setPlaceholderText"}  # fmt: skip
"""Functions that show their arguments, even a single small word."""
_HELP = {"help", "description", "epilog", "title"}
"""Keywords of argparse that hold a text."""


def texts_of(tree: ast.Module, room: str) -> Iterator[ast.Constant | ast.JoinedStr]:
    """Yield the literals that a user can see.

    In the window these are all that begin with a capital or have a space in them; elsewhere what is
    raised and what argparse shows.
    """
    yield from _inside(tree, room == "gui", room)


def _inside(node: ast.AST, said: bool, room: str) -> Iterator[ast.Constant | ast.JoinedStr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring
        if isinstance(child, ast.JoinedStr) or (
            isinstance(child, ast.Constant) and isinstance(child.value, str)
        ):
            if said and _is_text(message(child)):
                yield child
            if isinstance(child, ast.JoinedStr):
                for value in child.values:
                    if isinstance(value, ast.FormattedValue):
                        yield from _inside(value, said, room)
            continue
        if isinstance(child, ast.AnnAssign):
            yield from _inside(ast.Tuple([child.value] if child.value else []), said, room)
            continue
        if isinstance(child, ast.arguments):
            continue  # types and defaults
        if isinstance(child, ast.Subscript):
            yield from _inside(ast.Tuple([child.value]), said, room)
            continue  # the index is a name
        within = said
        if isinstance(child, ast.Call):
            name = getattr(child.func, "attr", getattr(child.func, "id", ""))
            within = within and name not in _NOT_SAID
            if within and name in _SHOWN:
                words = (one for one in child.args if isinstance(one, ast.Constant))
                yield from (
                    one for one in words
                    if re.match(r"[^\W\d_]{2}", str(one.value)) and not _is_text(str(one.value))
                )  # fmt: skip
            if room == "cli" and name in ("add", "ArgumentParser", "add_argument_group", "print"):
                within = True
        if isinstance(child, ast.Raise):
            within = True
        if isinstance(child, ast.keyword) and room == "cli":
            within = within or child.arg in _HELP
        yield from _inside(child, within, room)


def _is_text(text: str) -> bool:
    words = re.sub(r"\{[^}]*\}", "", text)
    if text in _NAMES or not re.search(r"[^\W\d_]{2}", words) or "::" in words:
        return False
    return text in _WORDS or " " in words.strip() or words.strip()[0].isupper()


def message(node: ast.Constant | ast.JoinedStr) -> str:
    """Return a literal as its catalogue has it: what is filled in is a name in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    names = iter(_fields(node))
    return "".join(
        str(value.value).replace("{", "{{").replace("}", "}}")
        if isinstance(value, ast.Constant)
        else "{" + next(names) + "}"
        for value in node.values
    )


def _fields(node: ast.JoinedStr) -> list[str]:
    found: list[str] = []
    for value in node.values:
        if not isinstance(value, ast.FormattedValue):
            continue
        inner = value.value.func if isinstance(value.value, ast.Call) else value.value
        name = getattr(inner, "attr", getattr(inner, "id", "value")).strip("_")
        number = sum(one.rstrip("0123456789") == name for one in found)
        found.append(f"{name}{number + 1}" if number else name)
    return found


def gather(package: Path = PACKAGE) -> dict[str, list[str]]:
    """Return every message with the files that say it."""
    messages: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in texts_of(tree, name.partition("/")[0]):
            files = messages.setdefault(message(node), [])
            if name not in files:
                files.append(name)
    return messages


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def catalogue(messages: dict[str, list[str]]) -> str:
    """Return the catalogue as gettext's template."""
    entries = (
        f'\n#: {" ".join(files)}\nmsgid {_quoted(text)}\nmsgstr ""\n'
        for text, files in sorted(messages.items(), key=lambda item: (item[1], item[0]))
    )
    return _HEAD + "".join(entries)


def read_po(text: str) -> dict[str, str]:
    """Return the translations of a PO file."""
    found: dict[str, str] = {}
    parts = {"msgid": "", "msgstr": ""}
    current = ""
    for line in [*text.splitlines(), 'msgid ""']:
        word, _, rest = line.partition(" ")
        if word in parts:
            if word == "msgid" and parts["msgid"] and parts["msgstr"]:
                found[parts["msgid"]] = parts["msgstr"]
            current, parts[word], line = word, "", rest
        if line.startswith('"'):
            parts[current] += str(ast.literal_eval(line))
    return found


class _Translate(ast.NodeTransformer):
    def __init__(self, chosen: set[int], translate: Callable[[str], str]) -> None:
        self._chosen, self._translate = chosen, translate

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if id(node) not in self._chosen:
            return node
        return ast.Constant(self._translate(message(node)))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        text = message(node)
        fields = dict(zip(_fields(node), _filled(node), strict=True))
        for value in _filled(node):
            self.visit(value)
        if id(node) not in self._chosen:
            return node
        values: list[ast.expr] = []
        for said, field, *_ in Formatter().parse(self._translate(text)):
            if said:
                values.append(ast.Constant(said))
            if field is not None:
                if field not in fields:
                    raise SystemExit(f"{text!r} has no {{{field}}}")
                values.append(fields[field])
        return ast.JoinedStr(values)


def _filled(node: ast.JoinedStr) -> list[ast.FormattedValue]:
    return [value for value in node.values if isinstance(value, ast.FormattedValue)]


def apply(translate: Callable[[str], str], folder: Path, package: Path = PACKAGE) -> None:
    """Write a copy of the package whose texts are translated; comments are lost."""
    target = folder / package.name
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
    for path in sorted(target.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        room = path.relative_to(target).as_posix().partition("/")[0]
        chosen = {id(node) for node in texts_of(tree, room)}
        if chosen:
            changed = ast.fix_missing_locations(_Translate(chosen, translate).visit(tree))
            path.write_text(ast.unparse(changed) + "\n", encoding="utf-8")


def main() -> int:
    """Write the catalogue, check it, or apply a translation."""
    if sys.argv[1:2] == ["--apply"]:
        words = read_po(Path(sys.argv[2]).read_text(encoding="utf-8"))
        apply(lambda text: words.get(text, text), Path(sys.argv[3]))
        return 0
    wanted = catalogue(gather())
    if sys.argv[1:] == ["--check"]:
        if CATALOGUE.exists() and CATALOGUE.read_text(encoding="utf-8") == wanted:
            return 0
        print(f"{CATALOGUE.relative_to(ROOT)} is not up to date: run python tools/strings.py")
        return 1
    CATALOGUE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
