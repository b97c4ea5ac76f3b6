"""From folders of volumes to the store of slices."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from pretrain_tools import SOURCES, write_ct, write_stored

from diffseg_training.prepare import prepare
from diffseg_training.settings import PrepareSettings, PretrainError, Source
from diffseg_training.store import SliceStore

SETTINGS = PrepareSettings(grid=20, validation=0.0, held_out=("patient1",))


def run(inputs: list[Path], folder: Path, settings: PrepareSettings = SETTINGS) -> SliceStore:
    for _ in prepare(inputs, folder, settings, SOURCES):
        pass
    return SliceStore(folder)


def test_store_holds_every_slice_in_canonical_order(tmp_path: Path) -> None:
    first = write_ct(tmp_path / "ct" / "patient0.nii.gz", 0)
    second = write_ct(tmp_path / "ct" / "patient1.nii.gz", 1, slices=2)
    store = run([tmp_path / "ct"], tmp_path / "store")
    # The file's axes run left, posterior, superior: canonical (z, y, x) is its transpose.
    np.testing.assert_array_equal(np.stack(list(store.slices("train"))), first.T)
    np.testing.assert_array_equal(np.stack(list(store.slices("validation"))), second.T)
    voxels = np.concatenate([first.ravel(), second.ravel()])
    assert store.statistics["voxels"] == voxels.size
    assert store.statistics["p99.5"] == pytest.approx(np.percentile(voxels, 99.5))
    entry = store.manifest["volumes"][0]
    content = (tmp_path / "ct" / "patient0.nii.gz").read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert (entry["patient"], entry["collection"], entry["licence"]) == ("patient0", "Test", "CC0")
    assert str(tmp_path) not in json.dumps(store.manifest)


def test_broken_duplicate_and_excluded_volumes_are_named_and_counted(tmp_path: Path) -> None:
    for patient in range(3):
        write_ct(tmp_path / "ct" / f"patient{patient}.nii.gz", patient)
    (tmp_path / "ct" / "broken.nii.gz").write_bytes(b"not a volume")
    copy = (tmp_path / "ct" / "patient0.nii.gz").read_bytes()
    (tmp_path / "ct" / "patient7.nii.gz").write_bytes(copy)
    settings = PrepareSettings(
        grid=20, validation=0.0, held_out=("patient1",), excluded=("patient2",)
    )
    done = list(prepare([tmp_path / "ct"], tmp_path / "store", settings, SOURCES))
    reasons = {item.name: item.reason for item in done if item.reason}
    assert set(reasons) == {"broken.nii.gz", "patient7.nii.gz"}
    assert "same bytes as patient0.nii.gz" in reasons["patient7.nii.gz"]
    manifest = SliceStore(tmp_path / "store").manifest
    assert {v["name"] for v in manifest["volumes"]} == {"patient0.nii.gz", "patient1.nii.gz"}
    assert {s["name"]: s["reason"] for s in manifest["skipped"]}["patient2.nii.gz"] == (
        "excluded patient"
    )
    assert len(manifest["skipped"]) == 3


def test_second_run_prepares_only_what_is_new(tmp_path: Path) -> None:
    for patient in range(2):
        write_ct(tmp_path / "ct" / f"patient{patient}.nii.gz", patient)
    run([tmp_path / "ct"], tmp_path / "store")
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "store" / "volumes").glob("*.npy")}
    # A run that was killed leaves a volume's slices without their record: done again.
    victim = next((tmp_path / "store" / "volumes").glob("*.json"))
    victim.unlink()
    write_ct(tmp_path / "ct" / "patient5.nii.gz", 5)
    store = run([tmp_path / "ct"], tmp_path / "store")
    again = {p for p, time in written.items() if p.stat().st_mtime_ns != time}
    assert {p.name.split(".")[0] for p in again} == {victim.stem}
    assert len(store.manifest["volumes"]) == 3
    # Another grid is another store's content: everything is made again.
    assert run([tmp_path / "ct"], tmp_path / "store", PrepareSettings(grid=10)).grid == 10


def test_worker_processes_and_dask_give_the_same_store(cohort: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    settings = PrepareSettings(grid=12, seed=3, validation=0.2)
    manifests = []
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        for name, extra in (
            ("one", {}),
            ("two", {"workers": 2}),
            ("dask", {"dask": cluster.scheduler_address}),
        ):
            chosen = PrepareSettings(**{**vars(settings), **extra})
            manifest = run([cohort], tmp_path / name, chosen).manifest
            manifests.append({k: v for k, v in manifest.items() if k != "settings"})
    assert manifests[0] == manifests[1] == manifests[2]


@pytest.mark.parametrize(("spacing", "slices"), [("native", 6), ("2.5,2,2", 12), ("median", 6)])
def test_target_spacing_sets_the_number_of_slices(
    tmp_path: Path, spacing: str, slices: int
) -> None:
    hu = write_ct(tmp_path / "ct" / "patient0.nii.gz", 0)
    write_ct(tmp_path / "ct" / "patient1.nii.gz", 1)
    settings = PrepareSettings(grid=20, spacing=spacing, validation=0.0, held_out=("patient1",))
    stored = np.stack(list(run([tmp_path / "ct"], tmp_path / "store", settings).slices("train")))
    assert len(stored) == slices
    if slices == 12:  # between the first two slices, a quarter of the way
        expected = 0.75 * hu.T[0].astype(float) + 0.25 * hu.T[1]
        np.testing.assert_allclose(stored[1], expected, atol=0.51)


def test_split_is_by_patient_and_near_duplicates_are_reported(tmp_path: Path) -> None:
    base = write_ct(tmp_path / "ct" / "patient0-a.nii.gz", 0)
    write_ct(tmp_path / "ct" / "patient0-b.nii.gz", 9)
    write_ct(tmp_path / "ct" / "patient2.nii.gz", 2)
    noisy = base + np.random.default_rng(0).integers(-5, 6, base.shape).astype(np.int16)
    write_stored(tmp_path / "ct" / "patient1.nii.gz", noisy)
    store = run([tmp_path / "ct"], tmp_path / "store")
    split = {v["patient"]: set() for v in store.manifest["volumes"]}
    for volume in store.manifest["volumes"]:
        split[volume["patient"]].add(volume["split"])
    assert split == {"patient0": {"train"}, "patient1": {"validation"}, "patient2": {"train"}}
    assert store.manifest["duplicates"] == [
        {
            "first": "patient0-a.nii.gz",
            "second": "patient1.nii.gz",
            "slices": 6,
            "across_split": True,
        }
    ]


def test_what_cannot_work_is_said(tmp_path: Path) -> None:
    with pytest.raises(PretrainError, match="no such file"):
        run([tmp_path / "missing"], tmp_path / "store")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PretrainError, match="no NIfTI"):
        run([tmp_path / "empty"], tmp_path / "store")
    write_ct(tmp_path / "ct" / "patient1.nii.gz", 0)
    with pytest.raises(PretrainError, match="every patient"):
        run([tmp_path / "ct"], tmp_path / "store")
    with pytest.raises(PretrainError, match="no patient patient9"):
        run([tmp_path / "ct"], tmp_path / "store", PrepareSettings(grid=20, held_out=("patient9",)))
    with pytest.raises(PretrainError, match="millimetres"):
        run([tmp_path / "ct"], tmp_path / "store", PrepareSettings(spacing="fine"))
    with pytest.raises(PretrainError, match="run napari-diffseg-pretrain prepare"):
        SliceStore(tmp_path / "nowhere")


def test_dicom_series_are_found_in_folders() -> None:
    from diffseg_training.sources import checksum, find_volumes, identify, spacing

    data = Path(__file__).parents[3] / "shared" / "data" / "dicom"
    if not data.is_dir():
        pytest.skip("the shared data are not beside the checkout")
    (found,) = find_volumes([data])
    assert found.series is not None
    assert found.name == "totalseg-example#0"
    assert len(checksum(found)) == 64
    assert spacing(found)[1] == pytest.approx(spacing(found)[2])
    assert identify("x/totalseg-example#0", (Source("x/(?P<patient>[a-z]+)"),))[0] == "totalseg"
