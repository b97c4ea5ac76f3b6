"""The files beside the code: changelog, citation, manifest, workflows, packaging."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import napari_diffseg

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_begins_with_what_is_unreleased() -> None:
    first, *released = HEADING.findall(CHANGELOG)
    assert first.startswith("[Unreleased]")
    found = [re.fullmatch(r"\[(\S+)\] – (\d{4}-\d{2}-\d{2})", heading) for heading in released]
    assert all(found), f"a release is '## [1.2.3] – 2027-01-31': {released}"
    versions = [Version(match[1]) for match in found if match]
    dates = [match[2] for match in found if match]
    assert versions == sorted(set(versions), reverse=True)
    assert dates == sorted(dates, reverse=True)


def test_the_changelog_has_each_kind_once_a_version() -> None:
    for part in HEADING.split(CHANGELOG)[2::2]:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert set(kinds) <= KINDS
        assert len(kinds) == len(set(kinds))


def test_the_version_is_that_of_the_installed_package() -> None:
    assert napari_diffseg.__version__ == version("napari-diffseg")
    assert Version(napari_diffseg.__version__) > Version("0.0")


def test_packages_say_that_they_are_typed() -> None:
    for package in ("src/napari_diffseg", "models/diffseg_models", "training/diffseg_training"):
        assert (ROOT / package / "py.typed").exists()


def test_actions_are_pinned_and_jobs_may_do_little() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        uses = re.findall(r"uses: (\S+)", text)
        assert uses
        assert all(re.search(r"@[0-9a-f]{40}$", action) for action in uses), path.name
        assert "\npermissions:\n  contents: read\n" in text, path.name


@pytest.mark.parametrize("name", ["test.yml", "docs.yml", "release.yml"])
def test_workflows_run_targets_that_exist(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    targets = set(re.findall(r"run: make ([a-z-]+)", text))
    scripts = set(re.findall(r"python (tools/\S+\.py)", text))
    assert targets | scripts
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in scripts:
        assert (ROOT / script).exists()


def test_no_extra_is_named_that_does_not_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r'pip install "(?:\.|napari-diffseg)\[([a-z,]+)\]"', text)
        assert {extra for names in named for extra in names.split(",")} <= extras, path.name


def test_nothing_that_is_installed_with_us_is_under_the_gpl_alone() -> None:
    done = subprocess.run(
        [sys.executable, "tools/licences.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_conda_recipe_asks_for_what_pip_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = yaml.safe_load((ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8"))
    other_names = {"python-gdcm": "gdcm", "torch": "pytorch"}
    wanted = set()
    for text in project["dependencies"] + project["optional-dependencies"]["gui"]:
        requirement = Requirement(text)
        name = requirement.name.lower()
        wanted.add(f"{other_names.get(name, name)} {requirement.specifier}")
    wanted = {text.replace("<6.11,>=6.8.3", ">=6.8.3,<6.11") for text in wanted}
    assert wanted == set(recipe["requirements"]["run"]) - {"python >=3.11"}
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {target}" for name, target in project["scripts"].items()
    ]
