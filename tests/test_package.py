"""The package itself: light to import, and names that mean one thing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light():
    heavy = "{'torch', 'monai', 'napari', 'qtpy', 'PyQt6', 'nibabel', 'SimpleITK'}"
    assert run(f"import napari_diffseg, sys; print({heavy} & set(sys.modules))") == "set()\n"


def test_names_mean_the_same_in_any_order():
    code = """
import types
import napari_diffseg as package
first = {name: getattr(package, name) for name in package.__all__}
for name, value in first.items():
    assert not isinstance(value, types.ModuleType), name
    assert getattr(package, name) is value
"""
    run(code)
    run("from napari_diffseg import Session\n" + code)


def test_openmp_waits_passively_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    code = "import napari_diffseg, os; print(os.environ['OMP_WAIT_POLICY'])"
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert run(code) == "PASSIVE\n"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert run(code) == "ACTIVE\n"


def test_unknown_names_are_attribute_errors():
    import napari_diffseg

    with pytest.raises(AttributeError, match="nonsense"):
        _ = napari_diffseg.nonsense
