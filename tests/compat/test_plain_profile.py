"""The plain profile never changes: golden payloads are read, and written again byte for byte."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flasc_core.pb.v1 import sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, decode, encode

HERE = Path(__file__).parent
DESCRIBED: dict[str, dict[str, Any]] = json.loads((HERE / "plain.json").read_text(encoding="utf-8"))


def payload_of(name: str) -> bytes:
    packed = HERE / "plain" / f"{name}.bin.gz"
    if packed.exists():
        return gzip.decompress(packed.read_bytes())
    return (HERE / "plain" / f"{name}.bin").read_bytes()


def vector_of(name: str) -> SparseVector:
    described = DESCRIBED[name]
    if "every" in described:
        indices = np.arange(described["count"], dtype=np.int64) * described["every"]
        bits = described["all_values"] * described["count"]
    else:
        indices = np.array(described["indices"], dtype=np.int64)
        bits = "".join(described["values"])
    values = np.frombuffer(bytes.fromhex(bits), dtype="<f4").astype(np.float32)
    return SparseVector(dim=described["dim"], indices=indices, values=values)


def test_every_file_is_described_and_every_description_has_its_file() -> None:
    files = {path.name.split(".")[0] for path in (HERE / "plain").iterdir()}
    assert files == set(DESCRIBED)


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_golden_payload_is_read_as_its_vector(name: str) -> None:
    dim = DESCRIBED[name]["dim"]
    limits = DecodeLimits(dim=dim, max_nnz=dim, max_abs_value=64.0, min_nnz=0)
    assert decode(payload_of(name), limits) == vector_of(name)


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_golden_vector_is_written_as_its_payload(name: str) -> None:
    assert encode(vector_of(name)) == payload_of(name)


@pytest.mark.parametrize("name", DESCRIBED)
def test_protobuf_reads_our_payload_as_the_golden_one_and_writes_it_the_same(name: str) -> None:
    ours = sparse_update_pb2.SparseUpdate.FromString(encode(vector_of(name)))
    assert ours == sparse_update_pb2.SparseUpdate.FromString(payload_of(name))
    assert ours.SerializeToString() == payload_of(name)
