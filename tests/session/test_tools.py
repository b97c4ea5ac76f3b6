"""What changes paint and prediction without a stroke; a kill loses nothing of it."""

import numpy as np
import pytest
from session_tools import LIVER, SHAPE, SPLEEN, block, tiny_volume

from napari_diffseg.io.labels import Label, LabelMap, labels_for
from napari_diffseg.session import Session, SessionError, SliceState


@pytest.fixture
def session(tmp_path):
    with Session(tiny_volume(), [LIVER, SPLEEN], folder=tmp_path) as session:
        yield session


def elsewhere(labels, *slices):
    """A mask made elsewhere: a block of each label side by side on some slices."""
    mask = np.zeros(SHAPE, np.uint8)
    for z in slices:
        for n, label in enumerate(labels):
            mask[z, 4:8, 4 * n : 4 * n + 4] = label.id
    return LabelMap(mask, tuple(labels))


def killed(session):
    """What the next process finds of a session that was never closed."""
    session._log._journal.close()  # the lock goes with the process; the journal stays as it is
    session._log._place.release()
    found = Session.recover(session.volume, session._log.root)
    assert found is not None
    return found


def test_labels_of_elsewhere_become_paint(session):
    # The ids are others than here: names count.
    theirs = elsewhere((Label(7, "Spleen", (1, 2, 3)), Label(1, "kidney", (4, 5, 6))), 1, 3, 4)
    session.paint.set_slice(3, block(1))
    changes = session.tools.bring(theirs)
    assert changes.changed == (1, 4)
    assert changes.left == (3,)
    names = {label.id: label.name for label in session.paint.labels}
    assert names == {1: "liver", 2: "spleen", 3: "kidney"}
    for z in (1, 4):
        assert session.paint.state(z) == SliceState.PAINTED
        assert (session.paint.mask[z, 4:8, :4] == 2).all()
        assert (session.paint.mask[z, 4:8, 4:8] == 3).all()
    assert np.array_equal(session.paint.mask[3], block(1))
    found = killed(session)
    assert np.array_equal(found.paint.mask, session.paint.mask)
    assert found.paint.labels == session.paint.labels
    found.close()


def test_chosen_slices_replace_paint_and_may_be_empty(session):
    theirs = elsewhere((LIVER,), 1, 3)
    session.paint.set_slice(3, block(2))
    changes = session.tools.bring(theirs, slices=[3, 5], replace=True)
    assert changes.changed == (3, 5)
    assert np.array_equal(session.paint.mask[3], theirs.mask[3])
    assert session.paint.state(5) == SliceState.PAINTED  # nothing is there, for certain
    assert session.paint.state(1) == SliceState.UNPAINTED


def test_labels_of_elsewhere_become_a_prediction_to_correct(session):
    session.paint.set_slice(3, block(2))
    session.tools.bring(elsewhere((LIVER,), 1, 3), target="prediction")
    assert session.prediction.edited == {1, 3}
    assert session.paint.state(1) == SliceState.UNPAINTED
    session.accept(1)
    assert session.paint.state(1) == SliceState.ACCEPTED
    found = killed(session)
    assert np.array_equal(found.prediction.mask[3], session.prediction.mask[3])
    assert found.prediction.edited == {3}
    found.close()


def test_ids_without_names_are_the_same_ids(session):
    nameless = elsewhere(labels_for([1, 9]), 2)
    session.tools.bring(nameless)
    assert set(np.unique(session.paint.mask[2])) == {0, 1, 9}
    assert [label.name for label in session.paint.labels] == ["liver", "spleen", "label 9"]


def test_labels_that_cannot_be_taken_are_refused(session):
    with pytest.raises(SessionError, match="no labels to take"):
        session.tools.bring(elsewhere((LIVER,)))
    with pytest.raises(SessionError, match="they are on slices 1 to 3"):
        session.tools.bring(elsewhere((LIVER,), 1, 3), slices=[2])
    session.paint.set_slice(1, block())
    with pytest.raises(SessionError, match="holds paint already"):
        session.tools.bring(elsewhere((LIVER,), 1))
    with pytest.raises(SessionError, match="there is no slice 6"):
        session.tools.bring(elsewhere((LIVER,), 1), slices=[6])
