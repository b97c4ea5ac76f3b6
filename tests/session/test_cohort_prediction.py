"""Predicting a cohort: masks, table, resuming, workers that are killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker, util
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from session_tools import LIVER, SPLEEN, tiny_backbone, tiny_volume

from napari_diffseg.engine.adaptation import adapt
from napari_diffseg.engine.predict import predict
from napari_diffseg.engine.progress import result_of
from napari_diffseg.io import find_volumes, read_labels, read_volume, write_mask, write_volume
from napari_diffseg.network import Segmenter, SegmenterConfig
from napari_diffseg.session import CaseResult, predict_cohort
from napari_diffseg.session.cohort_table import LabelFigures, attention, ordered

MODEL = Path("model.safetensors")
MASKS = Path("masks")


def _model(seed: int) -> Segmenter:
    model = Segmenter.new(tiny_backbone(), [LIVER, SPLEEN], SegmenterConfig(columns=32))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # so that every class is predicted somewhere
        for parameter in model.head.parameters():
            parameter.normal_(generator=generator)
    return model


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three volumes and a model."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for seed, name in enumerate("abc"):
        write_volume(f"data/{name}_0000.nii.gz", tiny_volume(seed))
    _model(0).save(MODEL)


def _drain(steps: Generator[Any, None, tuple[CaseResult, ...]]) -> dict[str, CaseResult]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return {row.case: row for row in end.value}


def _predict(**how: Any) -> dict[str, CaseResult]:
    how = {"device": "cpu", "adapt": False} | how
    return _drain(predict_cohort(find_volumes(["data"]), MODEL, MASKS, **how))


def _statuses(**how: Any) -> list[str]:
    return [row.status for row in _predict(**how).values()]


def _table() -> list[dict[str, Any]]:
    return json.loads((MASKS / "predictions.json").read_text())["cases"]


def _names() -> set[str]:
    """What lies beside the masks, but for the label descriptions that each of them may have."""
    names = {path.name for path in MASKS.iterdir()}
    described = {name.replace(".nii.gz", ".labels.txt") for name in names if "nii" in name}
    return names - described


_WHOLE = {"a.nii.gz", "b.nii.gz", "c.nii.gz", "predictions.csv", "predictions.json"}


def test_masks_and_figures_are_those_of_predict():
    rows = _predict()
    assert _names() == _WHOLE
    for name, row in rows.items():
        volume = read_volume(f"data/{name}_0000.nii.gz")
        mask = read_labels(MASKS / row.mask).mask
        sure = np.zeros(mask.shape)
        for found in predict(Segmenter.load(MODEL), volume, device="cpu"):
            np.testing.assert_array_equal(mask[found.z], found.mask)
            sure[found.z] = found.confidence
        for label, figures in zip((LIVER, SPLEEN), row.labels, strict=True):
            where = mask == label.id
            assert figures.name == label.name
            assert figures.ml == pytest.approx(where.sum() * 2 * 2 * 5 / 1000)
            assert figures.confidence == pytest.approx(sure[where].mean(), abs=0.05)
    assert any(figures.ml for row in rows.values() for figures in row.labels)
    with (MASKS / "predictions.csv").open(newline="") as stream:
        table = {row["case"]: row for row in csv.DictReader(stream)}
    assert {"liver ml", "liver confidence %", "spleen ml", "seconds", "error"} <= set(table["a"])
    assert float(table["b"]["liver ml"]) == rows["b"].labels[0].ml
    # Nothing but file names says where the data lie.
    assert str(Path.cwd()) not in (MASKS / "predictions.json").read_text()


@pytest.mark.usefixtures("short_adaptation")
def test_the_model_adapts_to_each_volume_by_itself():
    plain = _predict()
    assert _statuses(adapt=True) == ["predicted"] * 3  # for these are other masks
    assert _statuses(adapt=True) == ["present"] * 3
    for name in plain:
        volume = read_volume(f"data/{name}_0000.nii.gz")
        mask = read_labels(MASKS / f"{name}.nii.gz").mask
        adapted = result_of(adapt(Segmenter.load(MODEL), volume, "cpu"))
        for found in predict(adapted, volume, device="cpu"):
            np.testing.assert_array_equal(mask[found.z], found.mask)
    assert all(row["adapted"] for row in _table())


def test_what_is_there_is_skipped():
    assert _statuses() == ["predicted"] * 3
    before = {path: path.stat().st_mtime_ns for path in MASKS.glob("*.nii.gz")}
    first = _table()
    assert _statuses() == ["present"] * 3
    assert {path: path.stat().st_mtime_ns for path in MASKS.glob("*.nii.gz")} == before
    assert [row["labels"] for row in _table()] == [row["labels"] for row in first]

    (MASKS / "b.nii.gz").unlink()
    assert _statuses() == ["present", "predicted", "present"]
    write_volume("data/c_0000.nii.gz", tiny_volume(9))
    assert _statuses() == ["present", "present", "predicted"]
    _model(1).save(MODEL)
    assert _statuses() == ["predicted"] * 3
    assert _statuses(overwrite=True) == ["predicted"] * 3
    assert _statuses(workers=2) == ["present"] * 3
    Path("data/d.nii.gz").write_bytes(Path("data/c_0000.nii.gz").read_bytes())
    assert _statuses() == [*["present"] * 3, "predicted"]


def test_changed_masks_are_left_alone():
    _predict()
    geometry = read_volume("data/a_0000.nii.gz").geometry
    corrected = np.ones(geometry.canonical_shape, np.uint8)
    write_mask(MASKS / "a.nii.gz", corrected, geometry, [LIVER])
    for _ in range(2):
        rows = _predict()
        assert [row.status for row in rows.values()] == ["failed", "present", "present"]
        assert "a.nii.gz: is there and was changed" in rows["a"].error
        assert (read_labels(MASKS / "a.nii.gz").mask == 1).all()
    assert _statuses(overwrite=True) == ["predicted"] * 3
    assert not (read_labels(MASKS / "a.nii.gz").mask == 1).all()


def test_one_bad_volume_does_not_stop_the_rest():
    Path("data/b_0000.nii.gz").write_text("not an image")
    rows = _predict()
    assert [row.status for row in rows.values()] == ["predicted", "failed", "predicted"]
    assert rows["b"].error
    assert "data/" not in rows["b"].error
    assert _names() == _WHOLE - {"b.nii.gz"}
    assert _table()[0]["case"] == "b"
    write_volume("data/b_0000.nii.gz", tiny_volume(3))
    assert _statuses() == ["present", "predicted", "present"]


def test_volume_that_becomes_unreadable_does_not_lock_its_mask():
    _predict()
    whole = Path("data/b_0000.nii.gz").read_bytes()
    Path("data/b_0000.nii.gz").write_text("not an image")
    assert _statuses() == ["present", "failed", "present"]
    Path("data/b_0000.nii.gz").write_bytes(whole)
    assert _statuses() == ["present", "predicted", "present"]


def test_a_stopped_run_goes_on_and_leaves_nothing_half_written():
    steps = predict_cohort(find_volumes(["data"]), MODEL, MASKS, device="cpu", adapt=False)
    for progress in steps:
        if progress.done == 1 and progress.result is None:
            break
    next(steps)
    steps.close()
    assert _names() == {"a.nii.gz", "predictions.csv", "predictions.json"}
    assert [row["status"] for row in _table()] == ["predicted", "not reached", "not reached"]
    assert _statuses() == ["present", "predicted", "predicted"]
    assert _names() == _WHOLE


def test_progress_ends_with_all_and_nothing_left():
    *_, last = predict_cohort(find_volumes(["data"]), MODEL, MASKS, device="cpu", adapt=False)
    assert (last.done, last.total, last.remaining) == (3, 3, 0)


def test_one_run_at_a_time_in_a_folder():
    steps = predict_cohort(find_volumes(["data"]), MODEL, MASKS, device="cpu", adapt=False)
    next(steps)
    with pytest.raises(ValueError, match="masks: another prediction writes there"):
        _predict()
    assert len(_drain(steps)) == 3


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.json"])
def test_tables_of_others_are_left_alone(name: str):
    MASKS.mkdir()
    (MASKS / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name}: is of another program"):
        _predict()
    assert _names() == {name}
    assert (MASKS / name).read_text() == "mine"


def test_formats():
    rows = _predict(ending=".seg.nrrd")
    assert [label.name for label in read_labels(MASKS / rows["a"].mask).labels] == [
        "liver",
        "spleen",
    ]
    assert _statuses(ending=".seg.nrrd") == ["present"] * 3
    rows = _predict(ending=".dcm")
    assert {row.status for row in rows.values()} == {"failed"}
    assert "DICOM" in rows["a"].error
    with pytest.raises(ValueError, match="no format of masks"):
        _predict(ending=".png")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_while_a_case_is_handed_out_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    handed = ProcessPoolExecutor.submit

    def submit(pool: ProcessPoolExecutor, function: Any, /, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return handed(pool, function, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ProcessPoolExecutor, "submit", submit)
        with pytest.raises(KeyboardInterrupt):
            _predict(workers=2)
    done = {row["mask"] for row in _table() if row["status"] == "predicted"}
    assert done == {path.name for path in MASKS.glob("*.nii.gz")}
    assert sorted(_statuses()) == sorted(["present"] * len(done) + ["predicted"] * (3 - len(done)))


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_that_another_thread_gets_leaves_no_process_behind(
    monkeypatch: pytest.MonkeyPatch,
):
    """It comes when a process has been started and is known to nobody yet."""
    spawn, started = util.spawnv_passfds, []

    def interrupt() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)

    def interrupted(*arguments: Any) -> int:
        started.append(spawn(*arguments))
        thread = threading.Thread(target=interrupt)
        thread.start()
        thread.join()
        return started[-1]

    resource_tracker.ensure_running()  # else it would be what is started
    with monkeypatch.context() as patched:
        patched.setattr(util, "spawnv_passfds", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _predict(workers=2)
    assert len(started) == 1
    assert started[0] not in {child.pid for child in psutil.Process().children()}
    done = {row["mask"] for row in _table() if row["status"] == "predicted"}
    assert done == {path.name for path in MASKS.glob("*.nii.gz")}


def test_a_killed_process_takes_no_case_with_it():
    volumes = find_volumes(["data"])
    steps = predict_cohort(volumes, MODEL, MASKS, device="cpu", workers=2, adapt=False)
    next(steps)
    victims = []
    for child in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            victims.append(child)
    assert len(victims) == 2
    victims[0].kill()
    assert [row.status for row in _drain(steps).values()] == ["predicted"] * 3
    assert _names() == _WHOLE


def test_a_killed_dask_worker_takes_no_case_with_it():
    distributed = pytest.importorskip("distributed")
    for seed in range(12):
        write_volume(f"data/more{seed}.nii.gz", tiny_volume(seed))
    volumes = find_volumes(["data"])
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
    ) as cluster:
        with distributed.Client(cluster) as client:
            pids = list(client.run(os.getpid).values())
        address = cluster.scheduler_address
        steps = predict_cohort(volumes, MODEL, MASKS, device="cpu", dask=address, adapt=False)
        for progress in steps:
            if progress.done:
                os.kill(pids[0], signal.SIGKILL)
                break
        rows = _drain(steps)
    assert len(rows) == 15
    assert {row.status for row in rows.values()} == {"predicted"}
    assert len(_names()) == 17


def test_dask_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("napari_diffseg.session.cohort_workers._DASK_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9: no Dask scheduler answers"):
        _predict(dask="tcp://127.0.0.1:9")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'the extra "training"'):
        _predict(dask="tcp://127.0.0.1:9")


# Which cases to look at first


def _row(case: str, *figures: tuple[float, float | None]) -> CaseResult:
    labels = tuple(
        LabelFigures(name, ml, sure)
        for name, (ml, sure) in zip(("liver", "spleen"), figures, strict=False)
    )
    return CaseResult(case, "", "", "predicted", labels)


def test_doubtful_cases_come_first():
    usual = [_row(f"usual{n}", (1500 + 40 * n, 92), (200 + 5 * n, 90)) for n in range(6)]
    rows = [
        *usual,
        _row("unsure", (1550, 92), (210, 40)),
        _row("no spleen", (1550, 92), (0, None)),
        _row("tiny liver", (90, 92), (210, 90)),
        _row("empty", (0, None), (0, None)),
        CaseResult("broken", "", "", "failed", error="is cut off"),
        CaseResult("later", "", "", "not reached"),
    ]
    found = ordered(rows)
    assert [row.case for row, _ in found[:2]] == ["broken", "empty"]
    assert {row.case for row, _ in found[2:5]} == {"unsure", "no spleen", "tiny liver"}
    assert found[-1][0].case == "later"
    why = {row.case: doubt.why for row, doubt in found}
    assert why["unsure"] == "spleen: confidence 40 %"
    assert why["no spleen"] == "spleen: not found, in 8 of 10 cases it was"
    assert why["tiny liver"].startswith("liver: 90 ml, median 15")
    assert all(doubt.score < 0.5 for row, doubt in found if row.case.startswith("usual"))


def test_label_that_no_case_has_is_no_reason_to_look():
    rows = [_row("a", (1500, 95), (0, None)), _row("b", (1500, 60), (0, None))]
    assert [doubt.why for doubt in attention(rows)] == [
        "liver: confidence 95 %",
        "liver: confidence 60 %",
    ]
