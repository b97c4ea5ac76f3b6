"""Segmenters: what each strategy trains, what is kept, what a saved model holds."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from engine_tools import DISC, SPOT, TINY, disc_volume, lively, paint, tiny_backbone
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_diffseg.engine.finetune import finetune
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.network.backbone import save_backbone
from napari_diffseg.network.segmenter import LevelHead, Segmenter, SegmenterConfig, SegmenterError

_X = torch.linspace(-1, 1, 2 * 40 * 32).reshape(2, 1, 40, 32)


def _trained(strategy: str, recipe: str = "paper") -> Segmenter:
    volume, truth = disc_volume()
    settings = TrainSettings(strategy, recipe, iterations=4, device="cpu")
    *_, last = finetune(volume, paint(truth, 2, 5), (DISC, SPOT), tiny_backbone(), settings)
    assert last.segmenter is not None
    return last.segmenter


def _changed(segmenter: Segmenter) -> set[str]:
    before = tiny_backbone().unet.state_dict()
    after = segmenter.unet.state_dict()
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def _random(head: str = "levels", strategy: str = "decoder") -> Segmenter:
    torch.manual_seed(0)
    config = SegmenterConfig(strategy, head, hidden=16, timestep=50, columns=32)
    made = Segmenter.new(tiny_backbone(), (DISC, SPOT), config)
    lively(made.head, 1)
    return made.eval()


def test_linear_trains_the_head_alone() -> None:
    assert _changed(_trained("linear")) == set()


def test_decoder_trains_all_of_the_decoder_and_no_bit_of_the_encoder() -> None:
    changed = _changed(_trained("decoder"))
    named = {n for n, _ in tiny_backbone().unet.named_parameters() if n.startswith("decoder.")}
    assert changed == named
    assert len(named) > 10


def test_apps_recipe_leaves_the_encoder_alone_too() -> None:
    assert all(name.startswith("decoder.") for name in _changed(_trained("decoder", "app")))
    assert _changed(_trained("linear", "app")) == set()


def test_scratch_trains_everything_from_random_weights_without_time() -> None:
    segmenter = _trained("scratch")
    start = tiny_backbone().unet.state_dict()
    names = set(segmenter.unet.state_dict())
    assert not segmenter.unet.config.time
    assert not any("time_embed" in name or "scale_shift" in name for name in names)
    assert not torch.equal(segmenter.unet.stem.weight, start["stem.weight"])
    # Convolutions that start at zero show that the encoder was trained, and not only replaced.
    ends = [p for n, p in segmenter.unet.encoder.named_parameters() if n.endswith("conv2.weight")]
    assert ends
    assert all(p.abs().max() > 0 for p in ends)


@pytest.mark.parametrize("strategy", ["linear", "decoder", "scratch"])
def test_head_is_trained_and_the_start_is_not_touched(strategy: str) -> None:
    volume, truth = disc_volume()
    start = tiny_backbone()
    settings = TrainSettings(strategy, "paper", iterations=1, device="cpu")
    steps = finetune(volume, paint(truth, 2, 5), (DISC, SPOT), start, settings)
    *_, last = steps
    once = last.segmenter
    assert once is not None
    more = _trained(strategy)
    heads = [dict(s.head.named_parameters()) for s in (once, more)]
    assert all(not torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    for name, tensor in tiny_backbone().unet.state_dict().items():
        assert torch.equal(start.unet.state_dict()[name], tensor), name


@pytest.mark.parametrize("head", ["levels", "paper"])
@pytest.mark.parametrize("strategy", ["decoder", "scratch"])
def test_saved_model_predicts_the_same(tmp_path: Path, head: str, strategy: str) -> None:
    kept = _random(head, strategy)
    kept.save(tmp_path / "m.safetensors")
    loaded = Segmenter.load(tmp_path / "m.safetensors")
    assert (loaded.labels, loaded.config) == (kept.labels, kept.config)
    assert (loaded.intensity, loaded.unet.config) == (kept.intensity, kept.unet.config)
    with torch.inference_mode():
        expected = kept(_X)
        assert torch.equal(loaded(_X), expected)
    assert expected.shape == (2, 3, 40, 32)
    assert expected.std() > 1e-3
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_trained_model_holds_no_trace_of_the_volume(tmp_path: Path) -> None:
    segmenter = _trained("decoder", "app")
    path = tmp_path / "m.safetensors"
    segmenter.save(path)
    with safe_open(path, framework="pt") as stream:
        header = json.loads(stream.metadata()["napari-diffseg-segmenter"])
        names = set(stream.keys())
    assert set(header) == {"unet", "intensity", "config", "labels", "card"}
    assert names == set(segmenter.state_dict())
    assert b"tiny" not in path.read_bytes()


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def _text(path: Path) -> None:
    path.write_text("not a model")


def _gone(path: Path) -> None:
    path.unlink()


def _backbone(path: Path) -> None:
    save_backbone(path, tiny_backbone())


def _another(path: Path) -> None:
    _with_header(path, labels=[])


def _with_header(path: Path, **change: object) -> None:
    with safe_open(path, framework="pt") as stream:
        header = json.loads(stream.metadata()["napari-diffseg-segmenter"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    header |= change
    save_file(tensors, path, metadata={"napari-diffseg-segmenter": json.dumps(header)})


def _labels_of_another_kind(path: Path) -> None:
    _with_header(path, labels=[{"id": 1}])


def _config_of_another_kind(path: Path) -> None:
    _with_header(path, config={"wings": 2})


def _impossible_ids(path: Path) -> None:
    _with_header(path, labels=[asdict(replace(label, id=300)) for label in (DISC, SPOT)])


def _one_id_twice(path: Path) -> None:
    _with_header(path, labels=[asdict(DISC), asdict(replace(SPOT, id=DISC.id))])


def _weights_that_are_no_numbers(path: Path) -> None:
    segmenter = Segmenter.load(path)
    with torch.no_grad():
        next(segmenter.parameters())[0] = torch.nan
    segmenter.save(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_impossible_ids, "label ids are not distinct numbers from 1 to 254"),
        (_one_id_twice, "label ids are not distinct"),
        (_weights_that_are_no_numbers, "its weights are not finite"),
        (_truncated, "not a readable"),
        (_text, "not a readable"),
        (_gone, "not a readable"),
        (_backbone, "another kind of file"),
        (_another, "not a model of this program"),
        (_labels_of_another_kind, "not a model of this program"),
        (_config_of_another_kind, "not a model of this program"),
    ],
)
def test_damaged_or_other_files_are_named(tmp_path: Path, damage, said: str) -> None:
    path = tmp_path / "m.safetensors"
    _random().save(path)
    damage(path)
    with pytest.raises(SegmenterError, match=said) as caught:
        Segmenter.load(path)
    assert "m.safetensors" in str(caught.value)


def test_head_is_kept_where_the_labels_are_the_same() -> None:
    start = _random()
    again = Segmenter.new(start, (DISC, SPOT), start.config).eval()
    with torch.inference_mode():
        assert torch.equal(again(_X), start(_X))
    fewer = Segmenter.new(start, (DISC,), start.config).eval()
    assert fewer(_X).shape[1] == 2
    swapped = Segmenter.new(start, (SPOT, DISC), start.config).eval()
    with torch.inference_mode():
        assert not torch.equal(swapped(_X), start(_X))
    for other in (again, fewer, swapped):
        for name, tensor in start.unet.state_dict().items():
            assert torch.equal(other.unet.state_dict()[name], tensor)
        assert other.unet is not start.unet


def test_timestep_reaches_the_network() -> None:
    config = SegmenterConfig("decoder", "levels", hidden=16, columns=32)
    torch.manual_seed(0)
    early = Segmenter.new(tiny_backbone(), (DISC,), config).eval()
    late = Segmenter(
        early.unet, early.intensity, (DISC,), SegmenterConfig("decoder", "levels", 16, 400, 32)
    ).eval()
    late.head.load_state_dict(early.head.state_dict())
    with torch.inference_mode():
        assert (early(_X) - late(_X)).abs().max() > 1e-3


def _maps(channels: tuple[int, ...], sides: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(
        torch.randn(2, c, s, s + s // 2, generator=generator) * (1 + c) + c
        for c, s in zip(channels, sides, strict=True)
    )


def test_head_on_maps_is_the_head_on_pixels_of_the_upsampled_maps() -> None:
    channels, maps = (7, 5, 3), _maps((7, 5, 3), (4, 8, 16))
    head = lively(LevelHead(channels, 6, 4)).eval()
    assert isinstance(head, LevelHead)
    for buffer in head.buffers():  # means, deviations and shift, all away from 0 and 1
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 3)
    size = maps[-1].shape[-2:]
    upsampled = [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps]
    pixels = torch.cat(upsampled, dim=1).movedim(1, -1)
    with torch.inference_mode():
        expected = head.pixels(pixels.flatten(0, 2)) + head.shift
        dense = head(maps)
    assert dense.dtype == torch.float32
    assert dense.shape == (2, 4, 16, 24)
    torch.testing.assert_close(dense.movedim(1, -1).flatten(0, 2), expected, rtol=1e-4, atol=1e-4)


def test_grid_multiple_is_what_the_levels_need() -> None:
    assert _random().grid_multiple == 2 ** (len(TINY.widths) - 1)
