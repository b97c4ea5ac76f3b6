"""The form is made from the dataclass, and gives it back."""

from dataclasses import fields

import pytest

from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.settings import TrainSettings
from napari_diffseg.gui.form import SettingsForm


@pytest.fixture
def form(qtbot):
    form = SettingsForm()
    qtbot.addWidget(form.native)
    return form


def test_every_field_but_the_budget_is_there_with_its_help(form):
    assert set(form.widgets) | {"seconds"} == {field.name for field in fields(TrainSettings)}
    for field in fields(TrainSettings):
        if field.name in form.widgets:
            assert form.widgets[field.name].tooltip.lower() == field.metadata["help"].lower()
    assert form.settings(60) == TrainSettings()
    assert form.widgets["strategy"].choices == ("decoder", "linear", "scratch")


def test_what_is_entered_is_what_is_trained_with(form):
    form.widgets["strategy"].value = "decoder"
    form.widgets["iterations"].value = " 40 "
    form.widgets["seed"].value = 7
    form.widgets["grid"].value = "192"
    wanted = TrainSettings(strategy="decoder", seconds=30, iterations=40, seed=7, grid=192)
    assert form.settings(30) == wanted
    form.widgets["iterations"].value = "many"
    with pytest.raises(TrainError, match="Iterations: “many” is not a whole number"):
        form.settings(30)
