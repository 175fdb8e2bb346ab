"""Decodes any flasc.v1.SparseUpdate with Python's standard library alone.

Written to be read beside wire-format.md, one number at a time; it is not fast. Everything that is
wrong with a payload is a ValueError, and whatever this project's own decoder refuses of it whatever
the task is wrong. To see what a file holds: python reference_decoder.py FILE
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

# A field's number, its wire type, and the bytes of its value.
Field = tuple[int, int, bytes]
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
GAPS, DENSE = 2, 1
FLOAT32, BFLOAT16, INT8_POW2 = 1, 2, 3
NONE, DEFLATE = 1, 2
WIDTH = {FLOAT32: 4, BFLOAT16: 2, INT8_POW2: 1}
LARGEST_FLOAT32 = (2 - 2.0**-23) * 2.0**127
# The wire types of the fields of SparseUpdate and SparseSegment; arrays are packed or not.
UPDATE: dict[int, tuple[int, ...]] = {1: (VARINT,), 2: (BYTES,), 3: (FIXED32,)}
SEGMENT = {
    **dict.fromkeys((1, 2, 3, 4, 5, 8, 9, 12, 14), (VARINT,)),
    **dict.fromkeys((10, 11, 13, 15), (BYTES,)),
    6: (BYTES, VARINT),
    7: (BYTES, FIXED32),
}


def decode(
    payload: bytes, max_abs_value: float = LARGEST_FLOAT32
) -> tuple[int, list[int], list[float]]:
    """Return the vector's dimension, the indices of its nonzeros, and their values."""
    held = list(read_fields(payload))
    fields = known(held, UPDATE)
    dim = number(fields, 1, bits=64)
    segments = blobs(fields, 2)
    check(dim > 0, "an update has a dimension")
    most = dim // 65_536 + 4_096
    check(len(segments) <= most and len(held) <= most + 64, "an update has too many fields")
    check(
        zlib.crc32(b"".join(segments)) == int.from_bytes(blob(fields, 3), "little"),
        "the checksum differs",
    )
    indices: list[int] = []
    values: list[float] = []
    end = 0
    for segment in segments:
        check(len(segment) <= 12 * 65_536, "a segment is too long")
        held = list(read_fields(segment))
        check(count_fields(held) <= 64, "a segment has too many fields")
        parts = known(held, SEGMENT)
        start, length = (number(parts, field, bits=64) for field in (1, 2))
        nnz = number(parts, 3)
        check(end <= start and start + length <= dim, "segments overlap or leave the vector")
        check(0 < nnz <= min(length, 65_536), "a segment has a wrong number of nonzeros")
        check_fields(parts)
        end = start + length
        values += read_values(parts, nnz, max_abs_value)
        indices += read_indices(parts, nnz, start, length)
    # Which also leaves out what is no number, as that compares with nothing.
    check(all(abs(value) <= max_abs_value for value in values), "a value is out of range")
    return dim, indices, values


def count_fields(fields: list[Field]) -> int:
    """An array's numbers that are written one by one, one after another, count once."""
    kinds = [(field, kind) for field, kind, _ in fields]
    return sum(
        here != before or here not in ((6, VARINT), (7, FIXED32))
        for here, before in zip(kinds, [None, *kinds], strict=False)
    )


def check_fields(parts: list[Field]) -> None:
    """A segment has positions in one way and values in one way, and nothing of another."""
    dense, compact = number(parts, 4) == DENSE, number(parts, 8) > 0
    used = set() if dense else {8, 9, 10, 11} if compact else {6}
    if number(parts, 12):
        used |= {12, 13, 14, 15} if number(parts, 5) == INT8_POW2 else {12, 13}
    else:
        used |= {7}
    # A number of zero, empty bytes and an empty array are as if they were not there.
    held = {field for field in (8, 9, 12, 14) if number(parts, field)}
    held |= {field for field in (10, 11, 13, 15) if blob(parts, field)}
    held |= {field for field, _, value in parts if field in (6, 7) and value != b""}
    check(held <= used, "fields of two ways in one segment")


def read_indices(parts: list[Field], nnz: int, start: int, length: int) -> list[int]:
    """index[0] = start + gap[0]; index[i] = index[i - 1] + 1 + gap[i]."""
    if number(parts, 4) == DENSE:
        check(nnz == length, "a dense segment has a value for every coordinate")
        return list(range(start, start + length))
    check(number(parts, 4) == GAPS, "unknown index encoding")
    if number(parts, 8):
        gaps = read_compact_gaps(parts, nnz)
    else:
        # Packed, split into several packed parts, or written one by one.
        gaps = [gap for array in blobs(parts, 6) for gap in read_varints(array, 5)]
    check(len(gaps) == nnz, "as many gaps as nonzeros")
    indices = []
    position = start - 1
    for gap in gaps:
        check(gap < 1 << 32, "a gap fits 32 bits")
        position += 1 + gap
        indices.append(position)
    check(position < start + length, "an index lies beyond its segment")
    return indices


def read_compact_gaps(parts: list[Field], nnz: int) -> list[int]:
    shift = number(parts, 9)
    check(shift <= 24, "gap_shift is at most 24")
    high = list(read_varints(unpacked(blob(parts, 10), number(parts, 8), limit=5 * nnz), 5))
    low = blob(parts, 11)
    check(len(low) == (nnz * shift + 7) // 8, "gap_low has a wrong size")
    bits = int.from_bytes(low, "little")
    mask = (1 << shift) - 1
    return [gap << shift | bits >> (at * shift) & mask for at, gap in enumerate(high)]


def read_values(parts: list[Field], nnz: int, max_abs_value: float) -> list[float]:
    encoding, compression = number(parts, 5), number(parts, 12)
    check(encoding in WIDTH, "unknown value encoding")
    if not compression:
        check(encoding == FLOAT32, "only float32 is written without naming a compression")
        plain = [value for packed in blobs(parts, 7) for value in floats(packed)]
        check(len(plain) == nnz, "as many values as nonzeros")
        return plain
    width = WIDTH[encoding]
    data = unpacked(blob(parts, 13), compression, limit=nnz * width)
    check(len(data) == nnz * width, "value_data has a wrong size")
    if compression == DEFLATE:
        # The least significant bytes of all values, then the next ones, and so on.
        data = bytes(data[plane * nnz + at] for at in range(nnz) for plane in range(width))
    if encoding == FLOAT32:
        return floats(data)
    if encoding == BFLOAT16:
        # The upper half of a float32.
        return floats(b"".join(bytes(2) + data[at : at + 2] for at in range(0, 2 * nnz, 2)))
    size, exponents = number(parts, 14), blob(parts, 15)
    check(0 < size <= 65_536 and len(exponents) == -(-nnz // size), "one exponent for each block")
    powers = struct.unpack(f"{len(exponents)}b", exponents)
    check(all(abs(power) <= 40 for power in powers), "exponents go from -40 to 40")
    check(2.0 ** max(powers) <= max_abs_value, "a step is beyond the largest value")
    return [q * 2.0 ** powers[at // size] for at, q in enumerate(struct.unpack(f"{nnz}b", data))]


def unpacked(data: bytes, compression: int, limit: int) -> bytes:
    if compression == NONE:
        return data
    check(compression == DEFLATE, "unknown compression")
    stream = zlib.decompressobj(-15)
    try:
        # One byte more than allowed is asked for, since 0 means no limit.
        out = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError("no DEFLATE stream") from error
    check(len(out) <= limit, "a field unpacks to too much")
    check(stream.eof and not stream.unused_data, "a field does not end where its stream does")
    return out


# --- as much of protobuf as it takes ------------------------------------------------------------


def read_fields(message: bytes) -> Iterator[Field]:
    at = 0
    while at < len(message):
        start = at
        tag, at = read_varint(message, at, longest=5)
        field, kind = tag >> 3, tag & 7
        check(kind in (VARINT, FIXED64, BYTES, FIXED32), "no such wire type, or a group")
        check(0 < field < 1 << 29, "no such field")
        check(at - start == 1 or message[at - 1] > 0, "a tag is longer than it must be")
        size = {FIXED64: 8, FIXED32: 4}.get(kind, 0)
        if kind == VARINT:
            size = read_varint(message, at, longest=10)[1] - at
        elif kind == BYTES:
            size, at = read_varint(message, at, longest=5)
        check(at + size <= len(message), "a field is cut off")
        yield field, kind, message[at : at + size]
        at += size


def known(fields: list[Field], kinds: dict[int, tuple[int, ...]]) -> list[Field]:
    """Return those of a number and wire type that the message has; others are ignored."""
    return [field for field in fields if field[1] in kinds.get(field[0], ())]


def read_varint(data: bytes, at: int, longest: int) -> tuple[int, int]:
    value = 0
    for place in range(longest):
        check(at + place < len(data), "a varint is cut off")
        octet = data[at + place]
        value |= (octet & 0x7F) << 7 * place
        if octet < 0x80:
            return value, at + place + 1
    raise ValueError("a varint is too long")


def read_varints(data: bytes, longest: int) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = read_varint(data, at, longest)
        yield value


def floats(data: bytes) -> list[float]:
    check(len(data) % 4 == 0, "the last value is cut off")
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def number(fields: list[Field], wanted: int, bits: int = 32) -> int:
    """The last one counts, cut to its width, and a field that is left out is zero."""
    return read_varint(blob(fields, wanted) or b"\0", 0, longest=10)[0] % (1 << bits)


def blob(fields: list[Field], wanted: int) -> bytes:
    return (blobs(fields, wanted) or [b""])[-1]


def blobs(fields: list[Field], wanted: int) -> list[bytes]:
    return [value for field, _, value in fields if field == wanted]


def check(right: bool, message: str) -> None:
    if not right:
        raise ValueError(message)


if __name__ == "__main__":
    dim, indices, values = decode(Path(sys.argv[1]).read_bytes())
    print(dim)
    for index, value in zip(indices, values, strict=True):
        print(index, value)
