"""*Adapt to this CT*: the model of another patient learns from what it is surest of."""

import pytest
from session_tools import LIVER, tiny_backbone, tiny_volume, trained

from napari_diffseg.session import Session


@pytest.fixture
def model(tmp_path):
    session = trained(
        Session(tiny_volume(5), [LIVER], tiny_backbone(), folder=False), iterations=60
    )
    session.trainer.save_model(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def loaded(window, model):
    window.open()
    more = window.panel.more
    window.click(more.fold)
    button = more.buttons["adapt"]
    assert "Load a model first." in button.toolTip()
    window.workspace.load_model(model)
    window.until(lambda: bool(window.workspace.predicted.all()))
    window.idle()
    window.panel.refresh()
    return button


@pytest.mark.usefixtures("short_adaptation")
def test_the_model_adapts_and_predicts_and_its_round_can_be_taken_back(window, model):
    button = loaded(window, model)
    assert button.isEnabled()
    window.click(button)
    window.until(lambda: window.session.trainer.round.number == 2)
    window.until(lambda: (window.session.prediction.round_of == 2).all())
    window.idle()
    window.panel.refresh()
    assert "adapted without paint" in window.panel.more.rounds.item(0).text()
    assert not button.isEnabled()
    assert "has learnt from this CT already" in button.toolTip()
    window.workspace.restore_round(1)
    window.until(lambda: window.session.trainer.round.number == 1)
    window.idle()
    assert button.isEnabled()


def test_it_is_stopped_and_the_model_stays(window, model):
    button = loaded(window, model)
    window.click(button)
    window.until(lambda: window.workspace.runner.latest is not None)
    assert window.workspace.runner.running == "adapting"
    assert "that it is surest of" in window.sentence
    window.click(window.panel.train.buttons["stop"])
    window.idle()
    assert window.session.trainer.round.number == 1
    assert "was not adapted" in window.sentence
    assert window.workspace.predicted.all()
