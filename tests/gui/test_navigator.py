"""The slices navigator: what it shows, and where it leads."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor

from napari_diffseg.gui.navigator import NavigatorModel, SliceNavigator
from napari_diffseg.gui.theme import Palette
from napari_diffseg.session import SliceState

DARK = Palette(
    text=QColor(240, 240, 241),
    muted=QColor(150, 150, 150),
    base=QColor(38, 41, 48),
    well=QColor(65, 72, 81),
    line=QColor(90, 98, 108),
    fill=QColor(40, 110, 180),
    accent=QColor(58, 134, 214),
    attention=QColor(240, 165, 40),
    bad=QColor(224, 96, 80),
)


def model(count=10, current=9):
    states = np.zeros(count, np.uint8)
    states[[1, 3, 5]] = SliceState.PAINTED, SliceState.SCRIBBLED, SliceState.ACCEPTED
    predicted = np.zeros(count, bool)
    predicted[4:8] = True
    return NavigatorModel(states, predicted, current, {7: "confidence is low"}, {1: "liver"})


@pytest.fixture
def navigator(qtbot):
    navigator = SliceNavigator(DARK)
    qtbot.addWidget(navigator)
    navigator.resize(300, 37)
    navigator.show_model(model())
    navigator.show()
    return navigator


def column(navigator, z, share=0.3):
    """Colours down a slice's cell, beside its middle."""
    image = navigator.grab().toImage()
    x = round((z + share) * navigator.width() / len(navigator.model.states))
    return [image.pixelColor(x, y).getRgb()[:3] for y in range(navigator.height())]


def test_states_differ_in_shade_and_pattern(navigator):
    lanes = {z: column(navigator, z)[11:28] for z in (0, 1, 3, 5)}
    assert len(set(lanes[0])) == 1  # unpainted: one grey
    assert set(lanes[1]) == {DARK.text.getRgb()[:3]}  # in full: solid
    assert len(set(lanes[3])) == 2  # scribbles: dashes
    assert lanes[3].count(lanes[3][0]) < len(lanes[3]) - 4
    frame = column(navigator, 5)[9:31]
    assert frame[0] == frame[-1] == DARK.text.getRgb()[:3]  # accepted: a frame
    assert set(lanes[5]) != set(lanes[1]) != set(lanes[0])


def test_predictions_and_suggestion_show(navigator):
    bottom = [column(navigator, z)[33] for z in range(10)]
    assert [colour == DARK.accent.getRgb()[:3] for colour in bottom] == [
        4 <= z < 8 for z in range(10)
    ]
    assert DARK.attention.getRgb()[:3] in column(navigator, 7, 0.5)
    assert DARK.attention.getRgb()[:3] not in column(navigator, 2, 0.5)


def test_truth_shows_in_a_volume_of_many_slices(navigator):
    states = np.zeros(1200, np.uint8)
    states[600] = SliceState.PAINTED
    navigator.show_model(NavigatorModel(states, np.zeros(1200, bool), 0))
    assert DARK.text.getRgb()[:3] in column(navigator, 600, 0.5)


def test_mouse_and_keys_go_to_slices(navigator, qtbot):
    went = []
    navigator.went.connect(went.append)
    left = Qt.MouseButton.LeftButton
    qtbot.mouseClick(navigator, left, pos=QPoint(round(navigator.centre_of(3)), 20))
    qtbot.mousePress(navigator, left, pos=QPoint(0, 20))
    qtbot.mouseMove(navigator, QPoint(299, 20))
    for key in (Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Home, Qt.Key.Key_End):
        qtbot.keyClick(navigator, key)
    assert went == [3, 0, 9, 8, 9, 0, 9]


def test_hover_tells_what_is_there(navigator):
    assert navigator.describe(1) == "Slice 1 · painted in full: liver"
    assert navigator.describe(5) == "Slice 5 · accepted · predicted"
    assert navigator.describe(7) == "Slice 7 · unpainted · predicted · suggested: confidence is low"


def test_without_a_volume(navigator):
    went = []
    navigator.went.connect(went.append)
    navigator.show_model(NavigatorModel())
    navigator.grab()
    navigator._go(20)
    assert went == []
    assert navigator.slice_at(10) is None
