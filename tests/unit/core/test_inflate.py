"""Deflated parts are one stream for any inflater, and streams inflate within bounds."""

from __future__ import annotations

import tracemalloc
import zlib
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.wire import decode
from flasc_core.wire import inflate as inflate_module
from flasc_core.wire.inflate import deflate, inflate
from tests.unit.core.builders import a_payload, limits_of

ENGINES = {"stdlib": zlib, "whichever is installed": inflate_module.fast_zlib()}


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=4), st.booleans())
def test_deflated_parts_are_one_stream_for_any_inflater(parts: list[bytes], large: bool) -> None:
    if large:
        parts = [np.random.default_rng(3).bytes(70_000), *parts]
    stream = zlib.decompressobj(-15)
    assert stream.decompress(deflate(parts)) == b"".join(parts)
    assert stream.eof
    assert not stream.unused_data


def test_random_bytes_at_the_front_are_stored() -> None:
    noise, text = np.random.default_rng(3).bytes(70_000), bytes(70_000)
    assert noise[:1000] in deflate([noise, text])
    assert len(deflate([noise, text])) < 80_000
    assert len(deflate([text, text])) < 20_000


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize(
    ("data", "limit", "reason"),
    [
        (deflate([bytes(101)]), 100, Reason.DECOMPRESS_LIMIT),
        (deflate([bytes(10**7)], inflate_module.RUNS), 100, Reason.DECOMPRESS_LIMIT),
        (deflate([bytes(100)])[:-1], 100, Reason.MALFORMED_MESSAGE),
        (deflate([bytes(100)]) + b"\0", 100, Reason.MALFORMED_MESSAGE),
        (b"\xff\xff\xff", 100, Reason.MALFORMED_MESSAGE),
        (b"", 100, Reason.MALFORMED_MESSAGE),
        (zlib.compress(bytes(100)), 100, Reason.MALFORMED_MESSAGE),
    ],
)
def test_a_bad_stream_is_refused(
    engine: ModuleType, data: bytes, limit: int, reason: Reason
) -> None:
    with pytest.raises(Refusal) as refusal:
        inflate(data, limit=limit, field="value_data", engine=engine)
    assert refusal.value.reason is reason


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_stream_up_to_its_limit_is_read(engine: ModuleType, size: int) -> None:
    assert inflate(deflate([bytes(size)]), limit=100, field="gap_high", engine=engine) == bytes(
        size
    )


def test_what_zlib_refuses_is_not_accepted_by_what_is_faster() -> None:
    # Its Huffman codes are incomplete; isal reads 200 bytes of it.
    stream = bytes.fromhex(
        "05c101010000008220f2ffe85046ab8954b24cab2c6358351949d3546c95d9ccb20dd562a532aa2a6c586d8aa10d"
        "9bd020929919d6048b31161c"
    )
    segment = packed_update_pb2.PackedSegment(
        length=200,
        nnz=200,
        index_encoding=pb.INDEX_ENCODING_DENSE,
        value_encoding=pb.VALUE_ENCODING_INT8_POW2,
        value_compression=pb.COMPRESSION_DEFLATE,
        value_data=stream,
        block_size=200,
        block_exponents=b"\0",
    )
    with pytest.raises(Refusal, match="no DEFLATE"):
        decode(a_payload(segment.SerializeToString(), dim=200), limits_of(200))


def test_a_bomb_is_refused_in_little_memory() -> None:
    bomb = deflate([bytes(10**8)], inflate_module.RUNS)
    tracemalloc.start()
    try:
        with pytest.raises(Refusal):
            inflate(bomb, limit=65_536, field="value_data")
        # zlib keeps a copy of what it has not read.
        assert tracemalloc.get_traced_memory()[1] < len(bomb) + 4 * 65_536
    finally:
        tracemalloc.stop()
