"""What changes paint and prediction without a stroke; a kill loses nothing of it."""

import numpy as np
import pytest
from session_tools import (
    LIVER,
    SHAPE,
    SPLEEN,
    block,
    predicting,
    tiny_backbone,
    tiny_volume,
    trained,
)

from napari_diffseg.engine.edit import Edit
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


def dotted(label=1):
    """A block with a hole, and a dot of the same label far from it."""
    plane = block(label)
    plane[11, 11] = 0
    plane[24, 24] = label
    return plane


def test_an_edit_of_painted_slices_is_journalled(session):
    session.paint.set_slice(1, dotted())
    session.paint.set_slice(4, dotted(), SliceState.SCRIBBLED)
    session.paint.set_slice(5, dotted())
    assert session.tools.put(session.tools.edited(Edit("fill holes"), 1, z=1)) == (1,)
    assert session.paint.mask[1, 11, 11] == 1
    assert session.paint.mask[4, 11, 11] == 0
    everywhere = session.tools.edited(Edit("keep largest"), 1)
    assert session.tools.put(everywhere) == (1, 4, 5)
    assert not session.paint.mask[:, 24, 24].any()
    assert session.paint.state(4) == SliceState.SCRIBBLED
    found = killed(session)
    assert np.array_equal(found.paint.mask, session.paint.mask)
    assert np.array_equal(found.paint.states, session.paint.states)
    found.close()


def test_the_prediction_is_edited_as_one_volume(session):
    planes = [block(), block(), dotted(), block(), block()]
    for z, plane in enumerate(planes):
        session.prediction.edit(z, plane)
    # In the volume the hole is a cavity; grown by 5 mm, it reaches the slice above the top one.
    session.tools.put(session.tools.edited(Edit("fill holes"), 1, "prediction"))
    assert session.prediction.mask[2, 11, 11] == 1
    session.tools.put(session.tools.edited(Edit("grow", 5.0), 1, "prediction"))
    assert session.prediction.mask[5, 8:16, 8:16].all()
    assert not session.paint.states.any()


def test_an_edit_refuses_what_makes_no_sense(session):
    session.paint.set_slice(1, block())
    with pytest.raises(SessionError, match="liver is locked"):
        session.tools.edited(Edit("grow", 1), 1, locked={1})
    with pytest.raises(SessionError, match="spleen is not on slice 1"):
        session.tools.edited(Edit("grow", 1), 2, z=1)
    with pytest.raises(SessionError, match="no label with id 9"):
        session.tools.edited(Edit("grow", 1), 9)
    late = session.tools.edited(Edit("grow", 3), 1, z=1)
    session.paint.set_slice(1, dotted())
    with pytest.raises(SessionError, match="slice 1 has changed meanwhile"):
        session.tools.put(late)
    assert np.array_equal(session.paint.mask[1], dotted())


def test_growing_leaves_other_labels_alone(session):
    plane = block()
    plane[8:16, 16:20] = 2
    session.paint.set_slice(1, plane)
    session.tools.put(session.tools.edited(Edit("grow", 4.0), 1, z=1))
    assert (session.paint.mask[1, 8:16, 16:20] == 2).all()
    assert (session.paint.mask[1, 8:16, 6:8] == 1).all()


def test_labels_are_copied_from_the_neighbour(session):
    plane = block()
    plane[0, :4] = 2
    session.paint.set_slice(1, plane)
    here = np.zeros_like(plane)
    here[8, 8] = 2
    session.paint.set_slice(2, here)
    session.tools.put(session.tools.copied(2, 1, locked={2}))
    expected = block()
    expected[8, 8] = 2  # paint that is there stays, and a locked label is not copied
    assert np.array_equal(session.paint.mask[2], expected)
    # What is only predicted is copied, too; here fitted, and the image is the same.
    session.prediction.edit(4, block(2))
    session.tools.put(session.tools.copied(5, 4, "prediction", fit=True))
    there, wanted = session.prediction.mask[5] == 2, block(2) == 2
    assert 2 * (there & wanted).sum() / (there.sum() + wanted.sum()) > 0.9
    with pytest.raises(SessionError, match="slice 3 holds no label"):
        session.tools.copied(2, 3)


def test_a_gap_is_filled_without_training(session):
    for z in (0, 2, 5):
        session.paint.set_slice(z, block())
    session.tools.put(session.tools.filled(1))
    assert session.prediction.edited == {1}
    session.tools.put(session.tools.filled())
    assert session.prediction.edited == {1, 3, 4}
    for z in (1, 3, 4):
        there, wanted = session.prediction.mask[z] == 1, block() == 1
        assert 2 * (there & wanted).sum() / (there.sum() + wanted.sum()) > 0.9
    assert session.trainer.segmenter is None
    found = killed(session)
    assert np.array_equal(found.prediction.mask, session.prediction.mask)
    with pytest.raises(SessionError, match="a gap between two slices"):
        found.tools.filled(0)
    found.close()


def test_corrections_are_taken_back_to_the_models_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_diffseg.session.trainer.predict", predicting(block()))
    session = trained(Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path))
    for z in (2, 3):
        session.prediction.edit(z, block(0))
    with pytest.raises(SessionError, match="slice 5 is not corrected"):
        session.tools.modelled(5)
    proposal = session.tools.modelled(2)
    assert session.tools.put(proposal) == (2,)
    assert np.array_equal(session.prediction.mask[2], block())
    assert session.prediction.edited == {3}
    assert not session.prediction.mask[3].any()
    with killed(session) as found:
        assert np.array_equal(found.prediction.mask, session.prediction.mask)
        assert found.prediction.edited == {3}
        found.prediction.edit(0, block(0))
        assert found.tools.put(found.tools.modelled()) == (0, 3)
        assert found.prediction.edited == frozenset()
        assert (found.prediction.mask == block()).all()
        with pytest.raises(SessionError, match="no slice is corrected"):
            found.tools.modelled()


def test_a_slice_that_no_model_predicted_has_nothing_to_go_back_to(session):
    session.prediction.edit(2, block())
    with pytest.raises(SessionError, match="no model has predicted this yet"):
        session.tools.modelled(2)
    assert session.prediction.mask[2].any()
