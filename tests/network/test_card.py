"""The card of a saved model: kept, inherited where it is true, refused where it is impossible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine_tools import DISC, SPOT, tiny_backbone
from safetensors import safe_open
from safetensors.torch import save_file

from napari_diffseg.io.files import content_sha256
from napari_diffseg.network import ModelCard, Segmenter, SegmenterConfig, SegmenterError
from napari_diffseg.network.backbone import load_backbone, save_backbone

CARD = ModelCard(
    cases=3,
    slices=24,
    validation={"disc": 0.9, "spot": 0.5},
    validation_kind="leave-one-patient-out",
    licence="CC-BY-4.0",
    version="0.0.7",
    backbone="ab" * 32,
)


def _model(**config: str) -> Segmenter:
    return Segmenter.new(tiny_backbone(), (DISC, SPOT), SegmenterConfig(columns=32, **config))


def _header(path: Path) -> dict:
    with safe_open(path, framework="pt") as stream:
        return json.loads(stream.metadata()["napari-diffseg-segmenter"])


def _rewrite(path: Path, header: dict) -> None:
    with safe_open(path, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"napari-diffseg-segmenter": json.dumps(header)})


def test_card_comes_back_with_the_model(tmp_path: Path) -> None:
    model = _model()
    model.card = CARD
    model.save(tmp_path / "m.safetensors")
    assert Segmenter.load(tmp_path / "m.safetensors").card == CARD
    assert CARD.mean_validation == pytest.approx(0.7)


def test_version_is_filled_when_saved(tmp_path: Path) -> None:
    _model().save(tmp_path / "m.safetensors")
    card = Segmenter.load(tmp_path / "m.safetensors").card
    assert card.version
    assert card == ModelCard(version=card.version)


def test_model_without_a_card_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    _model().save(path)
    header = _header(path)
    del header["card"]
    _rewrite(path, header)
    assert Segmenter.load(path).card == ModelCard()


def test_fields_of_later_versions_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    _model().save(path)
    header = _header(path)
    header["card"] |= {"cases": 2, "mood": "good"}
    _rewrite(path, header)
    assert Segmenter.load(path).card.cases == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cases": -1}, "cases is no count"),
        ({"slices": "many"}, "slices is no count"),
        ({"licence": 3}, "licence is no text"),
        ({"validation": {"disc": 7}}, "'disc' is no Dice"),
        ({"validation": {"disc": float("nan")}}, "'disc' is no Dice"),
        ({"validation": [1]}, "validation is no Dice"),
        ({"backbone": "starter"}, "backbone is no SHA-256"),
    ],
)
def test_impossible_cards_are_refused(tmp_path: Path, change: dict, said: str) -> None:
    path = tmp_path / "m.safetensors"
    _model().save(path)
    header = _header(path)
    header["card"] |= change
    _rewrite(path, header)
    with pytest.raises(SegmenterError, match=said) as caught:
        Segmenter.load(path)
    assert "m.safetensors" in str(caught.value)
    header["card"] = [change]
    _rewrite(path, header)
    with pytest.raises(SegmenterError, match="no JSON object"):
        Segmenter.load(path)


def test_weights_of_another_architecture_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    _model().save(path)
    header = _header(path)
    _rewrite(path, header | {"config": header["config"] | {"hidden": 16}})
    with pytest.raises(SegmenterError, match=r"weights are of another network, such as \S+"):
        Segmenter.load(path)
    _rewrite(path, header | {"unet": header["unet"] | {"blocks": 2}})
    with pytest.raises(SegmenterError, match=r"weights are of another network, such as \S+"):
        Segmenter.load(path)


def test_backbone_is_known_by_the_sha256_of_its_file(tmp_path: Path) -> None:
    save_backbone(tmp_path / "b.safetensors", tiny_backbone())
    start = load_backbone(tmp_path / "b.safetensors")
    made = Segmenter.new(start, (DISC,), SegmenterConfig(columns=32))
    assert made.card == ModelCard(backbone=content_sha256(tmp_path / "b.safetensors"))
    scratch = Segmenter.new(start, (DISC,), SegmenterConfig("scratch", columns=32))
    assert scratch.card.backbone == ""


def test_going_on_keeps_licence_and_backbone_but_no_figures() -> None:
    model = _model()
    model.card = CARD
    later = Segmenter.new(model, (DISC, SPOT), model.config)
    assert later.card == ModelCard(licence=CARD.licence, backbone=CARD.backbone)
