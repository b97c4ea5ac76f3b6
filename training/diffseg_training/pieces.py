"""A checkpoint in pieces of limited size, for a way that takes small files only.

The pieces are a stream of the checkpoint's tensors, the averaged network first, then the weights,
then the optimiser: whoever has only the first pieces has the network. Each piece begins with a line
of JSON that describes the whole, followed by its part of the stream, whose bytes are compressed
by place within a number. Joined, they are the checkpoint again, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffseg_training import checkpoint
from diffseg_training.settings import PretrainError
from napari_diffseg.io.files import atomic_write, make_folder
from napari_diffseg.network.backbone import save_backbone

SUFFIX = ".piece"
_AVERAGE = "ema.module."
_ORDER = ("ema.", "model.", "adam.")
_MEGABYTE = 1 << 20
_WIDTH = 4  # bytes of a float32
_HEADROOM = 4096  # bytes of a header beside the list of tensors
_BLOCK = 256 << 10  # bytes that are compressed together


def split(path: Path, out: Path, megabytes: float = 16.0) -> list[Path]:
    """Write the pieces of a checkpoint.

    Parameters
    ----------
    path
        The checkpoint, or another file of tensors.
    out
        Folder for ``NAME-01.piece`` and so on; pieces of that name that are there are replaced.
    megabytes
        Largest size of a piece, in MiB.

    Raises
    ------
    PretrainError
        If the file is damaged, or the size is below 2 MiB.
    """
    if megabytes < 2:
        raise PretrainError(f"megabytes {megabytes:g}: a piece needs at least 2 MiB")
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PretrainError(f"{path}: not a readable file of tensors ({error})") from error
    names = sorted(tensors, key=lambda name: (_rank(name), name))
    whole = b"".join(_bytes(tensors[name]) for name in names)
    about = {
        "metadata": metadata,
        "tensors": [
            [name, str(tensors[name].dtype).removeprefix("torch."), list(tensors[name].shape)]
            for name in names
        ],
        "bytes": len(whole),
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    blocks = [_packed(whole[at : at + _BLOCK]) for at in range(0, len(whole), _BLOCK)]
    room = int(megabytes * _MEGABYTE) - len(json.dumps(about)) - _HEADROOM
    pieces: list[list[bytes]] = [[]]
    for block in blocks:
        if sum(map(len, pieces[-1])) + len(block) > room:
            pieces.append([])
        pieces[-1].append(block)
    make_folder(out)
    for old in out.glob(f"{path.stem}-*{SUFFIX}"):
        old.unlink()
    files = []
    for number, own in enumerate(pieces, start=1):
        head = {**about, "piece": number, "pieces": len(pieces), "blocks": [len(b) for b in own]}
        files.append(out / f"{path.stem}-{number:02d}{SUFFIX}")
        with atomic_write(files[-1]) as part:
            part.write_bytes(json.dumps(head).encode() + b"\n" + b"".join(own))
    return files


def join(pieces: Sequence[Path], out: Path, averaged: bool = False) -> None:
    """Put pieces together again.

    Parameters
    ----------
    pieces
        The files, in any order.
    out
        The checkpoint to write.
    averaged
        Write the averaged network alone, as ``train`` keeps the best one; the first pieces are
        enough for it.

    Raises
    ------
    PretrainError
        If a piece is missing, damaged or of another checkpoint.
    """
    read = sorted((_read(path) for path in pieces), key=lambda one: one[0]["piece"])
    if not read:
        raise PretrainError("no pieces are given")
    about = read[0][0]
    numbers = [head["piece"] for head, _ in read]
    if any(head["sha256"] != about["sha256"] for head, _ in read):
        raise PretrainError("the pieces are of different checkpoints: give those of one")
    missing = sorted(set(range(1, about["pieces"] + 1)) - set(numbers))
    if len(numbers) != len(set(numbers)):
        raise PretrainError("a piece is given twice: give each once")
    if missing and not averaged:
        raise PretrainError(
            f"pieces {', '.join(map(str, missing))} of {about['pieces']} are missing; with "
            "--averaged the first are enough for the averaged network"
        )
    # What follows a gap is of no use: where it belongs in the stream is not known.
    whole = b"".join(data for place, (_, data) in enumerate(read, 1) if numbers[place - 1] == place)
    if not missing and hashlib.sha256(whole).hexdigest() != about["sha256"]:
        raise PretrainError("the pieces do not make what was split: copy them again")
    tensors = dict(_tensors(about["tensors"], whole))
    if not averaged:
        _write(out, tensors, about["metadata"])
        return
    needed = [name for name, _, _ in about["tensors"] if name.startswith(_AVERAGE)]
    if not needed or any(name not in tensors for name in needed):
        raise PretrainError(f"piece {min(missing, default=1)} is needed for the averaged network")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / checkpoint.NAME
        _write(path, {name: tensors[name] for name in needed}, about["metadata"])
        backbone, header = checkpoint.averaged_backbone(path)
    card = {"training": header.to_json()}
    save_backbone(out, replace(backbone, card=card), torch.float32)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with atomic_write(path) as part:
        save_file(tensors, part, metadata=metadata)


def _rank(name: str) -> int:
    return next((n for n, prefix in enumerate(_ORDER) if name.startswith(prefix)), len(_ORDER))


def _bytes(tensor: Tensor) -> bytes:
    raw: NDArray[np.uint8] = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return raw.tobytes()


def _tensors(table: Sequence[Sequence[Any]], whole: bytes) -> Iterator[tuple[str, Tensor]]:
    """Tensors that lie wholly in the stream so far."""
    at = 0
    for name, dtype, shape in table:
        kind: torch.dtype = getattr(torch, dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if at + size > len(whole):
            return
        raw = torch.frombuffer(bytearray(whole[at : at + size]), dtype=torch.uint8)
        yield name, raw.view(kind).view(shape)
        at += size


def _packed(block: bytes) -> bytes:
    """Bytes by place: exponents are alike and compress, the ends of mantissas do not."""
    full = len(block) - len(block) % _WIDTH
    places = np.frombuffer(block[:full], np.uint8).reshape(-1, _WIDTH).T
    return zlib.compress(places.tobytes() + block[full:], 1)


def _unpacked(content: bytes) -> bytes:
    block = zlib.decompress(content)
    full = len(block) - len(block) % _WIDTH
    places = np.frombuffer(block[:full], np.uint8).reshape(_WIDTH, -1).T
    return places.tobytes() + block[full:]


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header of a piece, and its part of the stream."""
    try:
        line, _, content = path.read_bytes().partition(b"\n")
        head: dict[str, Any] = json.loads(line)
        ends = np.cumsum(head["blocks"])
        if ends[-1] != len(content):
            raise ValueError("cut off")
        blocks = [content[end - size : end] for size, end in zip(head["blocks"], ends, strict=True)]
        return head, b"".join(map(_unpacked, blocks))
    except (OSError, ValueError, LookupError, TypeError, zlib.error) as error:
        raise PretrainError(f"{path}: not a readable piece ({error}); copy it again") from error
