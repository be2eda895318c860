#!/usr/bin/env python3
"""Verifies an audit log in the format of docs/formats/audit.md, version 1.

It needs Python 3.9 and its standard library, and is written from that document
alone. It needs no secret: logs are checked with public keys, and personal
details against openings that whoever holds the keys has exported.

    audit.py --key KEY [--pin FILE]... LOG
    audit.py --key KEY --receipt FILE
    audit.py --many < lines with a JSON array of such arguments each

It prints one JSON object. The exit code is 0 when the log is Pinned or Anchored
and every receipt holds, 1 for any other finding, and 2 when the check could not
be done. No personal value is ever printed.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import functools
import hashlib
import hmac
import json
import os
import re
import struct
import sys
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Iterator, NoReturn, Optional, Sequence

# Limits of the format, and of what is read into memory at once.
MAX_EVENT = 65_535
MAX_FRAME = 2 << 20
MAX_BATCH = 64 << 20
MAX_DIGEST = 64
MAX_NOTE = 1 << 20
MAX_SIGNATURES = 100
MAX_KEYS_FILE = 1 << 20
MAX_OPENING_LINE = 1 << 20

EVENT_FRAME, CHECKPOINT_FRAME, PRUNED_FRAME = 1, 2, 3
DELETE = 4  # the activity

GOOD = ("Pinned", "Anchored")


class CannotCheck(Exception):
    """The check cannot be done; this says nothing about the log."""


class Malformed(Exception):
    """Bytes are not what the format says."""


class Damaged(Exception):
    """The stored bytes cannot be taken apart into batches."""


class Torn(Exception):
    """The log ends inside a batch."""


class Fault(Exception):
    """What is wrong with a log, and at which event."""

    def __init__(self, state: str, at: Optional[int], reason: str) -> None:
        super().__init__(reason)
        self.state, self.at, self.reason = state, at, reason


# ---------------------------------------------------------------- checksums


def _crc_table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_CRC = _crc_table()


@functools.lru_cache(maxsize=None)
def _crc_pairs() -> list[int]:
    """The table for two bytes at once."""
    once = (_CRC[n & 255] ^ n >> 8 for n in range(1 << 16))
    return [_CRC[n & 255] ^ n >> 8 for n in once]


def crc32c(*parts: bytes) -> int:
    """CRC-32C (Castagnoli) of the parts one after the other."""
    table, pairs = _CRC, _crc_pairs()
    crc = 0xFFFFFFFF
    for part in parts:
        for pair in struct.unpack_from("<%dH" % (len(part) // 2), part):
            crc = pairs[(crc ^ pair) & 0xFFFF] ^ crc >> 16
        if len(part) % 2:
            crc = table[(crc ^ part[-1]) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def sha256(*parts: bytes) -> bytes:
    """SHA-256 of the parts one after the other."""
    return hashlib.sha256(b"".join(parts)).digest()


# ------------------------------------------------------- Ed25519 (RFC 8032)

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]  # extended coordinates X, Y, Z, T
NEUTRAL: Point = (0, 1, 1, 0)


def _add(p: Point, q: Point) -> Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _decode(b: bytes) -> Optional[Point]:
    """The point of 32 bytes, section 5.1.3."""
    y = int.from_bytes(b, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * SQRT_M1 % P
        if v * x * x % P != u:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def _encode(p: Point) -> bytes:
    z = pow(p[2], P - 2, P)
    x, y = p[0] * z % P, p[1] * z % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


Table = list[list[Point]]  # row i holds the multiples 0 to 15 of 16^i * point


def _table(p: Point) -> Table:
    rows = []
    for _ in range(64):
        row = [NEUTRAL]
        for _ in range(15):
            row.append(_add(row[-1], p))
        rows.append(row)
        p = _add(row[-1], p)
    return rows


@functools.lru_cache(maxsize=None)
def _base_table() -> Table:
    base = _decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    assert base is not None
    return _table(base)


@functools.lru_cache(maxsize=64)
def _key_table(public: bytes) -> Optional[Table]:
    """The table of the negative of a public key, None when it is not a point."""
    a = _decode(public)
    return None if a is None else _table((P - a[0], a[1], a[2], P - a[3]))


@functools.lru_cache(maxsize=4096)
def _equation(public: bytes, r: bytes, s: int, k: int) -> bool:
    """Whether R = [S]B - [k]A."""
    table = _key_table(public)
    if table is None:
        return False
    sum_, base = NEUTRAL, _base_table()
    for i in range(64):
        sum_ = _add(sum_, base[i][s >> 4 * i & 15])
        sum_ = _add(sum_, table[i][k >> 4 * i & 15])
    return _encode(sum_) == r


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether signature is one of message by the key, section 5.1.7."""
    if len(public) != 32 or len(signature) != 64:
        return False
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
    return _equation(public, r, s, k)


# ------------------------------------------------------------ texts and keys

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,18}")
_TIME = re.compile(rb"0|-?[1-9][0-9]{0,18}")
# The white space of Unicode: no name has any.
_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def loose_base64(b: bytes) -> bytes:
    """Decodes base64 whose spare bits are not looked at, as in signature lines."""
    if not _BASE64.fullmatch(b):
        raise Malformed("base64")
    return base64.b64decode(b)


def strict_base64(b: bytes) -> bytes:
    """Decodes base64 in its one spelling."""
    raw = loose_base64(b)
    if base64.b64encode(raw) != b:
        raise Malformed("base64")
    return raw


def read_hash(b: bytes) -> bytes:
    """Decodes a base64 hash."""
    raw = strict_base64(b)
    if len(raw) != 32:
        raise Malformed("hash")
    return raw


def read_decimal(b: bytes, at_least: int = 0) -> int:
    """Reads a decimal of at most 63 bits in its one spelling."""
    if not _DECIMAL.fullmatch(b) or not at_least <= int(b) < 1 << 63:
        raise Malformed("decimal")
    return int(b)


def valid_name(name: bytes) -> bool:
    """Whether a signature line may have this name."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return False
    return text != "" and "+" not in text and not _SPACE.search(text)


@dataclass(frozen=True)
class Key:
    """A verifier key of a log, or of a witness."""

    name: bytes
    hash: bytes  # 4 bytes
    public: bytes  # 32 bytes


def parse_key(text: str, algorithm: int) -> Key:
    """Reads "name+hash+base64(algorithm || public key)"."""
    what = "a verifier key" if algorithm == 1 else "the key of a witness"
    try:
        name, hash_, data = text.strip().encode().split(b"+", 2)
        raw = loose_base64(data)
        if not valid_name(name) or not re.fullmatch(rb"[0-9A-Fa-f]{8}", hash_):
            raise Malformed("key")
        digest = sha256(name, b"\n", raw)[:4]
        if len(raw) != 33 or raw[0] != algorithm or bytes.fromhex(hash_.decode()) != digest:
            raise Malformed("key")
        return Key(name, digest, raw[1:])
    except (Malformed, ValueError):  # UnicodeError is a ValueError
        raise CannotCheck(what + " is malformed") from None


# --------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, section 5, whose signatures were not looked at."""

    origin: bytes
    size: int
    root: bytes
    id: bytes
    chain: bytes
    time: int  # milliseconds
    note: bytes


def parse_checkpoint(note: bytes) -> Checkpoint:
    """Reads a checkpoint. Lines behind the sixth are passed over."""
    end = note.find(b"\n\n")
    if len(note) > MAX_NOTE or end < 0:
        raise Malformed("checkpoint")
    lines = note[:end].split(b"\n", 6)
    if len(lines) < 6 or not lines[0]:
        raise Malformed("checkpoint")
    origin, size, root, id_, chain, time = lines[:6]
    if not re.fullmatch(rb"id [0-9a-f]{32}", id_) or not chain.startswith(b"chain ") or not time.startswith(b"time "):
        raise Malformed("checkpoint")
    if not _TIME.fullmatch(time[5:]) or not -(1 << 63) <= int(time[5:]) < 1 << 63:
        raise Malformed("checkpoint")
    return Checkpoint(
        origin, read_decimal(size, 1), read_hash(root), bytes.fromhex(id_[3:].decode()),
        read_hash(chain[6:]), int(time[5:]), note,
    )


@dataclass
class Keyring:
    """The verifier keys of one log."""

    keys: list[Key]

    @property
    def origin(self) -> bytes:
        """The name that all keys have."""
        return self.keys[0].name

    def names_signer(self, note: bytes) -> bool:
        """Whether a signature line names a key of the ring; nothing is verified."""
        prefix = "— ".encode() + self.origin + b" "
        for line in note[note.rfind(b"\n\n") + 2 :].split(b"\n"):
            start = line[len(prefix) : len(prefix) + 8]
            if line.startswith(prefix) and len(start) == 8 and _BASE64.fullmatch(start):
                if any(k.hash == base64.b64decode(start)[:4] for k in self.keys):
                    return True
        return False

    def verifies(self, note: bytes) -> bool:
        """Whether a signed note has a good signature by a key of the ring and
        no bad one. Of several by one key the first counts."""
        try:
            if any(c < " " and c != "\n" for c in set(note.decode())):
                return False
        except UnicodeDecodeError:
            return False
        split = note.rfind(b"\n\n")
        text, lines = note[: split + 1], note[split + 2 :]
        if split < 0 or not lines.endswith(b"\n"):
            return False
        seen: set[Key] = set()
        for n, line in enumerate(lines[:-1].split(b"\n")):
            head, name, data = (line.split(b" ", 2) + [b"", b""])[:3]
            try:
                raw = loose_base64(data)
            except Malformed:
                return False
            if n >= MAX_SIGNATURES or head != "—".encode() or not valid_name(name) or len(raw) < 5:
                return False
            key = next((k for k in self.keys if k.name == name and k.hash == raw[:4]), None)
            if key is None or key in seen:
                continue
            if not ed25519_verify(key.public, text, raw[4:]):
                return False
            seen.add(key)
        return bool(seen)


def cosigned(copy: bytes, note: bytes) -> bool:
    """Whether copy is note, with or without signature lines behind it."""
    more = copy[len(note) :]
    lines = more.split(b"\n")
    return copy.startswith(note) and lines.pop() == b"" and all(s.startswith("— ".encode()) for s in lines)


def witnessed(witness: Key, note: bytes) -> bool:
    """Whether a checkpoint has a good cosignature/v1 of the witness."""
    split = note.rfind(b"\n\n")
    prefix = "— ".encode() + witness.name + b" "
    for line in note[split + 2 :].split(b"\n"):
        if not line.startswith(prefix):
            continue
        try:
            raw = loose_base64(line[len(prefix) :])
        except Malformed:
            continue
        if len(raw) != 4 + 8 + 64 or raw[:4] != witness.hash:
            continue
        seconds = int.from_bytes(raw[4:12], "big")
        text = b"cosignature/v1\ntime %d\n" % seconds + note[: split + 1]
        if seconds < 1 << 63 and ed25519_verify(witness.public, text, raw[12:]):
            return True
    return False


# -------------------------------------------------------------------- events


class Reader:
    """Takes values from the front of bytes; Malformed when it cannot."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def left(self) -> int:
        """How many bytes are left."""
        return len(self.data) - self.at

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if n > self.left():
            raise Malformed("bytes are missing")
        self.at += n
        return self.data[self.at - n : self.at]

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def number(self, size: int) -> int:
        """The next unsigned integer of size bytes."""
        return int.from_bytes(self.take(size), "big")

    def uvarint(self) -> int:
        """The next LEB128 number, in its shortest form, at most 64 bits."""
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 127) << shift
            if b < 128:
                break
            shift += 7
            if shift > 63:
                raise Malformed("number")
        if value >= 1 << 64 or (b == 0 and shift > 0):
            raise Malformed("number")
        return value

    def count(self, size: int) -> int:
        """The length of a list whose elements have at least size bytes."""
        n = self.uvarint()
        if n > self.left() // size:
            raise Malformed("count")
        return n

    def text(self) -> bytes:
        """The next text."""
        b = self.take(self.count(1))
        try:
            b.decode()
        except UnicodeDecodeError:
            raise Malformed("text") from None
        if b and (min(b) < 0x20 or 0x7F in b):
            raise Malformed("text")
        return b

    def name(self) -> bytes:
        """The next text, which is not empty."""
        b = self.text()
        if not b:
            raise Malformed("name")
        return b

    def names(self) -> list[bytes]:
        """The next list of names."""
        return [self.name() for _ in range(self.count(2))]


@dataclass(frozen=True)
class Detail:
    """A personal detail: what it is, whose, and the commitment to it."""

    name: bytes
    person: bytes
    commitment: bytes


@dataclass(frozen=True)
class Event:
    """What of an event the checks need."""

    id: bytes
    index: int
    activity: int
    details: list[Detail]
    action: bytes
    actor: bytes
    count: int


EVENT_HEAD = 1 + 16 + 8 + 8 + 1 + 1  # up to the details
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def parse_event(b: bytes) -> Event:
    """Reads canonical bytes, section 2, and takes no other spelling."""
    if not EVENT_HEAD <= len(b) <= MAX_EVENT:
        raise Malformed("event")
    if b[0] != 1:
        raise CannotCheck("event version %d: a later format" % b[0])
    r = Reader(b, 1)
    id_, index, _time = r.take(16), r.number(8), r.take(8)
    activity = r.byte()
    if r.byte() == 0:
        raise Malformed("outcome")
    details = [Detail(r.name(), r.take(16), r.take(32)) for _ in range(r.count(49))]
    action, actor, _session, _tenant = r.name(), r.text(), r.text(), r.text()
    _targets(r)
    _fields, _purpose, _decision, _policy, _controls = r.names(), r.text(), r.text(), r.text(), r.names()
    reference = r.byte()
    if reference > 1:
        raise Malformed("reference")
    r.take(8 * reference)
    zigzag = r.uvarint()
    _note = r.text()
    if r.left():
        raise Malformed("event")
    return Event(id_, index, activity, details, action, actor, zigzag >> 1 if zigzag & 1 == 0 else ~(zigzag >> 1))


def _targets(r: Reader) -> None:
    types = r.names()
    if len(set(types)) != len(types):
        raise Malformed("types")
    used = 0  # types stand in the order of their first use
    for _ in range(r.count(5)):
        k = r.uvarint()
        if k > used or k >= len(types):
            raise Malformed("type")
        used = max(used, k + 1)
        kind = r.byte()
        if kind > 1 or (kind == 0 and _UUID.fullmatch(r.text())):
            raise Malformed("record id")
        r.take(16 * kind)
        r.uvarint()
        if len(r.take(r.count(1))) > MAX_DIGEST:
            raise Malformed("digest")
    if used != len(types):
        raise Malformed("types")


def commitment(salt: bytes, detail: Detail, value: bytes) -> bytes:
    """The commitment of section 3."""
    parts = (b"crmguard audit commitment v1", detail.name, detail.person, value)
    return hmac.new(salt, b"".join(struct.pack(">I", len(p)) + p for p in parts), "sha256").digest()


# ------------------------------------------------------------------ openings


@dataclass(frozen=True)
class Opening:
    """One line of exported openings, section 14."""

    place: tuple[int, int]  # event and detail
    person: bytes
    name: bytes
    state: str
    salt: bytes = b""
    value: bytes = field(default=b"", repr=False)


def _small_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("number")
    return int(digits)


class Openings:
    """A file of exported openings, read beside the log a line at a time."""

    HEADER = "crmguard audit openings v1"

    def __init__(self, file: BinaryIO, origin: bytes) -> None:
        self._file = file
        self._next: Optional[Opening] = None
        self._last = (-1, -1)
        head = self._line()
        if head is None or head.get("format") != self.HEADER or head.get("origin") != origin.decode():
            raise CannotCheck("the openings are not exported openings of this log")
        self._advance()

    def find(self, index: int, number: int) -> Optional[Opening]:
        """The line of a detail, which must be asked for in their order."""
        while self._next is not None and self._next.place < (index, number):
            self._advance()
        return self._next if self._next is not None and self._next.place == (index, number) else None

    def finish(self) -> None:
        """Reads the lines that nobody asked for, which must be in order too."""
        while self._next is not None:
            self._advance()

    def _line(self) -> Optional[dict[str, Any]]:
        line = self._file.readline(MAX_OPENING_LINE)
        if not line:
            return None
        try:
            value = json.loads(line.decode(), parse_int=_small_int)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or not line.endswith(b"\n"):
            raise CannotCheck("a line of the openings is malformed")
        return value

    def _advance(self) -> None:
        line = self._line()
        self._next = None
        if line is None:
            return
        try:
            self._next = self._parse(line)
        except (KeyError, TypeError, ValueError, AttributeError, Malformed):
            raise CannotCheck("a line of the openings is malformed") from None
        if self._next.place <= self._last:
            raise CannotCheck("the lines of the openings are not in order")
        self._last = self._next.place

    @staticmethod
    def _parse(line: dict[str, Any]) -> Opening:
        index, number, state = line["index"], line["detail"], line["state"]
        if type(index) is not int or type(number) is not int or index < 0 or number < 0:
            raise Malformed("place")
        if not re.fullmatch("[0-9a-f]{32}", line["person"]):
            raise Malformed("person")
        place, person, name = (index, number), bytes.fromhex(line["person"]), line["name"].encode()
        if state in ("erased", "withheld", "unavailable"):
            if "salt" in line or "value" in line or "value_base64" in line:
                raise Malformed("value")
            return Opening(place, person, name, state)
        if state != "opened" or ("value" in line) == ("value_base64" in line):
            raise Malformed("state")
        salt = strict_base64(line["salt"].encode())
        value = line["value"].encode() if "value" in line else strict_base64(line["value_base64"].encode())
        if len(salt) != 32:
            raise Malformed("salt")
        return Opening(place, person, name, state, salt, value)


# ------------------------------------------------------------- file of a log


def read_up_to(path: str, limit: int) -> bytes:
    """The first bytes of a file, at most limit."""
    parts, left = [], limit
    with open(path, "rb", buffering=0) as f:
        while left > 0:
            part = f.read(min(left, 1 << 16))
            if not part:
                break
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


@dataclass(frozen=True)
class Batch:
    """What one synced write made durable, section 6."""

    first: int
    count: int
    data: bytes


class Segment:
    """One segment file, section 7."""

    def __init__(self, path: str, first: int) -> None:
        try:
            self._file = open(path, "rb")
        except FileNotFoundError:
            raise Damaged("a segment is gone") from None
        self._first, self._at = first, 0
        self.end = ""  # why it ended: "", "empty" or "torn"

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def batches(self) -> Iterator[Batch]:
        """Yields the batches that were not yielded yet."""
        self.end = ""
        self._file.seek(self._at)
        if self._at == 0:
            head = self._file.read(24)
            if len(head) < 24:
                self.end = "torn" if head else "empty"
                return
            magic, version, first, crc = struct.unpack(">8sIQI", head)
            if magic != b"CGLOGSEG" or crc != crc32c(head[:20]):
                raise Damaged("segment header")
            if version != 1:
                raise CannotCheck("segment version %d: a later format" % version)
            if first != self._first:
                raise Damaged("a segment has the name of another")
            self._at = 24
        while True:
            head = self._file.read(28)
            if len(head) < 28:
                self.end = "torn" if head else ""
                return
            magic, size, first, count, _, crc = struct.unpack(">4sIQIII", head)
            if magic != b"CGBA" or crc != crc32c(head[:24]) or size > MAX_BATCH or count == 0 or first + count >= 1 << 64:
                raise Damaged("batch header")
            data = self._file.read(size)
            if len(data) < size:
                self.end = "torn"
                return
            self._at += 28 + size
            yield Batch(first, count, data)


class Folder:
    """The folder of a log."""

    def __init__(self, path: str) -> None:
        self._path = path
        if os.path.exists(path) and not os.path.isdir(path):
            raise CannotCheck("the log is not a folder")

    def head(self) -> Optional[bytes]:
        """The copy of a checkpoint that lies beside the log."""
        try:
            return read_up_to(os.path.join(self._path, "checkpoint"), MAX_NOTE + 1)
        except FileNotFoundError:
            return None

    def _segments(self, after: int = -1) -> list[int]:
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return []
        found = (int(n[:20]) for n in names if re.fullmatch(r"[0-9]{20}\.seg", n, re.ASCII))
        return sorted(n for n in found if after < n < 1 << 64)

    def batches(self) -> Iterator[Batch]:
        """Yields the batches in order. Ends in Damaged or Torn when it must."""
        later = self._segments()
        while later:
            at = later[0]
            segment = Segment(os.path.join(self._path, "%020d.seg" % at), at)
            try:
                yield from segment.batches()
                later = self._segments(at)
                if later:  # a writer may have added before it began the next
                    yield from segment.batches()
            finally:
                segment.close()
            if later and segment.end:
                raise Damaged("a segment is empty" if segment.end == "empty" else "a segment ends inside a batch")
            if segment.end == "torn" and not self._busy():
                raise Torn("the log ends inside a batch")

    def _busy(self) -> bool:
        """Whether a writer holds the lock: then a torn tail is an append under way."""
        try:
            import fcntl
        except ImportError:
            return False
        try:
            with open(os.path.join(self._path, "lock"), "rb") as f:
                try:
                    fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return True
        except OSError:
            pass
        return False


@dataclass(frozen=True)
class Frame:
    """One frame, section 6."""

    kind: int
    body: bytes = b""  # the note, or the id of the log of pruned events
    chain: bytes = b""
    event: bytes = b""
    openings: bytes = b""
    leaves: bytes = b""


def next_frame(data: bytes, at: int) -> tuple[Frame, int]:
    """Reads the frame at a place of a batch; returns it and the next place."""
    if len(data) - at < 9:
        raise Malformed("frame")
    size, crc = struct.unpack_from(">II", data, at)
    end = at + 8 + size
    if not 1 <= size <= MAX_FRAME or end > len(data) or crc32c(data[at : at + 4], data[at + 8 : end]) != crc:
        raise Malformed("frame")
    kind, body = data[at + 8], data[at + 9 : end]
    if kind == CHECKPOINT_FRAME:
        return Frame(kind, body), end
    if kind == EVENT_FRAME:
        if len(body) < 34:
            raise Malformed("frame")
        length = int.from_bytes(body[32:34], "big")
        if not EVENT_HEAD <= length <= len(body) - 34:
            raise Malformed("frame")
        return Frame(kind, chain=body[:32], event=body[34 : 34 + length], openings=body[34 + length :]), end
    if kind == PRUNED_FRAME:
        if len(body) < 48 or len(body) % 32 != 16:
            raise Malformed("frame")
        return Frame(kind, body[:16], leaves=body[16:]), end
    raise CannotCheck("frame kind %d: a later format" % kind)


# -------------------------------------------------------------- verification


class Tree:
    """The right edge of the tree of RFC 6962."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []  # complete subtrees, largest first

    def add(self, leaf: bytes) -> None:
        """Appends a leaf."""
        n = self.size
        while n & 1:
            leaf = sha256(b"\x01", self._edge.pop(), leaf)
            n >>= 1
        self._edge.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The hash of the tree."""
        if not self._edge:
            return sha256()
        h = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            h = sha256(b"\x01", left, h)
        return h


@dataclass
class Verdict:
    """What was found, with the names of the JSON."""

    origin: bytes
    state: str = "Unanchored"
    at: Optional[int] = None
    reason: str = ""
    size: int = 0
    pinned: int = 0
    root: bytes = bytes(32)
    signed: Optional[int] = None  # milliseconds
    opened: int = 0
    erased: int = 0
    unchecked: int = 0
    pruned: int = 0
    witnessed: int = 0

    def json(self) -> dict[str, Any]:
        """The verdict for machines."""
        out: dict[str, Any] = {"state": self.state, "ok": self.state in GOOD}
        if self.at is not None:
            out["at"] = self.at
        if self.reason:
            out["reason"] = self.reason
        out.update(origin=self.origin.decode(), size=self.size, pinned=self.pinned, root=base64.b64encode(self.root).decode())
        if self.signed is not None:
            out.update(_signed(self.signed))
        out.update(opened=self.opened, erased=self.erased, unchecked=self.unchecked)
        for name in ("pruned", "witnessed"):
            if getattr(self, name):
                out[name] = getattr(self, name)
        return out


def _signed(ms: int) -> dict[str, Any]:
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    try:
        at = epoch + datetime.timedelta(milliseconds=ms)
        age = (datetime.datetime.now(datetime.timezone.utc) - at).total_seconds()
    except OverflowError:
        return {}
    fraction = (".%03d" % (ms % 1000)).rstrip("0").rstrip(".")
    return {"signed": at.replace(microsecond=0, tzinfo=None).isoformat() + fraction + "Z", "age_seconds": age}


Seen = Callable[[int, Event, bytes], None]


class Scan:
    """One pass over a log, in the order of section 8."""

    def __init__(self, ring: Keyring, pins: Sequence[Checkpoint], every: bool, seen: Optional[Seen]) -> None:
        self.ring, self.every, self.seen = ring, every, seen
        self.pins = sorted(pins, key=lambda c: c.size)
        self.id = self.chain = b""
        self.tree = Tree()
        self.size = 0  # events up to the last good checkpoint, or pruned
        self.last: Optional[Checkpoint] = None
        self.met = 0  # size of the largest pin that was met
        self.head: Optional[Checkpoint] = None  # the copy beside the log
        self.head_found = False
        self.torn = False
        self.pruned = self.logged = 0

    def run(self, folder: Folder) -> None:
        """Reads the whole log."""
        try:
            for batch in folder.batches():
                self._batch(batch)
        except Torn:
            self.torn = True
        except Damaged:
            raise Fault("Altered", self.size, "the stored bytes of a batch are damaged") from None

    def _batch(self, batch: Batch) -> None:
        if batch.first != self.size:
            raise Fault("Reordered", self.size, "the batch here begins with another event")
        at = 0
        for index in range(batch.first, batch.first + batch.count):
            try:
                frame, after = next_frame(batch.data, at)
                if frame.kind == PRUNED_FRAME and at == 0:
                    self._pruned_batch(batch)
                    return
                if frame.kind != EVENT_FRAME:
                    raise Malformed("frame")
            except Malformed:
                raise Fault("Altered", index, "the frame of the event is damaged") from None
            self._event(index, frame, batch.data, after)
            at = after
        self._checkpoint(batch.first, batch.first + batch.count, batch.data, at)

    def _begin(self, index: int, id_: bytes) -> None:
        if index == 0:
            self.id, self.chain = id_, sha256(b"\x02", id_, self.ring.origin)

    def _event(self, index: int, frame: Frame, data: bytes, after: int) -> None:
        id_, stored = frame.event[1:17], int.from_bytes(frame.event[17:25], "big")
        self._begin(index, id_)
        leaf = sha256(b"\x00", frame.event)
        chain = sha256(b"\x03", self.chain, leaf)
        if id_ != self.id:
            raise Fault("Foreign", index, "the event was written in another log")
        if stored != index:
            raise Fault("Reordered", index, "event %d stands here" % stored)
        if chain != frame.chain:
            if index == 0 and self._other_origin(data, after):
                raise Fault("Foreign", index, "the log has another name")
            raise Fault("Altered", index, "the event does not match the hash chain")
        if frame.event[0] != 1:
            raise CannotCheck("event version %d: a later format" % frame.event[0])
        self._leaf(index, leaf)
        try:
            event = parse_event(frame.event)
        except Malformed:
            raise Fault("Altered", index, "the event is malformed") from None
        if event.activity == DELETE and event.actor == b"audit" and event.action == b"audit.pruned":
            self.logged = max(self.logged, event.count)
        self._openings(index, event, frame.openings)
        if self.seen:
            self.seen(index, event, leaf)

    def _other_origin(self, data: bytes, at: int) -> bool:
        """Whether a checkpoint in the rest of the first batch has another origin."""
        while at < len(data):
            try:
                frame, at = next_frame(data, at)
            except (Malformed, CannotCheck):
                return False
            try:
                if frame.kind == CHECKPOINT_FRAME and parse_checkpoint(frame.body).origin != self.ring.origin:
                    return True
            except Malformed:
                pass
        return False

    @staticmethod
    def _openings(index: int, event: Event, data: bytes) -> None:
        r, sizes = Reader(data), []
        try:
            while r.left():
                sizes.append(len(r.take(r.count(1))))
        except Malformed:
            raise Fault("Altered", index, "the openings of the event are malformed") from None
        if len(sizes) > len(event.details):
            raise Fault("Altered", index, "the event has an opening too many")
        if len(sizes) < len(event.details) or 0 in sizes:
            raise Fault("Withheld", index, "an opening of the event is missing")

    def _leaf(self, index: int, leaf: bytes) -> None:
        self.chain = sha256(b"\x03", self.chain, leaf)
        self._pins(index)
        self.tree.add(leaf)

    def _pruned_batch(self, batch: Batch) -> None:
        if self.pruned != batch.first:
            raise Fault("Altered", batch.first, "events are taken out in the middle of the log")
        damaged = "the hashes of pruned events are damaged"
        at, index, end = 0, batch.first, batch.first + batch.count
        while index < end:
            try:
                frame, at = next_frame(batch.data, at)
            except Malformed:
                raise Fault("Altered", index, damaged) from None
            if frame.kind != PRUNED_FRAME or len(frame.leaves) // 32 > end - index:
                raise Fault("Altered", index, damaged)
            self._begin(index, frame.body)
            if frame.body != self.id:
                raise Fault("Foreign", index, "the hashes of pruned events are of another log")
            for i in range(0, len(frame.leaves), 32):
                self._pruned_head(index)
                self._leaf(index, frame.leaves[i : i + 32])
                index += 1
        if at != len(batch.data):
            raise Fault("Altered", batch.first, damaged)
        self.size = self.pruned = end
        self._pruned_head(end)
        self._pins(end)

    def _pruned_head(self, size: int) -> None:
        """The copy beside the log, when the batch that it is of was pruned."""
        if self.head and self.head.size == size:
            same = (self.head.id, self.head.root) == (self.id, self.tree.root())
            self.head_found = same and self.ring.verifies(self.head.note)

    def _checkpoint(self, first: int, size: int, data: bytes, at: int) -> None:
        try:
            frame, at = next_frame(data, at)
            if frame.kind != CHECKPOINT_FRAME or at != len(data):
                raise Malformed("frame")
        except Malformed:
            raise Fault("Altered", first, "the checkpoint frame of the batch is damaged") from None
        try:
            c = parse_checkpoint(frame.body)
        except Malformed:
            raise Fault("Altered", first, "the checkpoint of the batch is malformed") from None
        if c.origin != self.ring.origin or c.id != self.id:
            raise Fault("Foreign", first, "the checkpoint of the batch is of another log")
        if (c.size, c.root, c.chain) != (size, self.tree.root(), self.chain):
            raise Fault("Altered", first, "the events of the batch do not match its checkpoint")
        if not self.ring.names_signer(c.note):
            raise Fault("KeyUnknown", first, "the checkpoint of the batch is signed by a key that was not given")
        if self.every and not self.ring.verifies(c.note):
            raise Fault("Altered", first, "the signature of the checkpoint of the batch is wrong")
        if self.head and self.head.size == size:
            self.head_found = cosigned(self.head.note, c.note)
        self.size, self.last = size, c
        self._pins(size)

    def _pins(self, size: int) -> None:
        while self.pins and self.pins[0].size == size:
            if self.pins[0].id != self.id:
                raise Fault("Foreign", None, "the given head is of another log")
            if self.pins[0].root != self.tree.root():
                raise Fault("Forked", None, "the given head of size %d has another history" % size)
            self.met = self.pins.pop(0).size

    def finish(self) -> None:
        """Judges what the pass has seen."""
        if self.size == 0 and not self.torn:
            raise Fault("Missing", None, "there is no log")
        if self.pins and self.size and self.pins[0].id != self.id:
            raise Fault("Foreign", None, "the given head is of another log")
        if self.pins:
            raise Fault("Truncated", self.size, "a given head has %d events" % self.pins[-1].size)
        if self.torn:
            raise Fault("Truncated", self.size, "the log ends inside a batch")
        if self.last is None or self.last.size < self.size:
            raise Fault("Truncated", self.size, "nothing follows the pruned events")
        if self.pruned > self.logged:
            raise Fault("Withheld", self.logged, "events were taken out without a pruning in the log")
        if self.head and self.head.size > self.size:
            raise Fault("Truncated", self.size, "the checkpoint beside the log has %d events" % self.head.size)
        if self.head and not self.head_found:
            raise Fault("Altered", None, "the checkpoint beside the log is not one of the log")


@dataclass
class Request:
    """What is to be checked."""

    ring: Keyring
    pins: list[Checkpoint]
    witnesses: list[Key]
    quorum: int
    every: bool
    openings: Optional[str]


def verify(path: str, request: Request) -> Verdict:
    """Verifies the log in a folder."""
    verdict = Verdict(request.ring.origin)
    folder = Folder(path)
    head = folder.head()  # before the batches, for a writer may be at work
    if request.openings is None:
        return _verify(folder, head, request, verdict, None)
    with open(request.openings, "rb") as f:
        openings = Openings(f, request.ring.origin)
        _verify(folder, head, request, verdict, openings)
        openings.finish()
        return verdict


def _verify(folder: Folder, head: Optional[bytes], request: Request, verdict: Verdict, openings: Optional[Openings]) -> Verdict:
    def seen(index: int, event: Event, leaf: bytes) -> None:
        check_details(verdict, openings, index, event)

    scan = Scan(request.ring, request.pins, request.every, seen)
    beside: Optional[Fault] = None
    if head is not None:
        try:
            scan.head = parse_checkpoint(head)
        except Malformed:
            beside = Fault("Altered", None, "the checkpoint beside the log is malformed")
    try:
        scan.run(folder)
        if scan.last and not request.every and not request.ring.verifies(scan.last.note):
            # The last signature is wrong. Find the first that is.
            scan = Scan(request.ring, [], True, None)
            scan.run(folder)
            raise Fault("Altered", None, "the signature of the last checkpoint is wrong")
        scan.finish()
        if beside:
            raise beside
        _count_witnesses(verdict, scan, request)
        if not scan.met:
            raise Fault("Unanchored", None, "no head kept elsewhere was given")
        verdict.state = "Anchored" if verdict.witnessed else "Pinned"
    except Fault as f:
        verdict.state, verdict.at, verdict.reason = f.state, f.at, f.reason
    verdict.size, verdict.pinned, verdict.pruned = scan.size, scan.met, scan.pruned
    if scan.last:
        verdict.root, verdict.signed = scan.last.root, scan.last.time
    return verdict


def _count_witnesses(verdict: Verdict, scan: Scan, request: Request) -> None:
    heads = ([scan.head] if scan.head else []) + request.pins
    for c in heads if request.witnesses else []:
        if c.size > verdict.witnessed and sum(witnessed(w, c.note) for w in request.witnesses) >= request.quorum:
            verdict.witnessed = c.size


def check_details(verdict: Verdict, openings: Optional[Openings], index: int, event: Event) -> None:
    """Checks the details of an event against exported openings and counts them."""
    for number, detail in enumerate(event.details):
        opening = openings.find(index, number) if openings else None
        if opening is None or opening.state == "unavailable":
            verdict.unchecked += 1
            continue
        same = opening.person == detail.person and opening.name == detail.name
        if same and opening.state == "erased":
            verdict.erased += 1
        elif same and opening.state == "opened" and commitment(opening.salt, detail, opening.value) == detail.commitment:
            verdict.opened += 1
        else:
            raise Fault("Withheld", index, "an opening of the event does not open to its commitment")


# ------------------------------------------------------------------ receipts


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> Optional[bytes]:
    """The root an inclusion proof leads to, RFC 9162, section 2.1.3.2."""
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return None
        if fn & 1 or fn == sn:
            r = sha256(b"\x01", p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha256(b"\x01", r, p)
        fn, sn = fn >> 1, sn >> 1
    return r if sn == 0 else None


def check_receipt(b: bytes, ring: Keyring) -> dict[str, Any]:
    """Verifies a receipt, section 9, with the keys of the log alone."""
    try:
        head, blank, note = b.partition(b"\n\n")
        lines = head.split(b"\n")
        if not blank or not 3 <= len(lines) <= 3 + 64 or lines[0] != b"c2sp.org/tlog-proof@v1":
            raise Malformed("receipt")
        if not lines[1].startswith(b"extra ") or not lines[2].startswith(b"index "):
            raise Malformed("receipt")
        extra, index = strict_base64(lines[1][6:]), read_decimal(lines[2][6:])
        path = [read_hash(s) for s in lines[3:]]
    except Malformed:
        return {"ok": False, "reason": "the bytes are not a receipt"}
    try:
        c = parse_checkpoint(note)
        if c.origin != ring.origin or not ring.verifies(note):
            raise Malformed("checkpoint")
    except Malformed:
        return {"ok": False, "reason": "the checkpoint of the receipt is not signed by a given key"}
    leaf = extra
    if len(extra) != 32:
        try:
            event = parse_event(extra)
            if event.id != c.id or event.index != index:
                raise Malformed("event")
        except Malformed:
            return {"ok": False, "reason": "the event of the receipt is not the one it proves"}
        leaf = sha256(b"\x00", extra)
    if index >= c.size or included(leaf, index, c.size, path) != c.root:
        return {"ok": False, "reason": "the proof of the receipt does not hold"}
    out = {"ok": True, "index": index, "size": c.size, "leaf": base64.b64encode(leaf).decode()}
    if len(extra) == 32:
        out["pruned"] = True
    return out


# -------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CannotCheck(message)


@functools.lru_cache(maxsize=None)
def _arguments() -> argparse.ArgumentParser:
    p = _Parser(prog="audit.py", description="Verifies an audit log of crmguard: docs/formats/audit.md.", allow_abbrev=False)
    p.add_argument("log", nargs="?", metavar="LOG", help="folder of the log")
    p.add_argument("--key", action="append", default=[], metavar="KEY", help="verifier key of the log, old or new; several may be given")
    p.add_argument("--keys", action="append", default=[], metavar="FILE", help="file of verifier keys, one a line")
    p.add_argument("--pin", action="append", default=[], metavar="FILE", help="checkpoint kept elsewhere; several may be given")
    p.add_argument("--openings", metavar="FILE", help="exported openings of personal details")
    p.add_argument("--receipt", action="append", default=[], metavar="FILE", help="receipt to verify; several may be given")
    p.add_argument("--witness", action="append", default=[], metavar="KEY", help="key of a witness; several may be given")
    p.add_argument("--quorum", type=int, default=0, metavar="N", help="how many witnesses must have signed one head; 0: all")
    p.add_argument("--every", action="store_true", help="check the signature of each checkpoint")
    p.add_argument("--many", action="store_true", help="read lines from the input, a JSON array of arguments each; print one object for each")
    return p


def _read(path: str, limit: int) -> bytes:
    b = read_up_to(path, limit + 1)
    if len(b) > limit:
        raise CannotCheck("a file is too long: " + path)
    return b


def _keyring(args: argparse.Namespace) -> Keyring:
    texts = list(args.key)
    for path in args.keys:
        texts += [s for s in _read(path, MAX_KEYS_FILE).decode("utf-8", "replace").splitlines() if s.strip()]
    keys = [parse_key(s, 1) for s in texts]
    if not keys:
        raise CannotCheck("no verifier key was given")
    if any(k.name != keys[0].name for k in keys):
        raise CannotCheck("the verifier keys have different names")
    return Keyring(keys)


def _request(args: argparse.Namespace) -> Request:
    ring = _keyring(args)
    pins = []
    for path in args.pin:
        try:
            c = parse_checkpoint(_read(path, MAX_NOTE))
        except Malformed:
            c = None
        if c is None or c.origin != ring.origin or not ring.verifies(c.note):
            raise CannotCheck("a given head is not a checkpoint signed by a given key: " + path)
        pins.append(c)
    witnesses = [parse_key(s, 4) for s in args.witness]
    if len({w.name for w in witnesses}) < len(witnesses) or len({w.public for w in witnesses}) < len(witnesses):
        raise CannotCheck("a witness is given twice")
    if not 0 <= args.quorum <= len(witnesses):
        raise CannotCheck("the quorum is larger than the number of witnesses")
    return Request(ring, pins, witnesses, args.quorum or len(witnesses), args.every, args.openings)


def check(argv: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Does what the arguments say; returns exit code and JSON object."""
    try:
        args = _arguments().parse_args(list(argv))
        if args.many or (args.log is None and not args.receipt):
            raise CannotCheck("nothing is named that is to be checked")
        request = _request(args)
        out: dict[str, Any] = {}
        good = True
        if args.log is not None:
            out = verify(args.log, request).json()
            good = out["ok"]
        if args.receipt:
            out["receipts"] = [check_receipt(_read(path, 2 * MAX_NOTE), request.ring) for path in args.receipt]
            good = good and all(r["ok"] for r in out["receipts"])
        return (0 if good else 1), out
    except CannotCheck as e:
        return 2, {"error": str(e)}
    except OSError as e:
        return 2, {"error": "cannot read: %s" % (e.strerror or type(e).__name__)}
    except Exception as e:  # what nobody thought of is no verdict either
        return 2, {"error": "the check failed: " + type(e).__name__}


def _many(lines: BinaryIO) -> int:
    worst = 0
    for line in lines:
        try:
            argv = json.loads(line)
        except (ValueError, RecursionError):
            argv = None
        if isinstance(argv, list) and all(isinstance(a, str) for a in argv):
            code, out = check(argv)
        else:
            code, out = 2, {"error": "the line is not a JSON array of arguments"}
        out["exit"] = code
        worst = max(worst, code)
        print(json.dumps(out), flush=True)
    return worst


def main(argv: Sequence[str]) -> int:
    """Runs the command line."""
    if list(argv) == ["--many"]:
        return _many(sys.stdin.buffer)
    code, out = check(argv)
    print(json.dumps(out, indent=2))
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(2)
