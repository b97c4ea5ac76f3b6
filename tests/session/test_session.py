from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from engine_tools import volume_of
from session_tools import (
    LIVER,
    QUICK,
    SHAPE,
    block,
    tiny_backbone,
    tiny_volume,
    trained,
    weights,
)

import napari_diffseg.session.trainer as module
from napari_diffseg.engine.annotations import TrainError
from napari_diffseg.engine.progress import Progress, SlicePrediction
from napari_diffseg.io.geometry import Geometry, VolumeError
from napari_diffseg.io.labels import Label
from napari_diffseg.io.volume import Volume, read_labels, read_volume, write_volume
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session import Session, SessionError, SliceState


def test_nothing_to_learn_from_is_said_before_training(session: Session) -> None:
    with pytest.raises(SessionError, match=r"Paint a structure on at least one slice, then Train"):
        session.trainer.train(QUICK)
    session.paint.set_state(0, SliceState.PAINTED)
    with pytest.raises(SessionError, match="Only background is painted"):
        session.trainer.train(QUICK)
    session.paint.clear_slice(0)
    session.paint.set_slice(0, block(), SliceState.SCRIBBLED)
    with pytest.raises(SessionError, match="No background is painted"):
        session.trainer.train(QUICK)
    with pytest.raises(SessionError, match="no model to continue from"):
        session.trainer.train(QUICK, from_model=True)
    with pytest.raises(SessionError, match="no model yet"):
        session.trainer.predict()


def test_one_label_on_one_slice_trains_and_the_other_label_is_named(session: Session) -> None:
    session.paint.set_slice(1, block())
    steps = list(session.trainer.train(QUICK))
    assert [step.note for step in steps if step.note] == ["No painted pixel yet: spleen."]
    assert steps[-1].segmenter is session.trainer.segmenter
    assert session.trainer.segmenter is not None
    assert session.trainer.segmenter.labels == (LIVER,)
    (made,) = session.rounds.all
    assert (made.number, made.slices, made.iterations, made.parent) == (1, (1,), 2, None)
    assert made.settings == QUICK
    assert len(made.losses) == 2
    assert made.seconds["total"] > 0


def test_prediction_fills_every_slice_and_leaves_the_paint_alone(session: Session) -> None:
    session.trainer.current = 4
    session.paint.set_slice(1, block())
    session.paint.set_slice(4, block())
    list(session.trainer.train(QUICK))
    paint = session.paint.mask.copy()
    order = [found.z for found in session.trainer.predict()]
    assert order[0] == 4
    assert sorted(order) == list(range(6))
    assert (session.prediction.round_of == 1).all()
    assert set(np.unique(session.prediction.mask)) <= {0, 1}
    assert session.prediction.confidence.max() <= 100
    np.testing.assert_array_equal(session.paint.mask, paint)
    assert [found.z for found in session.trainer.predict(start=0)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stopped_training_keeps_the_model(session: Session, steps: int) -> None:
    trained(session)
    before, prediction = weights(session.trainer.segmenter), session.prediction.mask.copy()
    training = session.trainer.train(replace(QUICK, iterations=50), from_model=True)
    for _ in range(steps):
        next(training)
    training.close()  # type: ignore[attr-defined]
    assert len(session.rounds.all) == 1
    for old, new in zip(before, weights(session.trainer.segmenter), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(session.prediction.mask, prediction)


def test_a_finished_training_keeps_what_it_has_learnt(session: Session) -> None:
    trained(session)
    before = weights(session.trainer.segmenter)
    endless = replace(QUICK, iterations=None, seconds=None)
    seen = []
    for progress in session.trainer.train(endless):
        seen.append(progress)
        if progress.stage == "learning" and progress.step == 3:
            session.trainer.finish()
    assert (seen[-2].stage, seen[-2].step) == ("learning", 3)
    made = session.rounds.all[1]
    assert session.trainer.round == made
    assert made.settings == endless
    assert made.iterations == sum(one.loss is not None for one in seen) > 2
    changed = zip(before, weights(session.trainer.segmenter), strict=True)
    assert any(not np.array_equal(old, new) for old, new in changed)
    # The wish is over with its training.
    list(session.trainer.train(QUICK))
    assert session.rounds.all[2].iterations == 2


def test_finishing_a_training_at_once_keeps_the_model(session: Session) -> None:
    trained(session)
    before = session.trainer.segmenter
    training = session.trainer.train(QUICK)
    session.trainer.finish()
    with pytest.raises(TrainError, match="nothing was learnt yet"):
        list(training)
    assert session.trainer.segmenter is before
    assert len(session.rounds.all) == 1


def test_a_failing_training_keeps_the_model(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(session)
    before = session.trainer.segmenter

    def fails(*_: object, **__: object) -> Iterator[Progress]:
        yield Progress("training", 1, None, 0.1, None, 0.5)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "finetune", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(session.trainer.train(QUICK))
    assert session.trainer.segmenter is before
    assert len(session.rounds.all) == 1


def test_training_works_on_the_paint_of_when_it_was_started(session: Session) -> None:
    session.paint.set_slice(1, block())
    training = session.trainer.train(QUICK)
    session.paint.set_slice(2, block(2))
    session.paint.clear_slice(1)
    list(training)
    assert session.rounds.all[0].slices == (1,)
    assert session.trainer.segmenter is not None
    assert session.trainer.segmenter.labels == (LIVER,)


def test_going_on_from_the_model_keeps_what_it_knows(session: Session) -> None:
    trained(session)
    session.paint.rename_label(1, "Leber")
    session.paint.set_slice(2, block(2))
    list(session.trainer.train(QUICK, from_model=True))
    assert session.rounds.all[1].parent == 1
    assert session.trainer.segmenter is not None
    assert [label.name for label in session.trainer.segmenter.labels] == ["Leber", "spleen"]
    list(session.trainer.train(QUICK))
    assert session.rounds.all[2].parent is None


def test_a_stopped_prediction_keeps_the_earlier_slices(session: Session) -> None:
    trained(session)
    list(session.trainer.train(replace(QUICK, seed=1)))
    prediction = session.trainer.predict(start=0)
    assert next(prediction).z == 0
    assert next(prediction).z == 1
    prediction.close()  # type: ignore[attr-defined]
    assert session.prediction.round_of.tolist() == [2, 2, 1, 1, 1, 1]


def test_paint_wins_over_the_prediction_in_the_exported_mask(
    session: Session, tmp_path: Path
) -> None:
    with pytest.raises(SessionError, match="nothing to export"):
        session.export_mask(tmp_path / "mask.nii.gz")
    trained(session)
    session.prediction.mask[:] = 2
    scribble = np.zeros(SHAPE[1:], np.uint8)
    scribble[0, 0], scribble[5, 5] = 255, 1
    session.paint.set_slice(2, scribble, SliceState.SCRIBBLED)
    session.prediction.edit(3, block(1))
    assert session.export_mask(tmp_path / "mask.nii.gz") == 0

    expected = np.full(SHAPE, 2, np.uint8)
    expected[1] = expected[3] = expected[4] = block(1)
    expected[2, 0, 0], expected[2, 5, 5] = 0, 1
    image = nib.load(tmp_path / "mask.nii.gz")
    geometry = session.volume.geometry
    np.testing.assert_array_equal(geometry.to_canonical(np.asarray(image.dataobj)), expected)
    np.testing.assert_allclose(image.affine, geometry.affine)


def test_slices_without_anything_are_counted_at_export(session: Session, tmp_path: Path) -> None:
    session.paint.set_slice(1, block())
    assert session.export_mask(tmp_path / "mask.nii.gz") == 5
    with pytest.raises(VolumeError, match="does not exist"):
        session.export_mask(tmp_path / "missing" / "mask.nii.gz")


def test_the_report_says_how_the_result_was_made(session: Session, tmp_path: Path) -> None:
    trained(session, seed=7)
    list(session.trainer.validate(replace(QUICK, seed=7)))
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
        session.trainer.save_model(tmp_path / "model.safetensors")
    trained(session)
    session.paint.rename_label(1, "Leber")
    session.trainer.save_model(tmp_path / "model.safetensors")

    other = Session(tiny_volume(seed=3), backbone=tiny_backbone(), folder=False)
    other.trainer.load_model(tmp_path / "model.safetensors")
    assert [label.name for label in other.paint.labels] == ["Leber"]
    list(other.trainer.predict())
    assert (other.prediction.round_of == 1).all()
    assert other.rounds.all[0].settings is None
    other.paint.set_slice(0, block())
    list(other.trainer.train(QUICK, from_model=True))
    assert other.rounds.all[1].parent == 1


def test_a_colour_travels_to_mask_model_and_the_next_session(tmp_path: Path) -> None:
    session = Session(tiny_volume(), [LIVER], tiny_backbone(), folder=tmp_path / "sessions")
    trained(session)
    session.paint.recolour_label(1, (12, 34, 56))
    with pytest.raises(SessionError, match="red, green and blue from 0 to 255"):
        session.paint.recolour_label(1, (12, 34, 256))
    with pytest.raises(SessionError, match="no label with id 9"):
        session.paint.recolour_label(9, (1, 2, 3))
    session.export_mask(tmp_path / "mask.seg.nrrd")
    session.trainer.save_model(tmp_path / "model.safetensors")
    session.close()
    again = Session.recover(tiny_volume(), tmp_path / "sessions", tiny_backbone())
    assert again is not None
    again.close()
    for labels in (
        read_labels(tmp_path / "mask.seg.nrrd").labels,
        Segmenter.load(tmp_path / "model.safetensors").labels,
        again.paint.labels,
    ):
        assert labels == (Label(1, "liver", (12, 34, 56)),)


def test_a_model_that_contradicts_the_labels_is_refused(session: Session, tmp_path: Path) -> None:
    trained(session)
    path = tmp_path / "model.safetensors"
    session.trainer.save_model(path)
    other = Session(tiny_volume(), [Label(1, "aorta", (1, 2, 3))], tiny_backbone(), folder=False)
    with pytest.raises(SessionError, match="label 1 is 'liver' in the model but 'aorta' here"):
        other.trainer.load_model(path)
    assert other.trainer.segmenter is None
    assert [label.name for label in other.paint.labels] == ["aorta"]
    nameless = Session(tiny_volume(), [Label(1, "label 1", (1, 2, 3))], folder=False)
    nameless.trainer.load_model(path)
    assert nameless.paint.labels == (LIVER,)


def test_suggestions_come_from_the_session(session: Session) -> None:
    (first,) = session.suggest()
    assert first.z in {2, 3}
    session.paint.set_slice(0, block())
    assert session.suggest()[0].z > 2
    trained(session)
    found = session.suggest(3)
    assert len({s.z for s in found}) == 3
    assert 0 not in {s.z for s in found}
    assert all(s.reason.startswith(f"Slice {s.z}: ") for s in found)


def test_a_gap_between_slices_that_show_nothing_waits(tmp_path: Path) -> None:
    """Of two gaps the wider one is suggested, unless painted slices say that nothing is there."""
    hu = np.concatenate([tiny_volume().hu] * 20)
    geometry = Geometry.from_affine(np.diag([1.0, 1.0, 3.0, 1.0]), hu.transpose().shape)
    for empty, low, high in ((False, 20, 80), (True, 90, 120)):
        session = Session(Volume(hu, geometry, "long"), [LIVER], tiny_backbone(), folder=False)
        for z in (20, 80):
            mask = np.zeros_like(block()) if empty else block()
            session.paint.set_slice(z, mask, SliceState.PAINTED)
        session.paint.set_slice(90, block())
        shown = np.zeros_like(hu, np.uint8)
        shown[81:] = block()
        for z, mask in enumerate(shown):
            sure = np.full(mask.shape, 98, np.uint8)
            session.prediction.put(SlicePrediction(z, mask, sure), 1)
        assert low < session.suggest()[0].z < high


@pytest.mark.parametrize("loaded", [True, False])
def test_a_model_of_other_patients_is_believed_where_structures_are(
    session: Session, tmp_path: Path, loaded: bool
) -> None:
    """What a few slices of this patient taught is not: it has seen too little."""
    path = tmp_path / "others.safetensors"
    trained(session)
    session.trainer.save_model(path)
    hu = np.concatenate([tiny_volume().hu] * 20)
    geometry = Geometry.from_affine(np.diag([1.0, 1.0, 3.0, 1.0]), hu.transpose().shape)
    with Session(Volume(hu, geometry, "long"), [], tiny_backbone(), folder=False) as other:
        other.trainer.load_model(path)
        if not loaded:
            other.paint.set_slice(60, block())
            other.paint.set_slice(119, block())
            list(other.trainer.train(QUICK))
            other.paint.clear_slice(60)
            other.paint.clear_slice(119)
        for z in range(len(hu)):
            shown = block() if 80 <= z < 110 else np.zeros_like(block())
            unsure = np.full(shown.shape, 30 if z < 40 else 98, np.uint8)
            other.prediction.put(SlicePrediction(z, shown, unsure), 1)
        found = other.suggest()[0]
        assert (80 <= found.z < 110) == loaded
        assert "nothing is painted yet, and most errors are expected near it" in found.reason


def test_a_plane_is_suggested_across_wide_gaps_alone(tmp_path: Path) -> None:
    hu = np.repeat(tiny_volume().hu, 8, axis=0)
    volume = volume_of(hu)  # slices of 5 mm
    with Session(volume, [LIVER], tiny_backbone(), folder=tmp_path) as session:
        for z in range(4):
            session.paint.set_slice(z, block())
        assert session.suggest_plane() is None  # nothing is predicted yet
        trained(session)
        # A structure in a few rows of every slice, and nobody knows it well.
        session.prediction.mask[:] = 0
        session.prediction.mask[:, 14:17] = 1
        session.prediction.confidence[:] = np.where(session.prediction.mask > 0, 60, 100)
        found = session.suggest_plane()
        assert found is not None
        assert found.axis == "coronal"
        assert 14 <= found.index < 17
        for z in range(0, len(hu), 4):
            session.paint.set_slice(z, block(), SliceState.PAINTED)
        assert session.suggest_plane() is None


def test_no_export_replaces_the_volume_itself(tmp_path: Path) -> None:
    ct = tmp_path / "ct.nii.gz"
    write_volume(ct, tiny_volume())
    before = ct.read_bytes()
    session = trained(Session(read_volume(ct), [LIVER], tiny_backbone(), folder=False))
    for export in (session.export_mask, session.export_report, session.trainer.save_model):
        with pytest.raises(VolumeError, match="also read"):
            export(ct)
    assert ct.read_bytes() == before
