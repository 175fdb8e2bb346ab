"""Unsigned 32-bit numbers as protobuf varints, a whole array at a time."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.errors import Reason, Refusal

__all__ = ["CONTINUED", "MAX_VARINT", "read_varints", "write_varints"]

# Of a varint's byte: another one follows.
CONTINUED: Final = 0x80
_BITS: Final = 0x7F
# A 32-bit number takes five bytes of seven bits at most.
MAX_VARINT: Final = 5
# Bytes that are taken apart at once: numbers of five bytes, whose places take 60 bytes each, then
# need less than half a mebibyte, and those of two are read faster than in larger chunks.
_CHUNK: Final = 1 << 13


def write_varints(numbers: NDArray[np.int64]) -> bytes:
    """Return numbers in [0, 2**32) as the payload of a packed `repeated uint32`."""
    out = numbers.astype(np.uint8)
    if not numbers.size or int(numbers.max()) < CONTINUED:
        return out.tobytes()
    # Most numbers take one byte: what the others have beyond their first is put in between.
    at = np.flatnonzero(numbers >= CONTINUED)
    rest = numbers[at] >> 7
    out[at] |= CONTINUED
    places, octets = [], []
    while rest.size:
        more = rest >= CONTINUED
        places.append(at + 1)
        octets.append(np.where(more, rest | CONTINUED, rest).astype(np.uint8))
        at, rest = at[more], rest[more] >> 7
    return np.insert(out, np.concatenate(places), np.concatenate(octets)).tobytes()


def read_varints(payload: bytes | memoryview, count: int) -> NDArray[np.int64]:
    """Return the `count` numbers that `payload` holds.

    Refuses LENGTH_MISMATCH unless it holds exactly that many, MALFORMED_MESSAGE for a varint that
    is cut off or too long, and INDEX_RANGE for a number of 2**32 or more.
    """
    octets = np.frombuffer(payload, dtype=np.uint8)
    if octets.size and octets[-1] & CONTINUED:
        raise Refusal(Reason.MALFORMED_MESSAGE, "the last varint is cut off", field="gaps")
    held = int(np.count_nonzero(octets < CONTINUED))
    if held != count:
        raise Refusal(
            Reason.LENGTH_MISMATCH, f"{held} gaps for {count} nonzeros", held=held, nnz=count
        )
    if octets.size == count:
        return octets.astype(np.int64)
    numbers = np.empty(count, dtype=np.int64)
    # It is what goes on beyond its first byte that takes room.
    step = _CHUNK if octets.size - count > _CHUNK else octets.size
    done = start = 0
    while start < octets.size:
        chunk = octets[start : _whole(octets, start + step)]
        start += chunk.size
        done += _read_chunk(chunk, numbers[done:])
    return numbers


def _whole(octets: NDArray[np.uint8], end: int) -> int:
    """The last position up to `end` where a number ends."""
    if end >= octets.size:
        return octets.size
    for whole in range(end, end - MAX_VARINT, -1):
        if octets[whole - 1] < CONTINUED:
            return whole
    raise Refusal(Reason.MALFORMED_MESSAGE, "a varint has more than 5 bytes", field="gaps")


def _read_chunk(octets: NDArray[np.uint8], out: NDArray[np.int64]) -> int:
    """Write the chunk's numbers to the front of `out`; return how many."""
    last = octets < CONTINUED
    continued = np.flatnonzero(~last)
    count = octets.size - continued.size
    numbers = out[:count]
    numbers[:] = octets[last]
    if continued.size:
        _add_continued(numbers, octets, continued)
    return count


def _add_continued(
    numbers: NDArray[np.int64], octets: NDArray[np.uint8], continued: NDArray[np.int64]
) -> None:
    """Complete `numbers`, which hold last bytes only, with the bytes at `continued`."""
    # A byte at position p with c continued bytes before it belongs to number p - c, so equal
    # owners are the bytes of one number.
    owners = continued - np.arange(continued.size)
    firsts = np.flatnonzero(np.concatenate(([True], owners[1:] != owners[:-1])))
    extra = np.diff(firsts, append=continued.size)
    if int(extra.max()) >= MAX_VARINT:
        raise Refusal(Reason.MALFORMED_MESSAGE, "a varint has more than 5 bytes", field="gaps")
    position = np.arange(continued.size) - np.repeat(firsts, extra)
    parts = (octets[continued].astype(np.int64) & _BITS) << (7 * position)
    owners = owners[firsts]
    completed = (numbers[owners] << (7 * extra)) + np.add.reduceat(parts, firsts)
    if int(completed.max()) >= 1 << 32:
        raise Refusal(Reason.INDEX_RANGE, "a gap does not fit 32 bits", field="gaps")
    numbers[owners] = completed
