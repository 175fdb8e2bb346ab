"""The compact profile never changes: golden payloads are read by both readers, then and now."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st

from flasc_core.errors import Refusal
from flasc_core.pb.internal.v1 import packed_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, decode, encode, quantize
from tests.support.patience import PATIENCE_SECONDS
from tests.unit.core.builders import a_payload, a_segment, sparse_vectors

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
DESCRIBED: dict[str, dict[str, Any]] = json.loads(
    (HERE / "compact.json").read_text(encoding="utf-8")
)
ROUNDED: dict[str, str] = json.loads((HERE / "rounded.json").read_text(encoding="utf-8"))
PLAIN = sorted((HERE / "plain").iterdir())
encodings = st.sampled_from([Encoding.parse(name) for name in Encoding.names()])


def load_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "reference_decoder", DOCS / "reference_decoder.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load_reference()


def limits_of(dim: int) -> DecodeLimits:
    return DecodeLimits(dim=dim, max_nnz=dim, max_abs_value=2.0**100, min_nnz=0)


def digest_of(dim: int, indices: list[int], values: list[float]) -> str:
    digest = hashlib.sha256(struct.pack(f"<{1 + len(indices)}q", dim, *indices))
    digest.update(struct.pack(f"<{len(values)}f", *values))
    return digest.hexdigest()


def vector_digest(vector: SparseVector) -> str:
    return digest_of(vector.dim, vector.indices.tolist(), vector.values.tolist())


def a_varied_vector() -> SparseVector:
    """Values of every scale, by integer arithmetic that is the same everywhere."""
    numbers = np.arange(1, 2561, dtype=np.int64)
    mixed = numbers * 2_654_435_761 % 2**32
    values = (mixed - 2**31) / 2.0**31 * 2.0 ** (-(mixed >> 7) % 12.0)
    values[640:900] *= 2.0**-15
    values[900:950] *= 2.0**6
    values[1000] = 0
    # Half of the blocks are louder than the other half, so that the middle is between two.
    values[1344:] *= 4
    return SparseVector(dim=7681, indices=3 * numbers, values=values.astype(np.float32))


def test_every_file_is_described_and_every_description_has_its_file() -> None:
    assert {path.stem for path in (HERE / "compact").iterdir()} == set(DESCRIBED)


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_golden_payload_is_read_as_its_vector(name: str) -> None:
    described = DESCRIBED[name]
    payload = (HERE / "compact" / f"{name}.bin").read_bytes()
    vector = decode(payload, limits_of(described["dim"]))
    assert vector.nnz == described["nnz"]
    assert vector_digest(vector) == described["sha256"]
    if "indices" in described:
        assert vector.indices.tolist() == described["indices"]
        assert vector.values.tolist() == described["values"]


@pytest.mark.parametrize("name", DESCRIBED)
def test_the_reference_decoder_reads_every_golden_payload(name: str) -> None:
    found = REFERENCE.decode((HERE / "compact" / f"{name}.bin").read_bytes())
    assert digest_of(*found) == DESCRIBED[name]["sha256"]


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.name)
def test_the_reference_decoder_reads_the_plain_profile_too(path: Path) -> None:
    payload = path.read_bytes()
    payload = gzip.decompress(payload) if path.suffix == ".gz" else payload
    dim, indices, values = REFERENCE.decode(payload)
    assert digest_of(dim, indices, values) == vector_digest(decode(payload, limits_of(dim)))


@pytest.mark.parametrize("name", ROUNDED)
def test_an_encoding_rounds_as_it_always_has(name: str) -> None:
    assert vector_digest(quantize(a_varied_vector(), Encoding.parse(name))) == ROUNDED[name]


def test_every_encoding_has_its_rounding_recorded() -> None:
    assert tuple(ROUNDED) == Encoding.names()


def test_the_reference_decoder_prints_what_a_file_holds() -> None:
    # Isolated mode: neither numpy nor protobuf nor this project can be imported.
    command = [sys.executable, "-I", "-S", str(DOCS / "reference_decoder.py")]
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


# --- the two readers against each other ---------------------------------------------------------


@settings(max_examples=200)
@given(sparse_vectors(max_nnz=150), encodings)
def test_both_readers_agree_on_what_is_written(vector: SparseVector, encoding: Encoding) -> None:
    payload = encode(vector, encoding)
    found = REFERENCE.decode(payload)
    assert digest_of(*found) == vector_digest(decode(payload, limits_of(vector.dim)))


@settings(max_examples=400)
@given(
    sparse_vectors(min_nnz=1, max_nnz=150, dim=400),
    encodings,
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_what_is_read_of_a_damaged_segment_the_reference_decoder_reads_the_same(
    vector: SparseVector, encoding: Encoding, changes: list[tuple[int, int]]
) -> None:
    (segment,) = packed_update_pb2.PackedUpdate.FromString(encode(vector, encoding)).segments
    damaged = bytearray(segment)
    for position, flip in changes:
        damaged[position % len(damaged)] ^= flip
    payload = a_payload(bytes(damaged), dim=400)
    try:
        read = decode(payload, limits_of(400))
    except Refusal:
        return
    # Damage may name a field of a kind that protobuf skips and the reference decoder does not know.
    if len(UnknownFieldSet(packed_update_pb2.PackedSegment.FromString(bytes(damaged)))):
        return
    assert digest_of(*REFERENCE.decode(payload)) == vector_digest(read)


@pytest.mark.parametrize(
    "segment",
    [
        a_segment(gap_high=b"\x00"),
        a_segment(gap_shift=1),
        a_segment(value_data=bytes(12)),
        a_segment(value_compression=1, value_data=bytes(12)),
        a_segment(start=1, length=3, index_encoding=1),
    ],
    ids=["two positions", "a shift alone", "two values", "values beside compact ones", "dense"],
)
def test_fields_of_two_ways_are_refused_by_both_decoders(segment: bytes) -> None:
    payload = a_payload(segment)
    with pytest.raises(Refusal):
        decode(payload, limits_of(10))
    with pytest.raises(ValueError, match="two ways"):
        REFERENCE.decode(payload)
