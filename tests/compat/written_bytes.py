"""What is read and written under the protobuf runtime at hand, for comparison with another's.

From the repository root: python -m tests.compat.written_bytes prints the runtime, and a digest of
every payload. AssertionError where protobuf's own classes would write other bytes than ours.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import google.protobuf
import numpy as np
from google.protobuf.internal import api_implementation

from flasc_core.pb.v1 import device_service_pb2, sparse_update_pb2
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, decode, encode

__all__ = ["digests", "main"]

HERE = Path(__file__).parent


def golden_payloads() -> Iterator[tuple[str, bytes]]:
    for path in sorted([*(HERE / "plain").iterdir(), *(HERE / "compact").iterdir()]):
        payload = path.read_bytes()
        yield (
            f"{path.parent.name}/{path.name}",
            (gzip.decompress(payload) if path.suffix == ".gz" else payload),
        )


def vectors() -> Iterator[tuple[str, SparseVector]]:
    for density in (1, 2, 4, 16, 64, 256):
        rng = np.random.default_rng(density)
        dim = 500 * density
        indices = np.sort(rng.choice(dim, 500, replace=False)).astype(np.int64)
        values = rng.standard_normal(500).astype(np.float32)
        yield f"one in {density}", SparseVector(dim=dim, indices=indices, values=values)
    many = np.arange(0, 3 * 65_540, 3, dtype=np.int64)
    edges = {
        "nothing": (9, []),
        "one value": (1, [0]),
        "the largest gap": (2**31 - 1, [0, 2**31 - 2]),
        "two segments": (int(many[-1]) + 1, many),
    }
    for name, (dim, chosen) in edges.items():
        indices = np.array(chosen, dtype=np.int64)
        values = np.resize(np.array([0.5, -0.25, 0, 3], dtype=np.float32), indices.size)
        yield name, SparseVector(dim=dim, indices=indices, values=values)


def digests() -> dict[str, str]:
    """Of every golden payload's vector, and of every payload that we write."""
    found = {}
    for name, payload in golden_payloads():
        check_protobuf_writes_the_same(payload)
        found[name] = digest_of(read(payload))
    for name, vector in vectors():
        for encoding in map(Encoding.parse, Encoding.names()):
            payload = encode(vector, encoding)
            check_protobuf_writes_the_same(payload)
            found[f"{name} as {encoding.name}"] = sha256(payload).hexdigest()
            found[f"{name} from {encoding.name}"] = digest_of(read(payload))
    return found


def check_protobuf_writes_the_same(payload: bytes) -> None:
    assert sparse_update_pb2.SparseUpdate.FromString(payload).SerializeToString() == payload


def read(payload: bytes) -> SparseVector:
    dim = sparse_update_pb2.SparseUpdate.FromString(payload).dim
    return decode(payload, DecodeLimits.of_download(dim))


def digest_of(vector: SparseVector) -> str:
    return sha256(vector.indices.tobytes() + vector.values.tobytes()).hexdigest()


def main() -> None:
    request = device_service_pb2.CheckInRequest(task_name="a", known_task_sha256=bytes(32))
    again = device_service_pb2.CheckInRequest.FromString(request.SerializeToString())
    assert again == request
    runtime = {
        "version": google.protobuf.__version__,
        "file": google.protobuf.__file__,
        "kind": api_implementation.Type(),
    }
    print(json.dumps({"runtime": runtime, "digests": digests()}))


if __name__ == "__main__":
    main()
