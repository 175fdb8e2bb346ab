"""Raw DEFLATE (RFC 1951): written with one Huffman table per run, read within a bound."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Final, NamedTuple

from flasc_core.errors import Reason, Refusal

__all__ = ["FILTERED", "HUFFMAN", "REPEATS", "RUNS", "Search", "deflate", "fast_zlib", "inflate"]


@cache
def fast_zlib() -> ModuleType:
    """Return isal where a server has it, or else zlib: it inflates in half of zlib's time.

    It makes checksums in an eighth. It also takes codes that are incomplete, which zlib and other
    readers refuse.

    Looked for at the first use, so that importing the SDK loads nothing that it does not need.
    """
    try:
        return import_module("isal.isal_zlib")
    except ImportError:
        return zlib


class Search(NamedTuple):
    """What the encoder looks for beside symbol frequencies, by zlib's strategy, and how hard."""

    strategy: int
    level: int = 6


# Nothing; runs of one byte; repetition; repetition at whatever it takes.
HUFFMAN: Final = Search(zlib.Z_HUFFMAN_ONLY)
RUNS: Final = Search(zlib.Z_RLE)
FILTERED: Final = Search(zlib.Z_FILTERED)
REPEATS: Final = Search(zlib.Z_FILTERED, level=9)

# No zlib or gzip header.
_RAW: Final = -15
_MEMORY: Final = 9
# Enough to tell random bytes from others.
_SAMPLE: Final = 4_096
# RFC 1951, 3.2.4: not the last block, stored; its length, and the complement of that.
_STORED: Final = struct.Struct("<BHH")
_LARGEST_STORED: Final = 0xFFFF


def deflate(parts: Sequence[bytes], search: Search = HUFFMAN) -> bytes:
    """Return one stream of the joined parts, with Huffman tables of its own for each."""
    # A stored block ends on a byte, so what looks random at the front need not pass the encoder.
    coded = 0
    while coded < len(parts) - 1 and _looks_random(parts[coded]):
        coded += 1
    out = [_stored(part) for part in parts[:coded]]
    encoder = _encoder(search)
    for part in parts[coded:-1]:
        out += [encoder.compress(part), encoder.flush(zlib.Z_PARTIAL_FLUSH)]
    return b"".join([*out, encoder.compress(parts[-1]), encoder.flush()])


def inflate(
    data: bytes | memoryview, *, limit: int, field: str, engine: ModuleType = zlib
) -> bytes:
    """Return what `data` unpacks to, never holding more than `limit` bytes and one.

    Refuses DECOMPRESS_LIMIT beyond the limit, and MALFORMED_MESSAGE for a stream that is broken,
    cut off, or followed by anything.
    """
    decoder = engine.decompressobj(wbits=_RAW)
    try:
        out: bytes = decoder.decompress(data, limit + 1)
    except engine.error as error:
        raise Refusal(Reason.MALFORMED_MESSAGE, f"{field} is no DEFLATE", field=field) from error
    if len(out) > limit:
        raise Refusal(
            Reason.DECOMPRESS_LIMIT, f"{field} unpacks to more than {limit} bytes", field=field
        )
    if not decoder.eof or decoder.unused_data:
        raise Refusal(
            Reason.MALFORMED_MESSAGE, f"{field} does not end where its stream does", field=field
        )
    return out


def _encoder(search: Search) -> zlib._Compress:
    return zlib.compressobj(search.level, zlib.DEFLATED, _RAW, _MEMORY, search.strategy)


def _looks_random(part: bytes) -> bool:
    if len(part) < 2 * _SAMPLE:
        return False
    encoder = _encoder(HUFFMAN)
    return len(encoder.compress(part[:_SAMPLE]) + encoder.flush()) >= _SAMPLE


def _stored(part: bytes) -> bytes:
    blocks = [part[at : at + _LARGEST_STORED] for at in range(0, len(part), _LARGEST_STORED)]
    return b"".join(
        _STORED.pack(0, len(block), len(block) ^ _LARGEST_STORED) + block for block in blocks
    )
