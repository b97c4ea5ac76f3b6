"""Traps set on purpose: bombs, claims, pipes, links, names that lead elsewhere, pickles."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault_mutators import PICKLE, bomb
from fault_seeds import SHAPE, Format

Trap = Callable[[Path, Path], bool]
"""Spoils a file, given the folder outside; says whether opening it must be refused."""


class _Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        code = "import os, pathlib; pathlib.Path(os.environ['FAULTS_CANARY'], 'executed').touch()"
        return exec, (code,)


def _objects() -> bytes:
    """A ``.npy`` file of _objects, which runs code when it is unpickled."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([_Runs()], object), allow_pickle=True)
    return buffer.getvalue()


def _pickled(path: Path, outside: Path) -> bool:
    path.write_bytes(pickle.dumps(_Runs()))
    return True


def _old_pickle(path: Path, outside: Path) -> bool:
    path.write_bytes(PICKLE)
    return True


def _torch_archive(path: Path, outside: Path) -> bool:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Runs()))
        archive.writestr("archive/version", "3")
    return True


def _npz_of_objects(path: Path, outside: Path) -> bool:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("slices", "mask", "confidence", "up", "down"):
            archive.writestr(f"{name}.npy", _objects())
    return False


def _npz_bomb(path: Path, outside: Path) -> bool:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("slices.npy", "w") as stream:
            np.lib.format.write_array(stream, np.arange(SHAPE[0]))
        for name in ("mask", "up"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": (3 << 30,)}
                np.lib.format.write_array_header_1_0(stream, header)
                for _ in range(24):
                    stream.write(bytes(1 << 27))
    return False


def _empty(path: Path, outside: Path) -> bool:
    path.write_bytes(b"")
    return False


def _pipe(path: Path, outside: Path) -> bool:
    path.unlink()
    os.mkfifo(path)
    return False


def _folder(path: Path, outside: Path) -> bool:
    path.unlink()
    path.mkdir()
    return False


def _endless(path: Path, outside: Path) -> bool:
    path.unlink()
    path.symlink_to("/dev/zero")
    return False


def _circle(path: Path, outside: Path) -> bool:
    path.unlink()
    path.symlink_to(path.name)
    return False


def _sparse(path: Path, outside: Path) -> bool:
    """Five terabytes that take no room on the disk."""
    with path.open("rb+") as stream:
        stream.truncate(5 * 10**12)
    return False


def _link_outside(path: Path, outside: Path) -> bool:
    path.unlink()
    path.symlink_to(outside / "secret.raw")
    return False


def _nifti(shape: tuple[int, ...], data: bytes) -> bytes:
    header = bytearray(data[:352])
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    return bytes(header)


def _nifti_claim(path: Path, outside: Path) -> bool:
    data = path.read_bytes()
    packed = data[:2] == b"\x1f\x8b"
    data = _nifti((32767, 32767, 2500), gzip.decompress(data) if packed else data)
    path.write_bytes(gzip.compress(data) if packed else data)
    return True


def _nifti_bomb(path: Path, outside: Path) -> bool:
    path.write_bytes(bomb(_nifti((2048, 1024, 700), gzip.decompress(path.read_bytes()))))
    return True


def _nifti_bomb_behind(path: Path, outside: Path) -> bool:
    path.write_bytes(bomb(gzip.decompress(path.read_bytes())))
    return True


def _text(**values: str) -> Trap:
    def trap(path: Path, outside: Path) -> bool:
        lines = []
        head, stop, rest = path.read_bytes().partition(b"\n\n")
        for line in head.split(b"\n"):
            key = line.split(b":")[0].split(b"=")[0].strip().decode(errors="replace")
            if key.replace(" ", "_") in values:
                sign = ": " if b":" in line.split(b"=")[0] else " = "
                line = f"{key}{sign}{values[key.replace(' ', '_')]}".encode()
            lines.append(line.replace(b"OUTSIDE", str(outside).encode()))
        path.write_bytes(b"\n".join(lines) + stop + rest)
        return True

    trap.__name__ = f"{next(iter(values))} = {next(iter(values.values()))}"
    return trap


def _nrrd_bomb(path: Path, outside: Path) -> bool:
    head = path.read_bytes().partition(b"\n\n")[0]
    sizes = b"sizes: " + b" ".join(str(n).encode() for n in SHAPE[::-1])
    assert sizes in head
    path.write_bytes(head.replace(sizes, b"sizes: 2048 1024 768") + b"\n\n" + bomb(b""))
    return True


def _nrrd_bomb_behind(path: Path, outside: Path) -> bool:
    head = path.read_bytes().partition(b"\n\n")[0]
    path.write_bytes(head + b"\n\n" + bomb(b""))
    return True


def _deflated_bomb(path: Path, outside: Path) -> bool:
    data = path.read_bytes()
    start = 144 + struct.unpack_from("<I", data, 140)[0]
    path.write_bytes(data[:start] + bomb(b"")[10:])
    return False


def _many_elements(path: Path, outside: Path) -> bool:
    """A DICOM file of empty elements."""
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\xe0\x7f\x10\x00")] + bytes(8) * (1 << 25))
    return False


def _owner_link(path: Path, outside: Path) -> bool:
    for name in ("owner", "lock"):
        (path.parent / name).unlink(missing_ok=True)
        (path.parent / name).symlink_to(outside / "secret.raw")
    return False


def _session_links(path: Path, outside: Path) -> bool:
    for file in list(path.parent.iterdir()):
        if file.name != path.name:
            file.unlink()
            file.symlink_to(outside / "secret.raw")
    return False


def _registry_outside(path: Path, outside: Path) -> bool:
    shutil.copy(path.parent / "tiny.safetensors", path.parents[1] / "other.safetensors")
    path.write_text('[other]\nfile = "../other.safetensors"\nsha256 = ""\n')
    return True


def _registry_absolute(path: Path, outside: Path) -> bool:
    path.write_text(f'[tiny]\nfile = "{path.parent / "tiny.safetensors"}"\nsha256 = ""\n')
    return True


def _nested(path: Path, outside: Path) -> bool:
    path.write_bytes(b"[" * 1_000_000)
    return False


def _escape_sequences(path: Path, outside: Path) -> bool:
    path.write_text(json.dumps({"\x1b[2Jliver": 1}))
    return True


_ANY = (_empty, _pipe, _folder, _endless, _circle, _sparse, _pickled, _old_pickle, _link_outside)
_ELSEWHERE = ("../../outside/secret.raw", "/etc/passwd", "OUTSIDE/secret.raw", "/dev/zero", ".")
_NRRD = tuple(_text(data_file=name) for name in _ELSEWHERE)
_MHD = tuple(_text(ElementDataFile=name, CompressedData="False", DimSize="10 10 10")
             for name in (*_ELSEWHERE, "../../outside/secret%d.raw 1 999999999 1"))  # fmt: skip
_OWN: dict[str, tuple[Trap, ...]] = {
    "nifti": (_nifti_claim,),
    "nifti-gz": (_nifti_claim, _nifti_bomb, _nifti_bomb_behind),
    "nrrd": (_nrrd_bomb, _nrrd_bomb_behind, _text(sizes="99999 99999 500")),
    "seg-nrrd": (_nrrd_bomb, _nrrd_bomb_behind, _text(sizes="99999 99999 500")),
    "nhdr": _NRRD,
    "mha": (_text(DimSize="99999 99999 500"),),
    "mhd": _MHD,
    "dicom": (_many_elements,),
    "dicom-deflated": (_deflated_bomb,),
    "model": (_torch_archive,),
    "backbone": (_torch_archive,),
    "registry": (_registry_outside, _registry_absolute, _nested),
    "names": (_nested, _escape_sequences),
    "configuration": (_nested,),
    "session-journal": (_owner_link, _session_links),
    "session-files": (_torch_archive, _npz_of_objects, _npz_bomb),
    "session-rounds": (_nested,),
}
_HEAVY = (
    _nifti_bomb, _nifti_bomb_behind, _nrrd_bomb, _nrrd_bomb_behind, _npz_bomb, _deflated_bomb,
    _many_elements,
)  # fmt: skip


def traps(
    kind: Format, good: Path, outside: Path, home: Path, heavy: bool = True
) -> list[tuple[Path, str, bool]]:
    """Set all traps for a kind, each in a folder of its own below ``home``.

    ``heavy`` ones take seconds to make, or to refuse.

    Returns
    -------
    What is to be opened, the trap's name, and whether it must be refused.
    """
    source = good / kind.place
    found = []
    for n, trap in enumerate((*_ANY, *_OWN.get(kind.name, ()))):
        if trap in _HEAVY and not heavy:
            continue
        place = home / f"trap-{n}"
        if source.is_dir() or kind.targets:
            whole = source if source.is_dir() else source.parent
            shutil.copytree(whole, place)
            target = sorted(file for p in kind.targets[:1] for file in place.glob(p))[0]
            opened = place if source.is_dir() else place / source.name
        else:
            place.mkdir()
            target = opened = place / source.name
            shutil.copy(source, target)
        refused = trap(target, outside)
        several = source.is_dir() and kind.name != "registry"
        found.append((opened, trap.__name__.strip("_"), refused and not several))
    return found
