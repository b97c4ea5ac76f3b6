"""Ways to spoil a file: byte by byte, and knowing what its format counts on."""

from __future__ import annotations

import gzip
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from functools import cache

Mutator = Callable[[bytes, random.Random], bytes]

_NUMBERS = (
    b"0", b"-1", b"1", b"65535", b"2147483647", b"2147483648", b"4294967296",
    b"9223372036854775807", b"99999999999999999999", b"1e308", b"-1e308", b"1e400", b"nan", b"inf",
    b"0.0", b"1,5", b"5000000000000", b"", b"x", b"\xff\xfe", b"1" * 5000,
)  # fmt: skip
_WORDS = (
    b"", b"/etc/passwd", b"../outside/secret.raw", b"../../../../etc/passwd", b"/dev/zero",
    b"/dev/stdin", b"LIST", b"LIST 9", b"LOCAL", b"ct.%04d.raw 1 999999999 1", b"\0", b"A" * 70000,
    b"gzip", b"bzip2", b"raw", b"hex", b"ascii", b"double", b"block", b"\xed\xa0\x80", b"[[[[[[",
    b"http://127.0.0.1:9/x", b"file:///etc/passwd", b"%s%s%n", b"\x1b[2J",
)  # fmt: skip
_JSON = (
    None, True, -1, 0, 1, 255, 256, 2**31, 2**63, 10**30, 1.5, float("nan"), float("inf"), "", "x",
    "../../outside/secret", "\x1b[2J", "\ud800", "9" * 5000, [], {}, [[]], [0], [10**9], {"x": 1},
    ["x"] * 3, list(range(5000)),
)  # fmt: skip
_FIELDS = {"<h": (0, -1, 1, 32767, -32768), "<i": (0, -1, 2**31 - 1, -(2**31), 348),
           "<q": (0, -1, 2**40, 2**63 - 1, -(2**63)),
           "<f": (0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-45)}  # fmt: skip


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change one to eight bits."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip_early(data: bytes, rng: random.Random) -> bytes:
    """Change bytes of the first 512, where headers are."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(min(len(out), 512))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off, mostly near one of the two ends."""
    near = rng.choice((16, 400, len(data)))
    cut = rng.randrange(min(near, len(data)))
    return data[: rng.choice((cut, len(data) - cut))]


def splice(data: bytes, rng: random.Random) -> bytes:
    """Put one part of the file over another."""
    a, b, n = rng.randrange(len(data)), rng.randrange(len(data)), rng.randint(1, 64)
    return data[:a] + data[b : b + n] + data[a + n :]


def swap(data: bytes, rng: random.Random) -> bytes:
    """Let two sections change places."""
    a, b, c = sorted(rng.randrange(len(data)) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Insert zeros, noise or a repetition."""
    at, n = rng.randrange(len(data)), rng.choice((1, 2, 7, 100, 5000))
    more = rng.choice((bytes(n), rng.randbytes(n), data[at : at + 50] * (n // 10 + 1)))
    return data[:at] + more + data[at:]


def erase(data: bytes, rng: random.Random) -> bytes:
    """Take a part out, or write zeros over it."""
    at, n = rng.randrange(len(data)), rng.choice((1, 2, 4, 50, 300))
    return data[:at] + rng.choice((b"", bytes(n))) + data[at + n :]


def extreme(data: bytes, rng: random.Random) -> bytes:
    """Write an extreme number of some type at some place of the first 2 kB."""
    form = rng.choice(list(_FIELDS))
    value = struct.pack(rng.choice("<>") + form[1], rng.choice(_FIELDS[form]))
    at = rng.randrange(min(len(data), 2048))
    return data[:at] + value + data[at + len(value) :]


BYTES: tuple[Mutator, ...] = (flip, flip_early, truncate, splice, swap, insert, erase, extreme)


def text_header(data: bytes, rng: random.Random) -> bytes:
    """Spoil one to three values of a text header (NRRD, MetaImage, TOML)."""
    end = min(len(data), 4000)
    for stop in (b"\n\n", b"ElementDataFile = LOCAL\n"):
        if stop in data[:20000]:
            end = data.index(stop) + (0 if stop == b"\n\n" else len(stop))
            break
    head, rest = data[:end], data[end:]
    for _ in range(rng.randint(1, 3)):
        lines = head.split(b"\n")
        n = rng.randrange(len(lines))
        found = re.match(rb"([^=:]*(?::=|=|:) ?)(.*)", lines[n], re.DOTALL)
        action = rng.randrange(5)
        if action == 0:
            lines[n] = b""
        elif action == 1:
            lines.insert(rng.randrange(len(lines)), lines[n])
        elif found and action == 2:
            lines[n] = found[1] + rng.choice(_WORDS)
        elif found:
            numbers = list(re.finditer(rb"-?\d[\d.e+-]*", found[2]))
            if numbers:
                one = rng.choice(numbers)
                value = found[2][: one.start()] + rng.choice(_NUMBERS) + found[2][one.end() :]
                lines[n] = found[1] + value
            else:
                lines[n] = found[1] + rng.choice(_NUMBERS)
        head = b"\n".join(lines)
    return head + rest


def _spoil(value: object, rng: random.Random, depth: int = 0) -> object:
    """Replace one value somewhere in JSON values; or drop or rename a key."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        action = rng.random()
        rest = {k: v for k, v in value.items() if k != key}
        if action < 0.1:
            return rest
        if action < 0.15:
            return rest | {"unheard of": value[key]}
        return value | {key: _spoil(value[key], rng, depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        n = rng.randrange(len(value))
        return [*value[:n], _spoil(value[n], rng, depth + 1), *value[n + 1 :]]
    return rng.choice(_JSON)


def json_text(data: bytes, rng: random.Random) -> bytes:
    """Spoil a value of a JSON file, or nest it beyond any stack."""
    if rng.random() < 0.05:
        return b'{"a":' * 200_000
    return json.dumps(_spoil(json.loads(data), rng)).encode(errors="surrogatepass")


def dicom_text(data: bytes, rng: random.Random) -> bytes:
    """Put others in the place of numbers that DICOM holds as text, of the same length."""
    found = list(re.finditer(rb"-?\d+\.\d{2,}", data))
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        one = rng.choice(found)
        word = rng.choice((*_NUMBERS, b"1e38", b"9e99", b"-9e99", b"\\\\", b"5"))
        length = one.end() - one.start()
        out[one.start() : one.end()] = word[:length].ljust(length)
    return bytes(out)


def table(data: bytes, rng: random.Random) -> bytes:
    """Spoil a cell of a text table, or drop, repeat or lengthen a line."""
    lines = data.split(b"\n")
    n = rng.randrange(len(lines))
    action = rng.random()
    if action < 0.2:
        lines[n : n + 1] = rng.choice(([], [lines[n]] * 2, [lines[n] + b",x" * 5000]))
    else:
        cells = lines[n].split(b",")
        cells[rng.randrange(len(cells))] = rng.choice((*_WORDS, *_NUMBERS, b'"', b'"' * 3))
        lines[n] = b",".join(cells)
    return b"\n".join(lines)


def safetensors_header(data: bytes, rng: random.Random) -> bytes:
    """Spoil the header of safetensors, or the JSON texts in its metadata; or claim a huge one."""
    (size,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    action = rng.random()
    if action < 0.1:
        claim = rng.choice((0, 1, size - 1, size + 1, 2**27, 2**31, 2**40, 2**63, 2**64 - 1))
        return struct.pack("<Q", claim) + data[8:]
    if action < 0.7:
        texts = header["__metadata__"]
        key = rng.choice(list(texts))
        texts[key] = json.dumps(_spoil(json.loads(texts[key]), rng))
    else:
        name = rng.choice([k for k in header if k != "__metadata__"])
        header[name] = _spoil(header[name], rng)
    text = json.dumps(header).encode(errors="replace")
    return struct.pack("<Q", len(text)) + text + rest


def nifti_fields(data: bytes, rng: random.Random) -> bytes:
    """Spoil fields of a NIfTI-1 header: sizes, types, offsets, scales, matrices."""
    out = bytearray(data)
    fields = [(0, "<i"), (108, "<f"), (112, "<f"), (116, "<f"), (123, "<h"), (70, "<h"), (72, "<h")]
    fields += [(40 + 2 * n, "<h") for n in range(8)] + [(76 + 4 * n, "<f") for n in range(8)]
    fields += [(252, "<h"), (254, "<h")] + [(256 + 4 * n, "<f") for n in range(18)]
    for _ in range(rng.randint(1, 4)):
        at, form = rng.choice(fields)
        struct.pack_into(form, out, at, rng.choice(_FIELDS[form]))
    return bytes(out)


def journal_records(data: bytes, rng: random.Random) -> bytes:
    """Spoil the content of records whose checksums are right again; or a compressed bomb."""
    marker, out, at = b"\xd1DSJ", b"", 0
    records = []
    while (at := data.find(marker, at)) >= 0:
        length, _ = struct.unpack_from("<II", data, at + 4)
        records.append(data[at + 12 : at + 12 + length])
        at += 12 + length
    spoilt = rng.randrange(len(records))
    if rng.random() < 0.2:
        rng.shuffle(records)
    for n, payload in enumerate(records):
        (size,) = struct.unpack_from("<I", payload)
        header, body = json.loads(payload[4 : 4 + size]), payload[4 + size :]
        if n == spoilt:
            if rng.random() < 0.15:
                body = zeros(15)
            elif rng.random() < 0.1:
                body = flip(body, rng) if body else b"x"
            else:
                header = _spoil(header, rng)
        text = json.dumps(header).encode(errors="surrogatepass")
        payload = struct.pack("<I", len(text) if rng.random() < 0.97 else 2**31) + text + body
        out += marker + struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    return out


@cache
def zeros(wbits: int) -> bytes:
    """3 GB of zeros as 3 MB of zlib or gzip data."""
    deflate = zlib.compressobj(1, zlib.DEFLATED, wbits)
    block = bytes(1 << 24)
    return b"".join(deflate.compress(block) for _ in range(192)) + deflate.flush()


def bomb(header: bytes) -> bytes:
    """Gzip data of some bytes and 3 GB of zeros."""
    return (gzip.compress(header) if header else b"") + zeros(31)


def packed(mutate: Mutator) -> Mutator:
    """Spoil what is in a gzip file, so that its checksum is right."""

    def inside(data: bytes, rng: random.Random) -> bytes:
        return gzip.compress(mutate(gzip.decompress(data), rng), 1)

    return inside


PICKLE = (
    b"cbuiltins\nexec\n(S'import pathlib, os; "
    b'pathlib.Path(os.environ["FAULTS_CANARY"], "executed").touch()\'\ntR.'
)
"""Creates a file when it is unpickled."""
