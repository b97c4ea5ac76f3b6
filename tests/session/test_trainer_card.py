"""What a session writes on the card of its model."""

from __future__ import annotations

from pathlib import Path

from session_tools import QUICK, block, tiny_backbone, tiny_volume, trained

from napari_diffseg.network import ModelCard, Segmenter
from napari_diffseg.session import Session


def _saved(session: Session, path: Path, licence: str = "") -> ModelCard:
    session.trainer.save_model(path, licence)
    return Segmenter.load(path).card


def test_cases_and_slices_are_counted(session: Session, tmp_path: Path):
    trained(session)
    card = _saved(session, tmp_path / "a.safetensors", "CC-BY-4.0")
    assert (card.cases, card.slices, card.licence) == (1, 2, "CC-BY-4.0")
    assert card.validation == {}

    # Going on in the same volume: still one case, with one slice more.
    session.paint.set_slice(2, block())
    list(session.trainer.train(QUICK, from_model=True))
    card = _saved(session, tmp_path / "b.safetensors")
    assert (card.cases, card.slices, card.licence) == (1, 3, "CC-BY-4.0")

    other = Session(tiny_volume(1), [], tiny_backbone(), folder=False)
    other.trainer.load_model(tmp_path / "b.safetensors")
    assert _saved(other, tmp_path / "c.safetensors") == card
    other.paint.set_slice(1, block())
    for _ in range(2):
        list(other.trainer.train(QUICK, from_model=True))
        card = _saved(other, tmp_path / "d.safetensors")
        assert (card.cases, card.slices) == (2, 4)

    # From the backbone again, what the loaded model had seen is gone.
    list(other.trainer.train(QUICK))
    card = _saved(other, tmp_path / "e.safetensors")
    assert (card.cases, card.slices) == (1, 1)


def test_unknown_stays_unknown(session: Session, tmp_path: Path):
    trained(session)
    assert session.trainer.segmenter is not None
    session.trainer.segmenter.card = ModelCard()
    session.trainer.segmenter.save(tmp_path / "old.safetensors")
    session.trainer.load_model(tmp_path / "old.safetensors")
    list(session.trainer.train(QUICK, from_model=True))
    card = _saved(session, tmp_path / "new.safetensors")
    assert (card.cases, card.slices) == (0, 0)


def test_validation_is_kept_by_name(session: Session, tmp_path: Path):
    trained(session)
    list(session.trainer.validate(QUICK))
    card = _saved(session, tmp_path / "a.safetensors")
    assert set(card.validation) == {"liver"}
    assert card.validation["liver"] == session.trainer.quality[1]
    assert card.validation_kind == "leave-one-slice-out"
