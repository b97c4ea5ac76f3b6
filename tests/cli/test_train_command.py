"""``napari-diffseg train``, and what is done with its model."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from cli_tools import check_error, run
from engine_tools import DISC, SPOT, disc_volume, tiny_backbone

from napari_diffseg.cli import main
from napari_diffseg.network.backbone import save_backbone
from napari_diffseg.network.segmenter import Segmenter
from napari_diffseg.session import Session

AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
FEW = ("--iterations", "60", "--grid", "32", "--device", "cpu")


def save(path, array):
    # (z, y, x) from the inferior end, rows to posterior, columns to the patient's left.
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), AFFINE), path)


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path / "home"))
    rows = ["volume,labels"]
    for name, drift in (("one", 0.5), ("two", -0.5), ("new", 0.2)):
        volume, truth = disc_volume(drift=drift)
        save(tmp_path / f"{name}.nii.gz", volume.hu)
        save(tmp_path / f"{name}-labels.nii.gz", truth)
        if name != "new":
            rows.append(f"{name}.nii.gz,{name}-labels.nii.gz")
    Path("cases.csv").write_text("\n".join(rows), encoding="utf-8")
    Path("names.json").write_text('{"disc": 3, "spot": 7}', encoding="utf-8")
    save_backbone(tmp_path / "tiny.safetensors", tiny_backbone())
    return tmp_path


def test_a_model_of_two_patients_predicts_a_third(cohort):
    words = ("cases.csv", "-o", "m.safetensors", "--names", "names.json", *FEW)
    more = ("--backbone", "tiny.safetensors", "--validate", "--report", "r.json")
    code, out, err = run("train", *words, *more, "--licence", "CC BY 4.0")
    assert code == 0, err
    assert "2 labels from 16 slices of 2 patients" in out
    assert "leave-one-patient-out" in out
    card = Segmenter.load("m.safetensors").card
    assert (card.cases, card.slices, card.licence) == (2, 16, "CC BY 4.0")
    assert set(card.validation) == {"disc", "spot"}
    assert card.single_pieces == ("disc", "spot")
    report = Path("r.json").read_text(encoding="utf-8")
    assert json.loads(report)["leave_one_patient_out_dice"] == pytest.approx(card.validation)
    assert "nii" not in report  # no file's name
    assert main(["predict", "new.nii.gz", "--model", "m.safetensors", "-o", "masks"]) == 0
    mask = np.asarray(nib.load("masks/new.nii.gz").dataobj)
    truth = np.asarray(nib.load("new-labels.nii.gz").dataobj)
    overlap = ((mask == 3) & (truth == 3)).sum()
    assert 2 * overlap / ((mask == 3).sum() + (truth == 3).sum()) > 0.7


def test_sessions_are_learnt_from_without_their_volumes(cohort, capsys):
    for drift in (0.5, -0.5):
        volume, truth = disc_volume(drift=drift)
        with Session(volume, [DISC, SPOT], tiny_backbone(), cohort / "sessions") as session:
            for z in (1, 3, 5, 7):
                session.paint.set_slice(z, truth[z])
            session.trainer.keep_slices()
    words = ["-o", "m.safetensors", "--backbone", "tiny.safetensors", *FEW]
    assert main(["train", "sessions", *words]) == 0
    assert "2 labels from 8 slices of 2 patients" in capsys.readouterr().out
    assert Segmenter.load("m.safetensors").card.slices == 8
    for kept in Path("sessions").glob("*/*/slices.npz"):
        kept.unlink()
    assert main(["train", "sessions", *words]) == 1
    check_error(capsys, 1, "sessions: no session stores slices")


def test_further_patients_without_labels(cohort, capsys):
    Path("more").mkdir()
    Path("new.nii.gz").rename("more/new.nii.gz")
    Path("more/broken.nii.gz").write_bytes(b"nothing")
    words = ["train", "cases.csv", "-o", "m.safetensors", "--backbone", "tiny.safetensors", *FEW]
    assert main([*words, "--unlabelled", "more"]) == 0
    said = capsys.readouterr().err
    assert "left out: more/broken.nii.gz" in said
    assert "pseudo-labelling" in said
    assert Segmenter.load("m.safetensors").card.cases == 2


def test_what_cannot_be_done_is_said_in_one_line(cohort, capsys):
    words = ["train", "cases.csv", "--backbone", "tiny.safetensors", *FEW]
    assert main(["train", "none.csv", "-o", "m.safetensors"]) == 1
    check_error(capsys, 1, "none.csv", "cannot be read")
    assert main([*words, "-o", "one.nii.gz"]) == 1
    check_error(capsys, 1, "one.nii.gz")
    assert main([*words, "-o", "m.safetensors", "--unlabelled", "none"]) == 1
    check_error(capsys, 1, "none: is no folder")
    assert main([*words, "-o", "m.safetensors", "--recipe", "paper"]) == 1
    check_error(capsys, 1, "app's recipe")
    assert not Path("m.safetensors").exists()
