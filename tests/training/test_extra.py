"""The programs of the training package where the extra ``training``, or POSIX, is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
for name in {names!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
"""
_EXTRA = ("dask", "distributed", "einops", "matplotlib", "skimage", "sklearn", "tensorboard")


def _run_without(
    names: tuple[str, ...], code: str, first: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `first`, hide the packages `names`, run `code`."""
    script = first + _HIDE.format(names=names) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("diffseg_training.cli", ["train", "--config", "starter", "--data", ".", "--out", "."]),
        ("diffseg_training.benchmark.cli", ["methods"]),
        ("diffseg_training.demo", []),
    ],
)
def test_the_missing_extra_is_named_in_one_line(start: str, words: list[str]) -> None:
    # As `python -m` and the installed programs do it.
    code = f"import runpy; sys.argv[1:] = {words}; runpy.run_module({start!r}, run_name='__main__')"
    # What other packages are made of for this system stays: psutil takes `resource` on Linux.
    done = _run_without((*_EXTRA, "resource"), code, "import psutil\n")
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert 'pip install "napari-diffseg[training]"' in done.stderr
    assert all(name in done.stderr for name in _EXTRA)


def test_one_missing_package_is_enough() -> None:
    code = "from diffseg_training.cli import main; sys.exit(main(['sample', 'x', '--out', '.']))"
    done = _run_without(("tensorboard",), code)
    assert done.returncode == 1
    assert "tensorboard is not installed" in done.stderr


def test_every_module_can_be_imported_without_the_module_resource() -> None:
    code = """
for module in pkgutil.walk_packages(diffseg_training.__path__, "diffseg_training."):
    importlib.import_module(module.name)
"""
    # psutil itself needs the module on Linux: it is imported before the module is hidden.
    first = "import importlib, pkgutil, psutil, diffseg_training\n"
    done = _run_without(("resource",), code, first)
    assert done.returncode == 0, done.stderr
