"""The decoder of docs/ reads what ours reads, bit for bit, and refuses what ours refuses."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flasc_core.errors import Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, encode
from tests.compat.test_compact_profile import DESCRIBED, HERE
from tests.support.patience import PATIENCE_SECONDS
from tests.support.reference import REFERENCE, REFERENCE_PATH, check_agreement
from tests.unit.core.builders import DENSE, a_payload, a_segment, sparse_vectors

DIM = 400
LIMITS = DecodeLimits(dim=DIM, max_nnz=DIM, max_abs_value=2.0**100, min_nnz=0)
encodings = st.sampled_from([Encoding.parse(name) for name in Encoding.names()])


def varint(number: int, *, size: int = 1) -> bytes:
    """The number in `size` bytes or as many more as it takes."""
    out = bytearray()
    while number >= 0x80 or len(out) + 1 < size:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, kind: int, content: bytes = b"", *, tag_size: int = 1) -> bytes:
    return varint(number << 3 | kind, size=tag_size) + content


sizes = st.integers(1, 11)
numbers = st.sampled_from([0, 1, 2, 3, 5, 24, 64, 127, 128, 400]) | st.builds(
    lambda small, bit: small + (1 << bit), st.integers(0, 6), st.sampled_from([31, 32, 33, 63, 64])
)
# As wide as it must be, as it may be, and wider.
varints = st.builds(lambda number, size: varint(number, size=size), numbers, sizes)
floats = st.sampled_from(
    ["0000c03f", "00000000", "00000080", "0000c07f", "010080ff", "0000807f", "ffffff7f", "0000"]
).map(bytes.fromhex)
contents = st.one_of(
    st.binary(max_size=4),
    st.lists(varints, max_size=4).map(b"".join),
    st.lists(floats, max_size=4).map(b"".join),
)


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    """One that a message may have, in any wire type, or something like one."""
    number = draw(st.integers(1, 16) | st.sampled_from([0, 100, 2**29 - 1, 2**29]))
    kind = draw(st.sampled_from([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7]))
    tag_size = draw(st.sampled_from([1, 1, 1, 1, 2, 5, 6]))
    if kind == 0:
        content = draw(varints)
    elif kind == 2:
        inside = draw(contents)
        content = varint(len(inside), size=draw(st.sampled_from([1, 1, 1, 2, 5, 6, 10]))) + inside
    elif kind in (1, 5):
        content = draw(st.binary(min_size=4, max_size=4) | floats) + bytes(4 if kind == 1 else 0)
    elif kind == 3 and draw(st.booleans()):
        # A whole group.
        content = draw(st.lists(fields(), max_size=2).map(b"".join)) + field(number, 4)
    else:
        content = b""
    return field(number, kind, content, tag_size=tag_size)


strange_fields = st.lists(fields(), max_size=3).map(b"".join)


@settings(max_examples=200)
@given(sparse_vectors(max_nnz=150), encodings)
def test_both_read_what_is_written(vector: SparseVector, encoding: Encoding) -> None:
    limits = DecodeLimits(dim=vector.dim, max_nnz=vector.dim, max_abs_value=2.0**100, min_nnz=0)
    assert isinstance(check_agreement(encode(vector, encoding), limits), SparseVector)


@settings(max_examples=400)
@given(
    sparse_vectors(min_nnz=1, max_nnz=150, dim=DIM),
    encodings,
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_both_make_the_same_of_a_damaged_segment(
    vector: SparseVector, encoding: Encoding, changes: list[tuple[int, int]]
) -> None:
    (segment,) = packed_update_pb2.PackedUpdate.FromString(encode(vector, encoding)).segments
    damaged = bytearray(segment)
    for position, flip in changes:
        damaged[position % len(damaged)] ^= flip
    check_agreement(a_payload(bytes(damaged), dim=DIM), LIMITS)


@settings(max_examples=1_000)
@given(sparse_vectors(min_nnz=1, max_nnz=5, dim=DIM), encodings, strange_fields, strange_fields)
def test_both_make_the_same_of_a_segment_with_strange_fields(
    vector: SparseVector, encoding: Encoding, before: bytes, after: bytes
) -> None:
    (segment,) = packed_update_pb2.PackedUpdate.FromString(encode(vector, encoding)).segments
    check_agreement(a_payload(before + segment + after, dim=DIM), LIMITS)


@settings(max_examples=500)
@given(sparse_vectors(max_nnz=5, dim=DIM), encodings, strange_fields, strange_fields)
def test_both_make_the_same_of_an_update_with_strange_fields(
    vector: SparseVector, encoding: Encoding, before: bytes, after: bytes
) -> None:
    check_agreement(before + encode(vector, encoding) + after, LIMITS)


@settings(max_examples=500)
@given(
    st.lists(floats, min_size=3, max_size=3),
    st.lists(varints, min_size=3, max_size=3),
    st.booleans(),
    st.sampled_from([b"", field(100, 0, b"\x07"), field(6, 2, b"\x00"), field(6, 2, b"\x00") * 70]),
)
@example([b"\x00\x00\xc0\x7f"] * 3, [b"\x00"] * 3, True, b"")
def test_both_make_the_same_of_any_gaps_and_values(
    values: list[bytes], gaps: list[bytes], is_packed: bool, beside: bytes
) -> None:
    head = a_segment(start=1, length=300, gaps=[], values=[])
    if is_packed:
        held = b"".join(gaps)
        arrays = field(6, 2, varint(len(held)) + held)
        arrays += field(7, 2, varint(sum(map(len, values))) + b"".join(values))
    else:
        arrays = b"".join(field(6, 0, gap) for gap in gaps)
        arrays += b"".join(field(7, 5, value) for value in values)
    check_agreement(a_payload(head + arrays + beside, dim=DIM), LIMITS)


@settings(max_examples=500)
@given(st.binary(max_size=40) | strange_fields)
@example(b"")
def test_both_make_the_same_of_any_bytes(payload: bytes) -> None:
    check_agreement(payload, LIMITS)


GROUP = field(100, 3)
END = field(100, 4)
GAP, GAP_OF_2 = field(6, 0, b"\x00"), field(6, 0, b"\x02")
VALUE = field(7, 5, bytes(4))
VALUES = b"".join(field(7, 5, struct.pack("<f", value)) for value in (0.5, -1.0, 2.0))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        a_payload(dim=0),
        a_payload(a_segment(values=[0.5, float("nan"), 2.0])),
        a_payload(a_segment(values=[0.5, float("-inf"), 2.0])),
        a_payload(a_segment(values=[], value_compression=1, value_data=b"\x00\x00\xc0\x7f" * 3)),
        a_payload(a_segment(), b""),
        a_payload(a_segment() + GROUP + END),
        GROUP + END + a_payload(a_segment()),
        a_payload(a_segment() + field(100, 0, b"\x00", tag_size=3)),
        a_payload(a_segment() + field(100, 0, b"\x00") * 64),
        a_payload(a_segment() + (GAP + VALUE) * 30),
        a_payload(*[b""] * 5_000),
        a_payload(a_segment()) + field(100, 0, b"\x00") * 4_200,
        a_payload(a_segment() + field(100, 2, varint(800_000) + bytes(800_000))),
        a_payload(a_segment(gaps=[]) + b"\x32\x07\x00\x82\x80\x80\x80\x10\x00"),
        a_payload(a_segment(gaps=[]) + GAP + field(6, 0, b"\x82\x80\x80\x80\x10") + GAP),
    ],
    ids=[
        "nothing", "no dimension", "no number", "infinity", "compact and no number",
        "an empty segment", "a group", "a group before segments", "a long tag",
        "many fields of a segment", "numbers in turns", "many segments", "many fields",
        "a long segment", "a gap of 33 bits", "an unpacked gap of 33 bits",
    ],
)  # fmt: skip
def test_both_refuse(payload: bytes) -> None:
    limits = DecodeLimits(dim=10, max_nnz=10, max_abs_value=2.0**100, min_nnz=0)
    assert isinstance(check_agreement(payload, limits), Refusal)


@pytest.mark.parametrize(
    "segment",
    [
        a_segment() + field(100, 0, b"\x00") * 56,
        a_segment(gaps=[], values=[], nnz=3) + GAP + GAP_OF_2 + GAP + VALUES,
        # Cut to 32 bits, and to 64.
        a_segment() + field(3, 0, varint(3 + 2**32)) + field(9, 0, varint(2**32)),
        a_segment() + field(1, 0, varint(1 + 2**64)) + field(2, 0, b"\x85" + b"\x80" * 8 + b"\x7e"),
        # Fields of other kinds than the message's are nobody's, and empty ones nothing.
        a_segment() + field(3, 5, bytes(4)) + field(10, 0, b"\x07") + field(6, 5, bytes(4)),
        a_segment() + field(6, 2, b"\x00") + field(7, 2, b"\x00") + field(13, 2, b"\x00"),
        a_segment(start=0, length=3, gaps=[], index_encoding=DENSE) + field(6, 2, b"\x00"),
    ],
    ids=[
        "as many fields as there may be", "numbers one by one", "33 bits", "65 bits",
        "other kinds", "empty fields", "a dense segment with an empty array",
    ],
)  # fmt: skip
def test_both_read(segment: bytes) -> None:
    limits = DecodeLimits(dim=10, max_nnz=10, max_abs_value=2.0**100, min_nnz=0)
    found = check_agreement(a_payload(segment), limits)
    assert isinstance(found, SparseVector)
    assert found.values.tolist() == [0.5, -1.0, 2.0]


@pytest.mark.parametrize(
    "segment",
    [
        a_segment(gap_high=b"\x00"),
        a_segment(gap_shift=1),
        a_segment(value_data=bytes(12)),
        a_segment(value_compression=pb.COMPRESSION_NONE, value_data=bytes(12)),
        a_segment(start=1, length=3, index_encoding=DENSE),
    ],
    ids=["two positions", "a shift alone", "two values", "values beside compact ones", "dense"],
)
def test_both_refuse_fields_of_two_ways(segment: bytes) -> None:
    payload = a_payload(segment)
    assert isinstance(check_agreement(payload, LIMITS), Refusal)
    with pytest.raises(ValueError, match="two ways"):
        REFERENCE.decode(payload)


def test_it_prints_what_a_file_holds() -> None:
    # Isolated mode: neither numpy nor protobuf nor this project can be imported.
    command = [sys.executable, "-I", "-S", str(REFERENCE_PATH)]
    found = subprocess.run(
        [*command, str(HERE / "compact" / "shift_3.bin")],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    described = DESCRIBED["shift_3"]
    lines = [
        f"{index} {value}"
        for index, value in zip(described["indices"], described["values"], strict=True)
    ]
    assert found.stdout.splitlines() == [str(described["dim"]), *lines]
