"""The window's pictures and log lines hold nothing of the DICOM headers."""

import logging

from privacy_tools import FOLDER, contents, name_the_patient, secrets_in
from synthetic import line, save_series

from napari_diffseg.io.volume import read_volume


def test_no_screenshot_and_no_log_names_the_patient(window, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    save_series(tmp_path / FOLDER, line(6), rows=32, columns=32, change=name_the_patient)
    layer = window.open(read_volume(tmp_path / FOLDER))
    window.viewer.screenshot(str(tmp_path / "shot.png"), canvas_only=False, flash=False)
    assert secrets_in(contents(tmp_path / "shot.png")) == set()
    assert secrets_in(caplog.text.encode()) == set()
    shown = [window.viewer.title, layer.name, window.sentence, window.panel.volume.facts.text()]
    assert secrets_in(" ".join(shown).encode()) == set()
    home = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    for path in home:
        assert secrets_in(contents(path)) == set(), path.name
