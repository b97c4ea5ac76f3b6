"""Links, commands and licences in the documentation."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

from napari_diffseg.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").rglob("*.md")]
)
_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def _anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as Markdown and the repository's host make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", title).lower() for title in titles)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip()) for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert ROOT in target.parents, link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_links_of_the_site_stay_in_it(page: Path) -> None:
    docs = ROOT / "docs"
    if docs not in page.parents:
        return
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if not re.match(r"[a-z]+:|#", link):
            target = (page.parent / link.partition("#")[0]).resolve()
            assert docs in target.parents, link


def _commands() -> list[str]:
    found = set()
    for page in PAGES:
        for block in _FENCE.finditer(page.read_text(encoding="utf-8")):
            lines = re.sub(r"\\\n\s*", " ", block[0]).splitlines()
            found |= {line.strip() for line in lines if line.strip().startswith("napari-diffseg ")}
    return sorted(found)


@pytest.mark.parametrize("command", _commands())
def test_commands_have_the_options_that_they_are_written_with(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command, comments=True)[1:]
    last = [] if words[-1:] in (["--version"], ["--help"]) else ["--help"]
    with pytest.raises(SystemExit) as ended:
        main([*words, *last])
    assert ended.value.code == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    options = {word for word in words if word.startswith("--")}
    assert all(option in text for option in options)


def test_attributions_are_those_of_the_list() -> None:
    path = ROOT / "models" / "diffseg_models" / "ATTRIBUTION.md"
    script = "import attributions, pathlib, sys; print(attributions.page(pathlib.Path("
    script += "'models/diffseg_models/collections.toml').read_text('utf-8')), end='')"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", "import sys; sys.path.insert(0, 'tools'); " + script],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout == path.read_text(encoding="utf-8"), "run python tools/attributions.py"


def test_cards_give_the_confirmed_licence_of_every_collection() -> None:
    folder = ROOT / "models" / "diffseg_models"
    listed = tomllib.loads((folder / "collections.toml").read_text(encoding="utf-8"))["collection"]
    confirmed = {entry["name"]: entry["licence"] for entry in listed}
    for name in tomllib.loads((folder / "registry.toml").read_text(encoding="utf-8")):
        card = (folder / f"{name}.md").read_text(encoding="utf-8")
        table = card.partition("## Data and licences")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| \d", table, re.MULTILINE)
        assert rows
        for collection, licence in rows:
            if collection in confirmed:
                assert licence.startswith(f"[{confirmed[collection]}]("), collection
            else:
                assert collection in table.partition("Not confirmed")[2].partition("\n")[0]


def test_every_collection_may_be_used_by_all_and_says_what_its_licence_rests_on() -> None:
    path = ROOT / "models" / "diffseg_models" / "collections.toml"
    free = {"CC BY 3.0", "CC BY 4.0", "NLM terms of 21 May 2019"}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["collection"]:
        assert entry["licence"] in free, entry["name"]
        assert entry["series"] or entry["also"], entry["name"]


@pytest.mark.parametrize("name", ["README.md", "docs/faq.md"])
def test_figures_in_prose_are_those_of_the_table(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("FIGURES: begin")[2]
    wanted = []
    for slices in (4, 8):
        (row,) = re.findall(rf"^\| \*\*napari-diffseg, {slices} painted.*$", table, re.MULTILINE)
        wanted += [f"{float(figure):.2f}" for figure in re.findall(r"\*\*(0\.\d+)", row)]
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    said = re.search(
        r"mean Dice of (0\.\d+) and (0\.\d+) over 12 organs.*?eight give (0\.\d+) and (0\.\d+)",
        text,
    )
    assert said is not None
    assert list(said.groups()) == wanted


def test_the_first_screen_of_the_readme_has_what_a_visitor_asks() -> None:
    screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25])
    for answer in ("**For whom:**", "**How good:**", "**How to start**", "Not a medical device"):
        assert answer in screen
    assert 'pip install ".[gui]"' in screen
