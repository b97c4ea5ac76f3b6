"""``model show``."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from cli_tools import Case, check_error

from napari_diffseg.cli import main


def test_show_prints_the_card(trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]):
    path = trained[0] / "model.safetensors"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert main(["model", "show", str(path)]) == 0
    out = capsys.readouterr().out
    for line in (
        rf"SHA-256 +{sha256}",
        r"made by +napari-diffseg \S+",
        r"learnt from +1 case, 2 painted slices",
        r"licence +CC-BY-4\.0",
        r"intensity +-1000 to 1000 HU",
        r"backbone +[0-9a-f]{64}",
        r"validation +leave-one-slice-out",
        r"liver +1 +[01]\.\d{3}",
        r"lung +2 +[01]\.\d{3}",
    ):
        assert re.search(f"^{line}$", out, re.MULTILINE), (line, out)

    assert main(["model", "show", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sha256"] == sha256
    assert [one["name"] for one in found["labels"]] == ["liver", "lung"]
    assert found["card"]["cases"] == 1
    assert found["card"]["slices"] == 2
    assert set(found["card"]["validation"]) == {"liver", "lung"}
    # Nothing that could name a patient: no path, no volume's name.
    assert str(trained[0]) not in json.dumps(found)
    assert "ct" not in found["card"].values()


def test_show_refuses_what_is_no_model(
    case: Case, trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
):
    whole = (trained[0] / "model.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(whole[:-9])
    for path in (case.tiny, case.ct, "cut.safetensors", "gone.safetensors"):
        check_error(capsys, main(["model", "show", path]), path)


def test_licence_needs_a_model_to_stand_in(case: Case):
    words = ["segment", case.ct, "--labels", case.labels, "-o", "m.nii.gz", "--licence", "MIT"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
