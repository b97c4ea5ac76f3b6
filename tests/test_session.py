from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from session_tools import LIVER, QUICK, SHAPE, SPLEEN, block, predicting, tiny_backbone, tiny_volume

import napari_diffseg.session as module
from napari_diffseg.finetune import Progress
from napari_diffseg.segmenter import Segmenter
from napari_diffseg.session import Session, SessionError, SliceState
from napari_diffseg.volume import Label, Volume, VolumeError, write_volume


@pytest.fixture
def session() -> Session:
    """Two labels, nothing painted, nothing on disk."""
    return Session(tiny_volume(), [LIVER, SPLEEN], tiny_backbone(), folder=False)


def trained(session: Session, seed: int = 0, **more: object) -> Session:
    """Paint two slices where none is painted, train, and predict."""
    if not session.states.any():
        session.set_slice(1, block())
        session.set_slice(4, block())
    list(session.train(replace(QUICK, seed=seed, **more)))  # type: ignore[arg-type]
    list(session.predict())
    return session


def weights(segmenter: Segmenter | None) -> list[np.ndarray]:
    assert segmenter is not None
    return [p.detach().cpu().numpy().copy() for p in segmenter.state_dict().values()]


# Labels


def test_labels_get_free_ids_and_their_names_are_kept_apart(session: Session) -> None:
    kidney = session.add_label("kidney")
    assert kidney.id == 3
    assert session.add_label().name == "label 4"
    session.rename_label(3, "left kidney")
    assert [label.name for label in session.labels] == [
        "liver",
        "spleen",
        "left kidney",
        "label 4",
    ]
    with pytest.raises(SessionError, match="already a label 'liver'"):
        session.rename_label(3, "liver")
    with pytest.raises(SessionError, match="no label with id 9"):
        session.rename_label(9, "heart")
    with pytest.raises(SessionError, match="needs a name"):
        session.rename_label(3, "  ")


def test_names_are_imported_and_may_be_swapped(session: Session, tmp_path: Path) -> None:
    names = tmp_path / "labels.json"
    names.write_text('{"spleen": 1, "liver": 2, "aorta": 5}')
    session.import_names(names)
    assert [(label.id, label.name) for label in session.labels] == [
        (1, "spleen"),
        (2, "liver"),
        (5, "aorta"),
    ]
    names.write_text("[]")
    with pytest.raises(VolumeError, match=r"labels\.json"):
        session.import_names(names)


def test_a_painted_label_cannot_be_removed_by_accident(session: Session) -> None:
    session.set_slice(2, block(2))
    with pytest.raises(SessionError, match=r"spleen is painted on 1 slices \(the first is 2\)"):
        session.remove_label(2)
    session.clear_slice(2)
    session.remove_label(2)
    assert session.labels == (LIVER,)


def test_a_removed_label_leaves_the_prediction_and_its_id_is_not_given_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "predict", predicting(block(2)))
    trained(session)
    assert (session.prediction == 2).any()
    session.remove_label(2)
    assert not (session.prediction == 2).any()
    assert session.add_label("aorta").id == 3
    list(session.predict())  # the model still knows id 2
    assert not (session.prediction == 2).any()


# Paint


def test_states_follow_the_paint(session: Session) -> None:
    session.set_slice(0, block())
    assert session.state(0) == SliceState.PAINTED
    session.set_state(0, SliceState.SCRIBBLED)
    session.set_slice(0, block(2))
    assert session.state(0) == SliceState.SCRIBBLED
    session.set_slice(1, block(), SliceState.SCRIBBLED)
    assert session.state(1) == SliceState.SCRIBBLED
    session.clear_slice(0)
    assert session.state(0) == SliceState.UNPAINTED
    assert not session.paint[0].any()


def test_an_undone_stroke_leaves_no_empty_truth_behind(session: Session) -> None:
    session.set_slice(0, block())
    session.set_slice(0, np.zeros(SHAPE[1:], np.uint8))
    assert session.state(0) == SliceState.UNPAINTED
    assert session.painted() == ()
    # An empty slice is truth when the user says so.
    session.set_state(0, SliceState.PAINTED)
    assert [s.z for s in session.painted()] == [0]


def test_the_memory_of_the_paint_itself_may_be_given(session: Session) -> None:
    shared = session.paint
    shared[3] = block()
    session.set_slice(3, shared[3])
    assert session.paint is shared
    assert session.state(3) == SliceState.PAINTED


def test_an_id_without_label_gets_one(session: Session) -> None:
    session.set_slice(0, block(7))
    assert session.labels[-1].id == 7
    assert session.labels[-1].name == "label 7"


@pytest.mark.parametrize(
    ("z", "mask", "words"),
    [
        (6, block(), "no slice 6: the volume has 0 to 5"),
        (-1, block(), "no slice -1"),
        (0, block()[:4], r"\(32, 32\) pixels"),
        (0, block().astype(float) / 2, "whole numbers"),
        (0, block().astype(int) * 300, "whole numbers"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    session: Session, z: int, mask: np.ndarray, words: str
) -> None:
    with pytest.raises(SessionError, match=words):
        session.set_slice(z, mask)
    assert not session.states.any()


def test_states_that_contradict_the_paint_are_refused(session: Session) -> None:
    session.set_slice(0, block())
    with pytest.raises(SessionError, match="clear it"):
        session.set_state(0, SliceState.UNPAINTED)
    with pytest.raises(SessionError, match="accepting its prediction"):
        session.set_state(0, SliceState.ACCEPTED)
    assert session.state(0) == SliceState.PAINTED


def test_training_sees_background_as_the_state_means_it(session: Session) -> None:
    painted = block(1)
    painted[0] = 255
    session.set_slice(0, painted)
    session.set_slice(1, painted, SliceState.SCRIBBLED)
    session.set_state(2, SliceState.SCRIBBLED)  # nothing on it yet
    full, scribbled = session.painted()
    assert full.full
    assert set(np.unique(full.mask)) == {0, 1}
    assert not scribbled.full
    assert set(np.unique(scribbled.mask)) == {0, 1, 255}
    full.mask[:] = 9  # a copy
    assert session.paint.max() == 255


# Accept


def test_an_accepted_prediction_becomes_truth(session: Session) -> None:
    trained(session)
    session.prediction[3] = block(2)
    session.accept(3)
    np.testing.assert_array_equal(session.paint[3], block(2))
    assert session.state(3) == SliceState.ACCEPTED
    assert [(s.z, s.full) for s in session.painted()] == [(1, True), (3, True), (4, True)]


def test_accepting_never_overwrites_paint(session: Session) -> None:
    trained(session)
    session.prediction[1] = block(2)
    with pytest.raises(SessionError, match="slice 1 holds paint that differs"):
        session.accept(1)
    np.testing.assert_array_equal(session.paint[1], block(1))
    session.prediction[1] = block(1)
    session.accept(1)
    assert session.state(1) == SliceState.PAINTED  # painted by hand, and still is


def test_scribbles_that_agree_may_be_completed_by_the_prediction(session: Session) -> None:
    trained(session)
    scribble = np.zeros(SHAPE[1:], np.uint8)
    scribble[10, 10], scribble[0, 0] = 1, 255
    session.set_slice(2, scribble, SliceState.SCRIBBLED)
    session.prediction[2] = block(2)
    with pytest.raises(SessionError, match="differs"):
        session.accept(2)
    session.prediction[2] = block(1)
    session.accept(2)
    np.testing.assert_array_equal(session.paint[2], block(1))
    assert session.state(2) == SliceState.ACCEPTED


def test_nothing_is_accepted_without_a_prediction(session: Session) -> None:
    with pytest.raises(SessionError, match="no prediction to accept"):
        session.accept(2)


def test_a_corrected_prediction_survives_the_next_one_until_it_is_accepted(
    session: Session,
) -> None:
    trained(session)
    session.edit_prediction(3, block(2))
    trained(session, seed=1)
    np.testing.assert_array_equal(session.prediction[3], block(2))
    assert session.edited == {3}
    assert 3 not in session.rounds[-1].slices  # not trained on
    session.accept(3)
    assert session.edited == set()
    trained(session, seed=2)
    assert 3 in session.rounds[-1].slices
    with pytest.raises(SessionError, match="does not fit"):
        session.edit_prediction(3, block()[:3])


# Training


def test_nothing_to_learn_from_is_said_before_training(session: Session) -> None:
    with pytest.raises(SessionError, match=r"Paint a structure on at least one slice, then Train"):
        session.train(QUICK)
    session.set_state(0, SliceState.PAINTED)
    with pytest.raises(SessionError, match="Only background is painted"):
        session.train(QUICK)
    session.clear_slice(0)
    session.set_slice(0, block(), SliceState.SCRIBBLED)
    with pytest.raises(SessionError, match="No background is painted"):
        session.train(QUICK)
    with pytest.raises(SessionError, match="no model to continue from"):
        session.train(QUICK, from_model=True)
    with pytest.raises(SessionError, match="no model yet"):
        session.predict()


def test_one_label_on_one_slice_trains_and_the_other_label_is_named(session: Session) -> None:
    session.set_slice(1, block())
    steps = list(session.train(QUICK))
    assert {step.note for step in steps} == {"No painted pixel yet: spleen."}
    assert steps[-1].segmenter is session.segmenter
    assert session.segmenter is not None
    assert session.segmenter.labels == (LIVER,)
    (made,) = session.rounds
    assert (made.number, made.slices, made.iterations, made.parent) == (1, (1,), 2, None)
    assert made.settings == QUICK
    assert len(made.losses) == 2
    assert made.seconds["total"] > 0


def test_prediction_fills_every_slice_and_leaves_the_paint_alone(session: Session) -> None:
    session.current = 4
    session.set_slice(1, block())
    session.set_slice(4, block())
    list(session.train(QUICK))
    paint = session.paint.copy()
    order = [found.z for found in session.predict()]
    assert order[0] == 4
    assert sorted(order) == list(range(6))
    assert (session.predicted == 1).all()
    assert set(np.unique(session.prediction)) <= {0, 1}
    assert session.confidence.max() <= 100
    np.testing.assert_array_equal(session.paint, paint)
    assert [found.z for found in session.predict(start=0)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stopped_training_keeps_the_model(session: Session, steps: int) -> None:
    trained(session)
    before, prediction = weights(session.segmenter), session.prediction.copy()
    training = session.train(replace(QUICK, iterations=50), from_model=True)
    for _ in range(steps):
        next(training)
    training.close()  # type: ignore[attr-defined]
    assert len(session.rounds) == 1
    for old, new in zip(before, weights(session.segmenter), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(session.prediction, prediction)


def test_a_failing_training_keeps_the_model(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(session)
    before = session.segmenter

    def fails(*_: object) -> Iterator[Progress]:
        yield Progress("training", 1, None, 0.1, None, 0.5)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "finetune", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(session.train(QUICK))
    assert session.segmenter is before
    assert len(session.rounds) == 1


def test_training_works_on_the_paint_of_when_it_was_started(session: Session) -> None:
    session.set_slice(1, block())
    training = session.train(QUICK)
    session.set_slice(2, block(2))
    session.clear_slice(1)
    list(training)
    assert session.rounds[0].slices == (1,)
    assert session.segmenter is not None
    assert session.segmenter.labels == (LIVER,)


def test_going_on_from_the_model_keeps_what_it_knows(session: Session) -> None:
    trained(session)
    session.rename_label(1, "Leber")
    session.set_slice(2, block(2))
    list(session.train(QUICK, from_model=True))
    assert session.rounds[1].parent == 1
    assert session.segmenter is not None
    assert [label.name for label in session.segmenter.labels] == ["Leber", "spleen"]
    list(session.train(QUICK))
    assert session.rounds[2].parent is None


def test_a_stopped_prediction_keeps_the_earlier_slices(session: Session) -> None:
    trained(session)
    list(session.train(replace(QUICK, seed=1)))
    prediction = session.predict(start=0)
    assert next(prediction).z == 0
    assert next(prediction).z == 1
    prediction.close()  # type: ignore[attr-defined]
    assert session.predicted.tolist() == [2, 2, 1, 1, 1, 1]


# Rounds


def test_rounds_are_kept_compared_and_restored(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(session).prediction.copy()
    model = weights(session.segmenter)
    monkeypatch.setattr(module, "predict", predicting(np.roll(block(1), 2, axis=0)))
    trained(session, seed=1)
    monkeypatch.setattr(module, "predict", predicting(block(1)))
    trained(session, seed=2)

    compared = session.compare(2, 3)
    assert compared.changed.tolist() == [32] * 6  # two rows of eight pixels on either side
    assert compared.dice == {1: pytest.approx(0.75)}
    assert session.compare(2, 2).dice == {1: 1.0}

    session.restore(1)
    np.testing.assert_array_equal(session.prediction, first)
    for old, new in zip(model, weights(session.segmenter), strict=True):
        np.testing.assert_array_equal(old, new)
    assert session.round == session.rounds[0]
    assert len(session.rounds) == 3
    list(session.train(QUICK, from_model=True))
    assert (session.rounds[3].number, session.rounds[3].parent) == (4, 1)
    with pytest.raises(SessionError, match="no round 9"):
        session.restore(9)
    with pytest.raises(SessionError, match="round 4 has no prediction"):
        session.compare(1, 4)


def test_everything_comes_back_after_closing(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    trained(session)
    list(session.validate(QUICK))
    session.edit_prediction(0, block())
    session.set_slice(5, block(), SliceState.SCRIBBLED)
    trained(session, seed=1)
    session.restore(1)
    session.accept(3)
    expected = {
        name: getattr(session, name).copy()
        for name in ("paint", "states", "prediction", "confidence", "predicted")
    }
    rounds, quality, model = session.rounds, session.quality, weights(session.segmenter)
    assert quality

    for way in ("as after a kill", "closed"):
        if way == "closed":
            session.close()
        else:
            assert session._place is not None
            session._place.release()  # the operating system would
        again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
        assert again is not None
        assert again.notes == ()
        for name, array in expected.items():
            np.testing.assert_array_equal(getattr(again, name), array, err_msg=f"{name} {way}")
        assert again.edited == {0}
        assert again.labels == (LIVER,)
        assert again.rounds == rounds
        assert again.round == rounds[0]
        assert again.quality == quality
        for old, new in zip(model, weights(again.segmenter), strict=True):
            np.testing.assert_array_equal(old, new)
        session = again
    again.close()


def test_damaged_rounds_never_cost_the_paint(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path)
    trained(session)
    folder = session.folder
    assert folder is not None
    session.close()
    for name in ("round-0001.safetensors", "round-0001.npz"):
        (folder / name).write_bytes(b"damaged")
    again = Session.recover(tiny_volume(), tmp_path, tiny_backbone())
    assert again is not None
    assert again.states.tolist() == [0, 2, 0, 0, 2, 0]
    assert again.segmenter is None
    assert any("model of round 1 is damaged" in note for note in again.notes)
    assert any("prediction of round 1 is damaged" in note for note in again.notes)
    trained(again, seed=1)
    assert again.rounds[-1].number == 2
    again.close()


def test_a_session_on_disk_names_nobody(tmp_path: Path) -> None:
    secret = "Doe^Jane"
    folder = tmp_path / secret
    folder.mkdir()
    volume = tiny_volume()
    write_volume(folder / "scan.nii.gz", volume)
    volume = Volume(volume.hu, volume.geometry, secret)
    session = Session(volume, [LIVER], tiny_backbone(), folder=tmp_path / "sessions")
    trained(session)
    list(session.validate(QUICK))
    session.save_model(tmp_path / "model.safetensors")
    session.export_report(tmp_path / "report.json")
    session.close()
    files = [path for path in (tmp_path / "sessions").rglob("*") if path.is_file()]
    assert len(files) >= 5
    for path in [*files, tmp_path / "model.safetensors", tmp_path / "report.json"]:
        data = path.read_bytes()
        for trace in (b"Doe", b"Jane", str(tmp_path).encode(), b"scan"):
            assert trace not in data, path
        assert "Doe" not in str(path.relative_to(tmp_path))


# Quality


def test_validation_never_trains_on_the_slice_it_judges(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    real = module.finetune

    def watched(volume: object, painted: object, *rest: object) -> Iterator[Progress]:
        seen.append(tuple(s.z for s in painted))  # type: ignore[attr-defined]
        return real(volume, painted, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("napari_diffseg.validation.finetune", watched)
    for z in (0, 2, 5):
        session.set_slice(z, block())
    steps = list(session.validate(QUICK))
    assert seen == [(2, 5), (0, 5), (0, 2)]
    assert steps[-1].stage == "validated"
    assert session.quality.keys() == {1}
    assert 0 <= session.quality[1] <= 1
    assert session.rounds == ()


def test_quality_is_that_of_the_slices_left_out(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = predicting(np.roll(block(1), 2, axis=0))
    monkeypatch.setattr("napari_diffseg.validation.predict", fake)
    session.set_slice(0, block())
    session.set_slice(3, block())
    list(session.validate(replace(QUICK, seed=5)))
    assert session.quality == {1: pytest.approx(0.75)}
    list(session.train(QUICK))
    assert session.rounds[0].quality == {}  # that was of other settings
    list(session.validate(QUICK))
    assert session.rounds[0].quality == session.quality
    list(session.train(QUICK))
    assert session.rounds[1].quality == session.quality  # nothing was painted in between


def test_the_folds_share_the_seconds(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[float | None] = []
    real = module.finetune

    def watched(*given: object) -> Iterator[Progress]:
        budgets.append(given[4].seconds)  # type: ignore[attr-defined]
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("napari_diffseg.validation.finetune", watched)
    for z in range(4):
        session.set_slice(z, block())
    list(session.validate(replace(QUICK, seconds=8.0)))
    assert budgets == [2.0] * 4


def test_quality_needs_two_slices(session: Session) -> None:
    session.set_slice(0, block())
    with pytest.raises(SessionError, match="needs two slices"):
        list(session.validate(QUICK))
    session.set_slice(1, block(2))
    with pytest.raises(SessionError, match="on one slice only"):
        list(session.validate(QUICK))
    session.set_slice(2, block(2))
    list(session.validate(QUICK))
    assert session.quality.keys() == {2}  # nothing can be said of the liver


def test_a_stopped_validation_changes_nothing(session: Session) -> None:
    session.set_slice(0, block())
    session.set_slice(1, block())
    steps = session.validate(QUICK)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert session.quality == {}


# Export


def test_paint_wins_over_the_prediction_in_the_exported_mask(
    session: Session, tmp_path: Path
) -> None:
    with pytest.raises(SessionError, match="nothing to export"):
        session.export_mask(tmp_path / "mask.nii.gz")
    trained(session)
    session.prediction[:] = 2
    scribble = np.zeros(SHAPE[1:], np.uint8)
    scribble[0, 0], scribble[5, 5] = 255, 1
    session.set_slice(2, scribble, SliceState.SCRIBBLED)
    session.edit_prediction(3, block(1))
    assert session.export_mask(tmp_path / "mask.nii.gz") == 0

    expected = np.full(SHAPE, 2, np.uint8)
    expected[1] = expected[3] = expected[4] = block(1)
    expected[2, 0, 0], expected[2, 5, 5] = 0, 1
    image = nib.load(tmp_path / "mask.nii.gz")
    geometry = session.volume.geometry
    np.testing.assert_array_equal(geometry.to_canonical(np.asarray(image.dataobj)), expected)
    np.testing.assert_allclose(image.affine, geometry.affine)


def test_slices_without_anything_are_counted_at_export(session: Session, tmp_path: Path) -> None:
    session.set_slice(1, block())
    assert session.export_mask(tmp_path / "mask.nii.gz") == 5
    with pytest.raises(SessionError, match="does not exist"):
        session.export_mask(tmp_path / "missing" / "mask.nii.gz")


def test_the_report_says_how_the_result_was_made(session: Session, tmp_path: Path) -> None:
    trained(session, seed=7)
    list(session.validate(replace(QUICK, seed=7)))
    session.export_report(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["seed"] == 7
    assert report["slices"] == [1, 4]
    assert report["slice_states"] == {"scribbled": [], "painted": [1, 4], "accepted": []}
    assert report["iterations"] == 2
    assert [step for step, _ in report["loss_curve"]] == [1, 2]
    assert report["device"] == "cpu"
    assert report["peak_memory_bytes"] > 10**7
    assert report["seconds"].keys() >= {"total", "predicting", "validating"}
    assert report["quality"].keys() == {"1"}
    assert report["version"]
    assert len(report["rounds"]) == 1


def test_a_saved_model_predicts_another_volume_without_paint(
    session: Session, tmp_path: Path
) -> None:
    with pytest.raises(SessionError, match="no model to save"):
        session.save_model(tmp_path / "model.safetensors")
    trained(session)
    session.rename_label(1, "Leber")
    session.save_model(tmp_path / "model.safetensors")

    other = Session(tiny_volume(seed=3), backbone=tiny_backbone(), folder=False)
    other.load_model(tmp_path / "model.safetensors")
    assert [label.name for label in other.labels] == ["Leber"]
    list(other.predict())
    assert (other.predicted == 1).all()
    assert other.rounds[0].settings is None
    other.set_slice(0, block())
    list(other.train(QUICK, from_model=True))
    assert other.rounds[1].parent == 1


def test_a_model_that_contradicts_the_labels_is_refused(session: Session, tmp_path: Path) -> None:
    trained(session)
    path = tmp_path / "model.safetensors"
    session.save_model(path)
    other = Session(tiny_volume(), [Label(1, "aorta", (1, 2, 3))], tiny_backbone(), folder=False)
    with pytest.raises(SessionError, match="label 1 is 'liver' in the model but 'aorta' here"):
        other.load_model(path)
    assert other.segmenter is None
    assert [label.name for label in other.labels] == ["aorta"]
    nameless = Session(tiny_volume(), [Label(1, "label 1", (1, 2, 3))], folder=False)
    nameless.load_model(path)
    assert nameless.labels == (LIVER,)


def test_suggestions_come_from_the_session(session: Session) -> None:
    (first,) = session.suggest()
    assert first.z in {2, 3}
    session.set_slice(0, block())
    assert session.suggest()[0].z > 2
    trained(session)
    found = session.suggest(3)
    assert len({s.z for s in found}) == 3
    assert 0 not in {s.z for s in found}
    assert all(s.reason.startswith(f"Slice {s.z}: ") for s in found)
