"""Configuration files, options made of dataclasses, and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretrain_tools import TINY_TOML

from diffseg_training.cli import main
from diffseg_training.config import load_recipe
from diffseg_training.cost import network_cost
from diffseg_training.settings import (
    ConvertSettings,
    EvaluateSettings,
    PackSettings,
    PrepareSettings,
    PretrainError,
    PretrainSettings,
    ReleaseSettings,
    SampleSettings,
)
from napari_diffseg.cli.options import settings_help

TINY = f"""
name = "tiny"
{TINY_TOML}
[prepare]
grid = 20
[train]
iterations = 2
batch = 2
log_every = 1
hu = [-1000, 1000]
[[sources]]
pattern = '(?P<patient>patient\\d)'
"""


@pytest.mark.parametrize("name", ["starter", "unet-b", "unet-l", "flare22"])
def test_shipped_configurations_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert (recipe.train.learning_rate, recipe.train.final_learning_rate) == (2e-4, 2e-5)


@pytest.mark.parametrize(("name", "millions"), [("unet-b", 136), ("unet-l", 543)])
def test_paper_networks_have_about_the_papers_weights(name: str, millions: int) -> None:
    weights = network_cost(load_recipe(name).unet).parameters
    assert weights / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    "kind",
    [
        PrepareSettings,
        PackSettings,
        PretrainSettings,
        SampleSettings,
        EvaluateSettings,
        ReleaseSettings,
        ConvertSettings,
    ],
)
def test_every_setting_has_help(kind: type) -> None:
    assert all(settings_help(kind).values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nbatchsize = 3", "unknown setting 'batchsize'"),
        ("[train]\nbatch = 'many'", "batch = 'many': must be of type int"),
        ("[train]\nschedule = 'cubic'", "must be one of cosine"),
        ("[train]\nhu = 3", "must be a list"),
        ("[training]\nbatch = 3", "unknown table"),
        ("[train", "config.toml"),
        ("[unet]\nimage_size = 100", "not a multiple"),
    ],
)
def test_mistakes_in_a_configuration_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(PretrainError, match=message) as error:
        load_recipe(str(path))
    assert "config.toml" in str(error.value)


def test_prepare_and_train_from_the_command_line(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    data, out = tmp_path / "store", tmp_path / "run"
    arguments = ["prepare", str(cohort), "--config", str(config), "--out", str(data)]
    assert main([*arguments, "--validation", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert "[6/6]" in printed
    assert "skipped: 0 volumes" in printed
    arguments = ["train", "--config", str(config), "--data", str(data), "--out", str(out)]
    assert main([*arguments, "--device", "cpu", "--iterations", "3", "--no-flip"]) == 0
    assert "step 3/3" in capsys.readouterr().out
    assert main(["train", "--config", str(config), "--dry-run", "1", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "computed:" in printed
    assert "measured:" in printed


def test_errors_are_one_line_and_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["train", "--config", "nothing", "--data", ".", "--out", "."],
        ["train", "--config", "starter"],
        ["prepare", str(tmp_path / "missing"), "--out", str(tmp_path)],
        ["sample", "nothing", "--out", str(tmp_path)],
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("napari-diffseg-pretrain: error: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "command", ["prepare", "train", "sample", "evaluate", "release", "convert"]
)
def test_help_explains_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out
