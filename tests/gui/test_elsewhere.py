"""A CT whose session another window has open: look, take over, or begin anew."""

import os

import numpy as np
import pytest
from session_tools import LIVER, block, tiny_volume

from napari_diffseg.session import ReadOnlyError, Session


@pytest.fixture
def other():
    """The other window's session."""
    session = Session(tiny_volume(), [LIVER])
    session.paint.set_slice(2, block())
    yield session
    session.close()


def asked(window):
    """Open the CT, and wait for the three choices."""
    window.open(wait=False)
    window.until(lambda: window.workspace is not None and bool(window.workspace.elsewhere))
    window.panel.refresh()
    return window.panel.banner


def begun(window, button):
    before = window.session
    window.click(button)
    window.until(lambda: window.session is not None and window.session is not before)
    window.panel.refresh()


def test_three_choices(window, other):
    banner = asked(window)
    assert window.sentence == (
        f"This CT is open in another window (process {os.getpid()}): "
        "look at it read-only, take it over, or begin a new session."
    )
    shown = [b for b in (banner.restore_button, banner.look_button, banner.take_button,
                         banner.fresh_button) if b.isVisible()]  # fmt: skip
    assert [b.text() for b in shown] == ["Open read-only", "Take over", "New session"]
    assert window.panel.labels.buttons["add"].toolTip().startswith("Choose above")


def test_look_then_take_over(window, other):
    banner = asked(window)
    begun(window, banner.look_button)
    paint = window.workspace.layers.paint
    assert window.sentence.startswith("This session was opened read-only")
    assert np.array_equal(paint.data[2], block())
    assert not paint.editable
    assert window.panel.train.buttons["train"].toolTip().startswith("Read-only")
    assert window.panel.export.buttons["mask"].isEnabled()
    assert not banner.look_button.isVisible()
    # A stroke that comes by another way is refused, and does not stay in the picture.
    paint.data_setitem((np.array([3]), np.array([4]), np.array([4])), 1)
    window.until(lambda: not paint.data[3].any())
    other.paint.set_slice(4, block())

    begun(window, banner.take_button)
    assert np.array_equal(window.session.paint.mask, other.paint.mask)
    assert np.array_equal(paint.data, other.paint.mask)
    assert paint.editable
    assert not banner.choice.isVisible()
    with pytest.raises(ReadOnlyError, match="another window has taken this session over"):
        other.paint.set_slice(5, block())
    window.paint_block(5, 1)


def test_a_window_whose_session_is_taken_over(window):
    window.open()
    window.session.paint.add_label("liver")
    window.workspace.recolour()
    window.paint_block(2, 1)
    mine = window.session
    other = Session.recover(tiny_volume(), access="take over")
    other.paint.set_slice(4, block())
    paint, banner = window.workspace.layers.paint, window.panel.banner
    paint.data_setitem((np.array([3]), np.array([4]), np.array([4])), 1)
    window.until(lambda: not paint.data[3].any())
    assert window.sentence == (
        "Another window has taken this session over and goes on with it; nothing is changed here "
        "any more: close it, take it back, or begin a new session."
    )
    assert not mine.paint.mask[3].any()
    assert np.array_equal(paint.data[2], block())  # what was saved is still there to export
    begun(window, banner.take_button)
    assert np.array_equal(window.session.paint.mask[4], block())
    with pytest.raises(ReadOnlyError):
        other.paint.set_slice(5, block())
    other.close()


def test_a_new_session_leaves_the_other_one_alone(window, other):
    begun(window, asked(window).fresh_button)
    assert window.sentence == "Add a label, such as liver, to paint with."
    window.add_label("spleen")
    other.paint.set_slice(3, block())
    assert [one.name for one in other.paint.labels] == ["liver"]
    assert window.session.folder != other.folder


def test_take_over_once_the_other_window_is_closed(window, other):
    banner = asked(window)
    other.close()
    begun(window, banner.take_button)
    assert window.session.folder == other.folder
    assert np.array_equal(window.workspace.layers.paint.data[2], block())
