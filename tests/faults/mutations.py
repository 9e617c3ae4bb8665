"""Bytes that are nearly right: what hypothesis and the plain generator do to the seeds of a reader."""

from __future__ import annotations

import random
import struct

from hypothesis import strategies as st

TOKENS = (
    *(
        b"",
        b"\0",
        b"\xff" * 8,
        b"\n",
        b'"',
        b"{",
        b"[" * 3000,
        b"null",
        b"NaN",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"\xed\xa0",
    ),
    *(b"../", b"/etc/passwd", b"<script>", b"$x^{", b"PK\x01\x02", b"PK\x05\x06", b"\x93NUMPY\x01\0", b"__metadata__"),
    *(struct.pack("<I", n) for n in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)),
    *(struct.pack("<Q", n) for n in (1 << 31, 1 << 40, (1 << 64) - 1)),
)

#: One change: what, where (a share of the length, in 1/2^16), how much, and with what.
Change = tuple[str, int, int, bytes]
KINDS = ("flip", "cut", "drop", "double", "insert", "overwrite", "number")


def changed(data: bytes, change: Change) -> bytes:
    kind, where, size, token = change
    at = where * (len(data) + 1) >> 16
    if kind == "flip" and at < len(data):
        return data[:at] + bytes([data[at] ^ 1 << size % 8]) + data[at + 1 :]
    if kind == "cut":
        return data[:at]
    if kind == "drop":
        return data[:at] + data[at + size :]
    if kind == "double":
        return data[: at + size] + data[at:]
    if kind == "insert":
        return data[:at] + token + data[at:]
    if kind == "overwrite":
        return data[:at] + token + data[at + len(token) :]
    # The first number from there on, as text, is another one.
    start = next((i for i in range(at, min(at + 400, len(data))) if 48 <= data[i] <= 57), len(data))
    end = start
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    return data[:start] + (token or str(size).encode()) + data[end:]


def mutants(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Seeds with one to six changes, and now and then any bytes at all."""
    tokens = st.sampled_from(TOKENS) | st.binary(max_size=8)
    change = st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 65535),
        st.integers(0, 300),
        tokens,
    )

    def made(parts: tuple[bytes, list[Change]]) -> bytes:
        data, changes = parts
        for one in changes:
            data = changed(data, one)
        return data

    near = st.tuples(st.sampled_from(seeds), st.lists(change, min_size=1, max_size=6)).map(made)
    return st.one_of(near, near, near, st.binary(max_size=400))


def mutant(seeds: tuple[bytes, ...], chance: random.Random) -> bytes:
    """The same by a plain generator, for those who want many."""
    data = chance.choice(seeds)
    for _ in range(1 + int(6 * chance.random() ** 3)):
        token = chance.choice(TOKENS) if chance.random() < 0.7 else chance.randbytes(chance.randint(0, 8))
        data = changed(data, (chance.choice(KINDS), chance.getrandbits(16), chance.randint(0, 300), token))
    return data
