"""Every input that a fuzzer found worth keeping is read right or refused, within its memory."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.wire import DecodeLimits, decode_segments
from flasc_core.wire.inflate import RUNS, deflate
from tests.fuzz.target import CORPUS, LIMITS, OUTCOMES, outcome_of, update_of
from tests.support.reference import check_agreement
from tests.unit.core.builders import a_payload

NNZ = 65_536
FILES = sorted(CORPUS.iterdir())
RECORDED: dict[str, str] = json.loads(OUTCOMES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:8])
def test_a_kept_input_fares_as_it_did_and_as_the_reference_decoder_says(path: Path) -> None:
    data = path.read_bytes()
    check_agreement(update_of(data), LIMITS)
    assert outcome_of(data) == RECORDED[path.name]


def test_what_comes_of_every_kept_input_is_recorded_and_of_nothing_else() -> None:
    assert set(RECORDED) == {path.name for path in FILES}


def test_the_corpus_holds_what_is_read_and_what_is_refused_for_many_reasons() -> None:
    counts = Counter(RECORDED.values())
    assert 20 < counts["ACCEPTED"] < len(FILES) - 20
    assert len(counts) > 10


def hostile(**changes: object) -> bytes:
    """A segment of as many values as there may be, in a few bytes that unpack to all it may."""
    fields: dict[str, object] = {
        "start": 0,
        "length": 2**31 - 1,
        "nnz": NNZ,
        "index_encoding": pb.INDEX_ENCODING_GAPS,
        "value_encoding": pb.VALUE_ENCODING_INT8_POW2,
        "index_compression": pb.COMPRESSION_DEFLATE,
        # Zeros in five bytes each, which protobuf allows.
        "gap_high": deflate([b"\x80\x80\x80\x80\x00" * NNZ], RUNS),
        "value_compression": pb.COMPRESSION_DEFLATE,
        "value_data": deflate([bytes(NNZ)], RUNS),
        "block_size": 1,
        "block_exponents": bytes(NNZ),
        **changes,
    }
    segment = packed_update_pb2.PackedSegment(**fields)  # type: ignore[arg-type]
    return a_payload(segment.SerializeToString(), dim=2**31 - 1)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, None),
        ({"gap_shift": 24, "gap_low": b"\xff" * (3 * NNZ)}, Reason.INDEX_RANGE),
        (
            {
                "value_encoding": pb.VALUE_ENCODING_FLOAT32,
                "value_data": deflate([bytes(4 * NNZ)], RUNS),
                "block_size": 0,
                "block_exponents": b"",
            },
            None,
        ),
        ({"gap_high": deflate([bytes(10**8)], RUNS)}, Reason.DECOMPRESS_LIMIT),
        ({"value_data": deflate([bytes(10**8)], RUNS)}, Reason.DECOMPRESS_LIMIT),
        ({"gap_high": deflate([b"\x80" * (5 * NNZ)], RUNS)}, Reason.MALFORMED_MESSAGE),
    ],
)
def test_the_most_demanding_segment_takes_two_mebibytes(
    changes: dict[str, object], outcome: Reason | None
) -> None:
    payload = hostile(**changes)
    limits = DecodeLimits(dim=2**31 - 1, max_nnz=NNZ, max_abs_value=64.0)
    found = None
    tracemalloc.start()
    try:
        for _ in decode_segments(payload, limits):
            pass
    except Refusal as refusal:
        found = refusal.reason
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 * 2**20
    assert found is outcome
