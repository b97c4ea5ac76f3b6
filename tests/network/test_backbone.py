"""Backbone files, their registry, and the intensity map."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_tools import INTENSITY, TINY, tiny_backbone
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from napari_diffseg.network import backbone as module
from napari_diffseg.network.backbone import (
    BackboneError,
    Intensity,
    import_backbone,
    list_backbones,
    load_backbone,
    registry_line,
    save_backbone,
    verify,
)
from napari_diffseg.network.unet import UNet

_X = torch.linspace(-1, 1, 2 * 32 * 32).reshape(2, 1, 32, 32)


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither the user's backbones nor those that come with the program; returns the home."""
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(module, "files", lambda package: tmp_path / "shipped")
    monkeypatch.setattr(module, "entry_points", lambda group: ())
    monkeypatch.delenv("NAPARI_DIFFSEG_BACKBONES", raising=False)
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _registered(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed, name in enumerate(names):
        save_backbone(folder / f"{name}.safetensors", tiny_backbone(name, seed))
        lines.append(registry_line(folder / f"{name}.safetensors"))
    (folder / "registry.toml").write_text("\n".join(lines))
    return folder


@pytest.mark.skipif(os.name == "nt", reason="no umask on Windows")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_written_files_obey_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        for _ in range(2):  # the second one replaces the first
            save_backbone(tmp_path / "tiny.safetensors", tiny_backbone())
    finally:
        os.umask(before)
    assert (tmp_path / "tiny.safetensors").stat().st_mode & 0o777 == mode


def _flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_round_trip_in_half_precision(tmp_path: Path) -> None:
    kept = tiny_backbone()
    path = tmp_path / "mine.safetensors"
    save_backbone(path, kept)
    loaded = load_backbone(path)
    assert loaded.name == "mine"
    assert (loaded.intensity, loaded.schedule, loaded.card) == (
        kept.intensity,
        kept.schedule,
        kept.card,
    )
    assert loaded.unet.config == kept.unet.config
    for name, tensor in kept.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], tensor.half().float()), name
    with torch.inference_mode():
        expected = kept.unet(_X, 3)
        assert (loaded.unet(_X, 3) - expected).norm() < 0.02 * expected.norm()
    assert path.stat().st_size < 0.6 * 4 * sum(p.numel() for p in kept.unet.parameters()) + 20000
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["mine.safetensors"]


def test_full_precision_is_exact(tmp_path: Path) -> None:
    kept = tiny_backbone()
    save_backbone(tmp_path / "a.safetensors", kept, torch.float32)
    loaded = load_backbone(tmp_path / "a.safetensors")
    with torch.inference_mode():
        assert torch.equal(loaded.unet(_X, 3), kept.unet(_X, 3))


def test_folders_and_files_named_in_the_environment_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = _registered(tmp_path / "one", "a", "b"), tmp_path / "two.safetensors"
    save_backbone(two, tiny_backbone())
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", os.pathsep.join(map(str, (one, two))))
    found = {entry.name: entry for entry in list_backbones()}
    assert list(found) == ["a", "b", "two"]
    assert {entry.source for entry in found.values()} == {"environment"}
    assert found["a"].sha256 is not None
    assert found["two"].sha256 is None
    assert load_backbone("b").name == "b"
    assert load_backbone("two").name == "two"


def test_first_place_of_a_name_wins(
    tmp_path: Path, nothing_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _registered(nothing_installed / "backbones", "a", "home-only")
    other = _registered(tmp_path / "env", "a")
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", str(other))
    found = {entry.name: entry.source for entry in list_backbones()}
    assert found == {"a": "environment", "home-only": "imported"}


def test_default_is_the_shipped_one_then_the_first(tmp_path: Path, nothing_installed: Path) -> None:
    with pytest.raises(BackboneError, match="no backbone is installed"):
        load_backbone()
    _registered(nothing_installed / "backbones", "x", "y")
    assert load_backbone().name == "x"
    _registered(tmp_path / "shipped", "own", "spare")
    assert load_backbone().name == "own"


def test_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _registered(tmp_path / "one", "a")
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", str(folder))
    _flip_last_byte(folder / "a.safetensors")
    with pytest.raises(BackboneError, match=r"a\.safetensors: the SHA-256 differs"):
        load_backbone("a")
    with pytest.raises(BackboneError, match="SHA-256"):
        verify(list_backbones()[0])


def test_registered_file_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _registered(tmp_path / "one", "a")
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", str(folder))
    (folder / "a.safetensors").unlink()
    with pytest.raises(BackboneError, match="the weight file is missing"):
        load_backbone("a")


def test_import_copies_registers_and_verifies(tmp_path: Path, nothing_installed: Path) -> None:
    for name in ("first", "second"):
        save_backbone(tmp_path / f"{name}.safetensors", tiny_backbone())
        entry = import_backbone(tmp_path / f"{name}.safetensors")
        assert (entry.name, entry.source) == (name, "imported")
        assert entry.path == nothing_installed / "backbones" / f"{name}.safetensors"
        (tmp_path / f"{name}.safetensors").unlink()
    assert [entry.name for entry in list_backbones()] == ["first", "second"]
    assert load_backbone("second").name == "second"
    _flip_last_byte(entry.path)
    with pytest.raises(BackboneError, match="SHA-256"):
        load_backbone("second")
    assert load_backbone("first").name == "first"
    kept = {p.name for p in entry.path.parent.iterdir()}
    assert kept == {"first.safetensors", "second.safetensors", "registry.toml"}


def test_import_refuses_damaged_files_and_odd_names(
    tmp_path: Path, nothing_installed: Path
) -> None:
    damaged, odd = tmp_path / "damaged.safetensors", tmp_path / "od d.safetensors"
    save_backbone(odd, tiny_backbone())
    damaged.write_bytes(odd.read_bytes()[:-100])
    for path, said in ((damaged, "not a readable safetensors"), (odd, "rename it")):
        with pytest.raises(BackboneError, match=said):
            import_backbone(path)
    assert list_backbones() == ()
    with pytest.raises(BackboneError, match="holds 2 backbones"):
        import_backbone(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"not weights at all", b"\xff" * 200, b"\x08\0\0\0\0\0\0\0{}"]
)
def test_other_kinds_of_file_are_named_in_the_message(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(BackboneError, match=r"a\.safetensors: .*safetensors"):
        load_backbone(path)


def test_safetensors_of_another_program(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(BackboneError, match="is it another kind of file"):
        load_backbone(tmp_path / "a.safetensors")


def test_unknown_name_lists_those_installed(nothing_installed: Path) -> None:
    _registered(nothing_installed / "backbones", "x", "y")
    with pytest.raises(BackboneError, match=r"zebra: no such backbone .*installed: x, y"):
        load_backbone("zebra")


@pytest.mark.parametrize(
    "change",
    [
        {"config": asdict(replace(TINY, widths=(8, 16, 16)))},
        {"config": asdict(TINY) | {"depth": 4}},
        {"config": asdict(TINY) | {"image_size": 30}},
        {"intensity": {"hu": [3.0], "value": [1.0]}},
        {"intensity": {"hu": [1.0, 0.0], "value": [-1.0, 1.0]}},
        {"intensity": {}},
        {"schedule": ...},
        {"card": ...},
    ],
    ids=lambda change: f"{next(iter(change))}-{str(next(iter(change.values())))[-12:]}",
)
def test_header_that_does_not_fit(tmp_path: Path, change: dict[str, object]) -> None:
    header: dict[str, object] = {
        "config": asdict(TINY),
        "intensity": asdict(INTENSITY),
        "schedule": "cosine",
        "card": {},
    }
    header = {k: v for k, v in (header | change).items() if v is not ...}
    path = tmp_path / "a.safetensors"
    weights = {k: v.contiguous() for k, v in UNet(TINY).state_dict().items()}
    save_file(weights, path, metadata={"napari-diffseg": json.dumps(header)})
    with pytest.raises(BackboneError, match=r"a\.safetensors: the weights do not fit") as caught:
        load_backbone(path)
    assert "\n" not in str(caught.value)


_KNOTS = st.lists(st.integers(-1024, 3000), min_size=2, max_size=6, unique=True).map(sorted)


@given(knots=_KNOTS, hu=st.lists(st.floats(-3000, 5000), min_size=1, max_size=20))
def test_intensity_there_and_back(knots: list[int], hu: list[float]) -> None:
    intensity = Intensity(tuple(map(float, knots)), tuple(np.linspace(-1, 1, len(knots)).tolist()))
    values = np.array(hu)
    x = intensity.to_model(values)
    assert x.dtype == np.float32
    assert x.min() >= -1
    assert x.max() <= 1
    clipped = values.clip(knots[0], knots[-1])
    assert np.allclose(intensity.to_hu(x), clipped, atol=1e-3 * (knots[-1] - knots[0]))
    order = np.argsort(values)
    assert (np.diff(x[order]) >= 0).all()


@pytest.mark.parametrize(
    ("hu", "value"),
    [((0.0,), (0.0,)), ((0.0, 1.0), (0.0,)), ((1.0, 1.0), (-1.0, 1.0)), ((0.0, 1.0), (1.0, -1.0))],
)
def test_intensity_refuses_knots_that_do_not_ascend(hu, value) -> None:
    with pytest.raises(ValueError, match="knots"):
        Intensity(hu, value)


def test_import_from_a_registered_folder_checks_its_sum(
    tmp_path: Path, nothing_installed: Path
) -> None:
    folder = _registered(tmp_path / "lab", "lab")
    _flip_last_byte(folder / "lab.safetensors")
    with pytest.raises(BackboneError, match="SHA-256"):
        import_backbone(folder)
    assert list_backbones() == ()


@pytest.mark.parametrize("text", ["[x\n", "[x]\nfile = 'x.safetensors'\n", "x = 1\n"])
def test_damaged_registry_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_installed: Path, text: str
) -> None:
    (tmp_path / "registry.toml").write_text(text)
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", str(tmp_path))
    with pytest.raises(BackboneError, match=r"registry\.toml"):
        list_backbones()
