"""Painted coronal and sagittal planes in a session: states, journal, training, export."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from session_tools import LIVER, QUICK, SHAPE, SPLEEN, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.engine.annotations import BACKGROUND
from napari_diffseg.engine.crossing import RegistrationAcross
from napari_diffseg.session import Session, SessionError, SliceState, register_late_planes

_VOLUME = tiny_volume()


def _session(folder: Path | None = None) -> Session:
    return Session(_VOLUME, [LIVER, SPLEEN], tiny_backbone(), folder or False)


def _coronal(label: int = 1) -> np.ndarray:
    mask = np.zeros((SHAPE[0], SHAPE[2]), np.uint8)
    mask[:, 8:16] = label
    return mask


def test_a_plane_has_a_state_and_leaves_every_slice_alone():
    paint = _session().paint
    planes = paint.planes
    before = paint.revision
    planes.set_plane("coronal", 10, _coronal())
    assert planes.state("coronal", 10) == SliceState.SCRIBBLED
    planes.set_state("coronal", 10, SliceState.PAINTED)
    assert planes.state("coronal", 10) == SliceState.PAINTED
    assert planes.state("sagittal", 10) == SliceState.UNPAINTED
    assert list(planes) == [("coronal", 10)]
    assert not paint.states.any()
    assert not paint.mask.any()
    assert paint.revision > before
    (plane,) = planes.painted()
    assert plane.full
    assert plane.where == "coronal:10"
    np.testing.assert_array_equal(plane.mask, _coronal())
    planes.set_plane("coronal", 10, np.zeros_like(_coronal()), SliceState.SCRIBBLED)
    assert len(planes) == 0


def test_an_empty_plane_may_be_painted_in_full_and_be_cleared():
    planes = _session().paint.planes
    planes.set_state("sagittal", 3, SliceState.PAINTED)
    assert planes.state("sagittal", 3) == SliceState.PAINTED
    planes.clear_plane("sagittal", 3)
    assert list(planes) == []


@pytest.mark.parametrize(
    ("axis", "index", "shape", "said"),
    [
        ("oblique", 0, (6, 32), "use coronal or sagittal"),
        ("coronal", 32, (6, 32), "0 to 31"),
        ("sagittal", -1, (6, 32), "0 to 31"),
        ("sagittal", 1, (32, 6), "is \\(6, 32\\) pixels"),
    ],
)
def test_planes_that_do_not_fit_are_refused(axis, index, shape, said):
    with pytest.raises(SessionError, match=said):
        _session().paint.planes.set_plane(axis, index, np.ones(shape, np.uint8))


def test_a_plane_is_never_accepted():
    with pytest.raises(SessionError, match="never accepted"):
        _session().paint.planes.set_state("coronal", 1, SliceState.ACCEPTED)


def test_ids_on_planes_get_labels_that_cannot_be_removed():
    session = _session()
    session.paint.planes.set_plane("coronal", 10, _coronal(5))
    assert 5 in {label.id for label in session.paint.labels}
    with pytest.raises(SessionError, match="coronal 10"):
        session.remove_label(5)


def test_planes_are_recovered_from_journal_and_from_rewritten_one(tmp_path):
    with _session(tmp_path) as session:
        session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
        session.paint.planes.set_plane("sagittal", 3, np.full((6, 32), BACKGROUND, np.uint8))
        session.paint.planes.set_plane("sagittal", 4, _coronal())
        session.paint.planes.clear_plane("sagittal", 4)
    for _ in range(2):
        again = Session.recover(_VOLUME, tmp_path, tiny_backbone())
        assert again is not None
        planes = again.paint.planes
        assert list(planes) == [("coronal", 10), ("sagittal", 3)]
        np.testing.assert_array_equal(planes.mask("coronal", 10), _coronal())
        assert planes.state("coronal", 10) == SliceState.PAINTED
        assert planes.state("sagittal", 3) == SliceState.SCRIBBLED
        again.save()
        again.close()


def test_planes_lie_over_the_prediction_and_under_painted_slices(tmp_path):
    session = _session()
    session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
    session.paint.set_slice(2, block(2), SliceState.PAINTED)
    session.prediction.edit(4, np.full(SHAPE[1:], 2, np.uint8))
    merged = session.merged()
    np.testing.assert_array_equal(merged[4, 10], _coronal()[4])
    assert (np.delete(merged[4], 10, axis=0) == 2).all()
    np.testing.assert_array_equal(merged[2], block(2))
    session.accept(4)
    np.testing.assert_array_equal(session.paint.mask[4, 10], _coronal()[4])


def test_training_on_planes_is_reported_and_kept_in_the_round(tmp_path):
    session = _session(tmp_path)
    session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
    list(session.trainer.train(QUICK))
    list(session.trainer.predict())
    assert session.prediction.there.all()
    assert session.rounds.all[-1].planes == ("coronal:10",)
    report = json.loads(json.dumps(session.report()))
    assert report["planes"] == ["coronal:10"]
    assert report["plane_states"] == {"coronal:10": "painted"}
    session.close()
    again = Session.recover(_VOLUME, tmp_path, tiny_backbone())
    assert again is not None
    assert again.rounds.all[-1].planes == ("coronal:10",)
    again.close()


def test_planes_are_not_registered_again_in_a_session_that_is_opened_again(tmp_path):
    session = _session(tmp_path)
    session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
    session.paint.planes.set_plane("sagittal", 12, _coronal()[:, : SHAPE[1]], SliceState.PAINTED)
    assert "registering planes" in [progress.stage for progress in session.trainer.train(QUICK)]
    before = session.rounds.registration
    session.close()
    again = Session.recover(_VOLUME, tmp_path, tiny_backbone())
    assert again is not None
    assert isinstance(again.rounds.registration, RegistrationAcross)
    assert set(again.rounds.registration.across) == {"coronal", "sagittal"}
    for axis, one in again.rounds.registration.across.items():
        assert (one.first, one.last) == (before.across[axis].first, before.across[axis].last)
        np.testing.assert_array_equal(one.registration.up, before.across[axis].registration.up)
        np.testing.assert_array_equal(one.registration.down, before.across[axis].registration.down)
    written = (session.folder / "motion.npz").stat().st_mtime_ns
    stages = {progress.stage for progress in again.trainer.train(QUICK)}
    assert "learning" in stages
    assert not stages & {"registering planes", "registering slices"}
    assert (session.folder / "motion.npz").stat().st_mtime_ns == written
    again.close()


def test_planes_painted_after_the_training_are_registered_step_by_step_and_once(tmp_path):
    session = trained(_session(tmp_path))
    assert list(register_late_planes(session)) == []
    before = session.rounds.registration
    session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
    session.paint.planes.set_plane("sagittal", 12, _coronal()[:, : SHAPE[1]], SliceState.PAINTED)

    steps = register_late_planes(session)
    assert next(steps).stage == "registering planes"
    steps.close()
    assert session.rounds.registration is before

    steps = list(register_late_planes(session))
    done, (count,) = [step.step for step in steps], {step.steps for step in steps}
    assert done == sorted(set(done))
    assert done[-1] == count  # of both axes together
    assert all(step.remaining > 0 for step in steps[:-1])
    assert steps[-1].remaining == 0
    across = session.rounds.registration.across
    assert set(across) == {"coronal", "sagittal"}
    assert list(register_late_planes(session)) == []

    list(session.trainer.predict())
    session.close()
    again = Session.recover(_VOLUME, tmp_path, tiny_backbone())
    assert list(register_late_planes(again)) == []
    assert set(again.rounds.registration.across) == {"coronal", "sagittal"}
    again.close()


def test_prediction_is_the_same_whether_late_planes_were_registered_before(tmp_path):
    masks = []
    for ahead in (False, True):
        session = trained(_session())
        session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
        if ahead:
            list(register_late_planes(session))
        list(session.trainer.predict())
        masks.append(session.prediction.confidence.copy())
    np.testing.assert_array_equal(*masks)


def test_a_full_disk_keeps_late_planes_from_no_prediction(tmp_path, monkeypatch):
    session = trained(_session(tmp_path))
    session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("napari_diffseg.session.rounds.write_registration", full)
    assert list(register_late_planes(session))
    assert isinstance(session.rounds.registration, RegistrationAcross)
    session.close()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("coronal-covers", lambda covers: covers + 1000),
        ("coronal-covers", lambda covers: covers[::-1]),
        ("coronal-covers", lambda covers: covers.astype(float)),
        ("coronal-covers", lambda covers: covers[:1]),
        ("coronal-up", lambda up: up[..., 1:]),
        ("coronal-down", lambda down: down[1:]),
        ("coronal-down", lambda down: down.astype(np.float32)),
    ],
)
def test_a_damaged_registration_of_planes_is_made_again(name, change, tmp_path):
    session = _session(tmp_path)
    session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
    list(session.trainer.train(QUICK))
    session.close()
    with np.load(session.folder / "motion.npz") as file:
        arrays = dict(file)
    arrays[name] = change(arrays[name])
    np.savez(session.folder / "motion.npz", **arrays)
    again = Session.recover(_VOLUME, tmp_path, tiny_backbone())
    assert again is not None
    assert again.rounds.registration is None
    assert any("until the next training" in note for note in again.notes)
    assert "registering planes" in [progress.stage for progress in again.trainer.train(QUICK)]
    again.close()


def test_a_slice_left_out_is_judged_without_the_rows_of_planes():
    """All that is painted on the slice is what the plane says, so nothing is left to judge by."""
    session = _session()
    only = np.zeros(SHAPE[1:], np.uint8)
    only[10, 8:16] = 1
    session.paint.set_slice(2, only, SliceState.PAINTED)
    session.paint.planes.set_plane("coronal", 10, _coronal(), SliceState.PAINTED)
    list(session.trainer.train(QUICK))
    list(session.trainer.validate(QUICK))
    assert session.trainer.quality.get(1, 0.0) == 0.0
