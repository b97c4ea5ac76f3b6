"""Some of what ``benchmarks/faults_files.py`` does thousands of times, and what it found."""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from napari_diffseg.cli import main
from napari_diffseg.io import VolumeError, check_outputs, load_names, read_labels, read_volume
from napari_diffseg.io.errors import UserError
from napari_diffseg.network.backbone import BackboneError, list_backbones, load_backbone
from napari_diffseg.network.segmenter import Segmenter, SegmenterError
from napari_diffseg.session import Session
from napari_diffseg.session.housekeeping import make_room
from napari_diffseg.session.journal import Record, decode, encode

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import fault_plants
import fault_seeds

FORMATS = {kind.name: kind for kind in fault_seeds.FORMATS}
QUIET = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "good"
    folder.mkdir()
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside" / "secret.raw").write_bytes(b"secret!!" * 500)
    fault_seeds.make(folder)
    return folder


def attempt(door, path):
    """Whether it was read; anything but a plain line fails the test."""
    refusal = ""
    try:
        door(path)
    except UserError as error:
        refusal = str(error)
    assert refusal.isprintable()
    return not refusal


@pytest.mark.parametrize("name", [name for name in FORMATS if "session" not in name])
def test_spoilt_files_are_read_or_refused(good, tmp_path, monkeypatch, name):
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path / "home"))
    kind = FORMATS[name]
    for path, _ in fault_seeds.spoilt(kind, good, tmp_path, 8, random.Random(name)):
        for door in kind.doors:
            attempt(door, path)


@pytest.mark.parametrize("name", FORMATS)
def test_traps(good, tmp_path, monkeypatch, name):
    outside = good.parent / "outside"
    monkeypatch.setenv("NAPARI_DIFFSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FAULTS_CANARY", str(outside))
    kind = FORMATS[name]
    for path, how, refuse in fault_plants.traps(kind, good, outside, tmp_path, heavy=False):
        for door in kind.doors:
            read = attempt(door, path)
            assert not (read and refuse and door.__name__ != "_beside"), how
        assert [file.name for file in outside.iterdir()] == ["secret.raw"], how
        assert (outside / "secret.raw").read_bytes() == b"secret!!" * 500, how


@given(data=st.data())
@QUIET
def test_a_journal_of_any_records_is_read(good, tmp_path, data):
    """Records with right checksums and any content: never an error, and never a lost stroke."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    )
    operations = st.sampled_from(
        ["labels", "slice", "round", "restore", "predicted", "edit", "accepted", "x"]
    )
    keys = ("z", "state", "labels", "retired", "number", "slices", "round")
    record = st.fixed_dictionaries({"op": operations}, optional=dict.fromkeys(keys, values))
    (journal,) = (good / "sessions").glob("*/*/journal")
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    place = root / journal.parent.relative_to(good / "sessions")
    place.mkdir(parents=True)
    strange = []
    for header in data.draw(st.lists(record, max_size=4)):
        mask = data.draw(st.sampled_from([None, np.zeros((2, 2), np.uint8)]))
        strange.append(encode(Record(header, mask)))
    kept = list(decode(journal.read_bytes()))
    stroke = next(encode(r) for r in kept if r.header["op"] == "slice" and r.header["z"] == 1)
    labels = next(encode(r) for r in kept if r.header["op"] == "labels")
    (place / "journal").write_bytes(b"".join([*strange, labels, stroke]))
    session = Session.recover(fault_seeds.volume(), root)
    assert session is not None
    with session:
        assert (session.paint.mask[1] == fault_seeds.painted()[1]).all()


@given(text=st.text() | st.dictionaries(st.text(), st.integers() | st.text()).map(json.dumps))
@QUIET
def test_names_of_any_text(tmp_path, text):
    (tmp_path / "names.json").write_text(text, encoding="utf-8")
    attempt(load_names, tmp_path / "names.json")


def test_a_record_that_inflates_without_end_is_skipped():
    payload = (
        struct.pack("<I", 28) + b'{"op":"slice","shape":[2,2]}' + zlib.compress(bytes(1 << 26))
    )
    data = b"\xd1DSJ" + struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    assert list(decode(data)) == []
    assert len(list(decode(data + encode(Record({"op": "restore"}))))) == 1


def test_the_command_line_shows_no_traceback(good, tmp_path, capsys):
    """A header with an escape sequence, a data file elsewhere, a claim of terabytes."""
    cases = []
    for trap in ("data_file", "sizes"):
        for name in ("nhdr", "nrrd"):
            home = tmp_path / f"{trap}-{name}"
            home.mkdir()
            cases += [
                path
                for path, how, _ in fault_plants.traps(
                    FORMATS[name], good, good.parent / "outside", home, heavy=False
                )
                if how.startswith(trap)
            ]
    assert len(cases) >= 4
    spoilt = tmp_path / "ct.nrrd"
    data = (good / "ct.nrrd").read_bytes()
    spoilt.write_bytes(data.replace(b"left-posterior-superior", b"\x1b[2J"))
    for path in (*cases, spoilt):
        assert main(["evaluate", str(path), str(path)]) == 1
        out, err = capsys.readouterr()
        assert not out
        assert err.count("\n") == 1
        assert "\x1b" not in err
        assert "Traceback" not in err


# Weights


def model_of(good, tmp_path, change):
    """A model or backbone whose tensors or JSON were changed."""
    source = good / "model.safetensors"
    size = struct.unpack("<Q", source.read_bytes()[:8])[0]
    metadata = json.loads(source.read_bytes()[8 : 8 + size])["__metadata__"]
    header = json.loads(metadata["napari-diffseg-segmenter"])
    tensors = load_file(source)
    change(tensors, header)
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path, metadata={"napari-diffseg-segmenter": json.dumps(header)})
    return path


def other_architecture(tensors, header):
    header["unet"]["widths"] = [8, 32]


def other_labels(tensors, header):
    header["labels"].append({"id": 9, "name": "aorta", "colour": [1, 2, 3]})


def huge(tensors, header):
    header["unet"]["widths"] = [4096] * 10
    header["unet"]["image_size"] = 512


def without_one(tensors, header):
    del tensors["unet.stem.bias"]


def infinite(tensors, header):
    tensors["unet.stem.bias"][0] = torch.inf


def of_another_type(tensors, header):
    header["config"]["timestep"] = "100"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_architecture, "weights are of another network, such as"),
        (other_labels, "weights are of another network, such as head"),
        (huge, "weights are of another network"),
        (without_one, r"1 weights are of another network, such as unet\.stem\.bias"),
        (infinite, r"not finite, such as unet\.stem\.bias"),
        (of_another_type, "timestep = '100': must be of type int"),
    ],
)
def test_a_model_that_is_not_what_it_says_is_refused_with_the_reason(
    good, tmp_path, change, reason
):
    with pytest.raises(SegmenterError, match=reason) as caught:
        Segmenter.load(model_of(good, tmp_path, change))
    assert "changed.safetensors" in str(caught.value)


def test_a_changed_byte_in_registered_weights_is_refused(good, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", str(tmp_path))
    for name in ("tiny.safetensors", "registry.toml"):
        (tmp_path / name).write_bytes((good / "backbones" / name).read_bytes())
    assert load_backbone("tiny").schedule == "cosine"
    data = bytearray((tmp_path / "tiny.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "tiny.safetensors").write_bytes(data)
    with pytest.raises(BackboneError, match="SHA-256 differs"):
        load_backbone("tiny")


@pytest.mark.parametrize("claim", [0, 2**27, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_any_length_is_refused(good, tmp_path, claim):
    data = (good / "model.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", claim) + data[8:])
    with pytest.raises(SegmenterError, match="not a readable safetensors file"):
        Segmenter.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/x.safetensors", "a\\x.safetensors", "x" * 300]
)
def test_a_registry_names_only_files_of_its_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv("NAPARI_DIFFSEG_BACKBONES", str(tmp_path))
    (tmp_path / "registry.toml").write_text(f"[x]\nfile = '{name}'\nsha256 = ''\n")
    with pytest.raises(BackboneError, match="is no file of its folder"):
        list_backbones()


# Sessions


def test_links_in_a_sessions_folder_lead_nowhere(good, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("kept.txt", "round-0001.safetensors"):
        (outside / name).write_text("precious")
    ct = fault_seeds.volume()
    with Session(ct, folder=tmp_path / "sessions") as session:
        session.paint.set_slice(1, fault_seeds.painted()[1])
        place = session.folder
    for name in ("owner", "lock"):
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(outside / "kept.txt")
    again = Session.recover(ct, tmp_path / "sessions")
    assert again is not None
    again.close()
    assert (outside / "kept.txt").read_text() == "precious"


def test_making_room_follows_no_links(good, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_diffseg.session.housekeeping.MAX_BYTES", 0)
    outside = tmp_path / "outside"
    (outside / "0001").mkdir(parents=True)
    for name in ("journal", "round-0001.safetensors"):
        (outside / "0001" / name).write_text("precious")
    root = tmp_path / "sessions"
    (root / "a" / "0001").mkdir(parents=True)
    (root / "a" / "0001" / "journal").touch()
    (root / "a" / "0001" / ".x.part").symlink_to(outside / "0001")
    (root / "b").symlink_to(outside)
    make_room(root, root / "c")
    assert (outside / "0001" / "round-0001.safetensors").read_text() == "precious"


def test_a_link_to_data_beside_the_header_is_followed(good, tmp_path):
    """As in archives that keep large files elsewhere."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "0a1b").write_bytes((good / "nhdr" / "ct.raw.gz").read_bytes())
    (tmp_path / "ct.nhdr").write_bytes((good / "nhdr" / "ct.nhdr").read_bytes())
    (tmp_path / "ct.raw.gz").symlink_to(tmp_path / "kept" / "0a1b")
    assert (read_volume(tmp_path / "ct.nhdr").hu == fault_seeds.volume().hu).all()


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "x\0y"])
def test_a_name_that_no_file_can_have_is_no_input(tmp_path, name):
    (tmp_path / "ct.nhdr").write_text(f"NRRD0005\ndata file: {name}\n\n")
    check_outputs([tmp_path / "b.nii.gz"], [tmp_path / "ct.nhdr"])
    with pytest.raises(VolumeError, match=r"ct\.nhdr"):
        read_volume(tmp_path / "ct.nhdr")


def test_links_in_a_circle_are_no_outputs(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to("a.nii.gz")
    with pytest.raises(VolumeError, match="not a regular file"):
        check_outputs([tmp_path / "a.nii.gz"])
    check_outputs([tmp_path / "b.nii.gz"], [tmp_path / "a.nii.gz"])


def test_more_than_the_memory_is_refused_before_it_is_read(good, tmp_path):
    path = tmp_path / "ct.nii"
    data = bytearray((good / "ct.nii").read_bytes())
    struct.pack_into("<8h", data, 40, 3, 32767, 32767, 2000, 1, 1, 1, 1)
    path.write_bytes(data)
    with pytest.raises(VolumeError, match=r"claims 4\.29 TB of voxels"):
        read_volume(path)
    os.truncate(path, 5 * 10**12)
    with pytest.raises(VolumeError, match=r"needs .* TB of memory"):
        read_labels(path)


def test_a_dicom_file_of_endless_elements_is_refused(good, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_diffseg.io.dicom_file._MOST_READS", 10_000)
    data = (good / "series" / "0.dcm").read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00")  # the pixels
    (tmp_path / "0.dcm").write_bytes(data[:start] + bytes(8) * 20_000)
    with pytest.raises(VolumeError, match="more elements than any CT"):
        read_volume(tmp_path)


def test_a_deflated_dicom_file_does_not_inflate_without_end(good, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_diffseg.io.voxels._SUSPICIOUS_BYTES", 1 << 24)
    data = (good / "series-deflated" / "0.dcm").read_bytes()
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(bytes(1 << 25)) + deflate.flush()
    (tmp_path / "0.dcm").write_bytes(data[:start] + body)
    with pytest.raises(VolumeError, match="would grow from"):
        read_volume(tmp_path)


def test_an_unknown_transfer_syntax_is_refused(good, tmp_path):
    for n in range(3):
        data = (good / "series" / f"{n}.dcm").read_bytes()
        (tmp_path / f"{n}.dcm").write_bytes(
            data.replace(b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.7")
        )
    with pytest.raises(VolumeError, match="cannot be read"):
        read_volume(tmp_path)
