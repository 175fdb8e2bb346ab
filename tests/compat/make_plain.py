"""Make the golden files of the plain profile, with protobuf's own classes and nothing of ours.

Run from the repository root: python tests/compat/make_plain.py. Files that exist must come out the
same; a difference means that the format has changed, which it must not.
"""

from __future__ import annotations

import gzip
import json
import random
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flasc_core.pb.v1 import sparse_update_pb2 as pb

HERE: Final = Path(__file__).parent
MAX_DIM: Final = 2**31 - 1
SEGMENT_NNZ: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A vector, and the payload that the plain profile gives it."""

    dim: int
    indices: list[int]
    values: list[float]


def ones(dim: int, indices: list[int]) -> Case:
    return Case(dim=dim, indices=indices, values=[1.0] * len(indices))


def one_in(density: int) -> Case:
    rng = random.Random(f"plain {density}")
    nnz, dim = 90, 90 * density
    return Case(
        dim=dim,
        indices=sorted(rng.sample(range(dim), nnz)),
        values=[rng.gauss(0, 1) for _ in range(nnz)],
    )


CASES: Final = {
    **{f"one_in_{density}": one_in(density) for density in (1, 2, 4, 16, 64, 256)},
    "empty": ones(10, []),
    "one_coordinate_in_all": ones(1, [0]),
    "first_coordinate": ones(10, [0]),
    "last_coordinate": ones(10, [9]),
    "both_ends": ones(10, [0, 9]),
    "dense_all": Case(dim=5, indices=list(range(5)), values=[0.5, -1.0, 2.0, -4.0, 8.0]),
    "dense_run_inside": Case(dim=10, indices=[3, 4, 5], values=[0.5, -1.0, 2.0]),
    "every_other_coordinate": ones(20, list(range(1, 20, 2))),
    "explicit_zeros": Case(dim=10, indices=[1, 3, 5], values=[0.0, -0.0, 1.0]),
    "gap_of_127": ones(1000, [5, 5 + 128]),
    "gap_of_128": ones(1000, [5, 5 + 129]),
    "gap_of_16383": ones(20_000, [5, 5 + 16_384]),
    "gap_of_16384": ones(20_000, [5, 5 + 16_385]),
    "gap_of_2097151": ones(3_000_000, [5, 5 + 2_097_152]),
    "gap_of_2097152": ones(3_000_000, [5, 5 + 2_097_153]),
    "gap_of_268435455": ones(MAX_DIM, [5, 5 + 268_435_456]),
    "gap_of_268435456": ones(MAX_DIM, [5, 5 + 268_435_457]),
    "largest_gap": ones(MAX_DIM, [0, MAX_DIM - 1]),
    "largest_dimension_last_coordinate": ones(MAX_DIM, [MAX_DIM - 1]),
    "extreme_values": Case(
        dim=10,
        indices=[0, 2, 3, 5, 7, 9],
        values=[2.0**-149, -(2.0**-149), 2.0**-126, 64.0, -64.0, 1 + 2.0**-23],
    ),
    "full_segment": ones(2 * SEGMENT_NNZ, list(range(0, 2 * SEGMENT_NNZ, 2))),
    "two_segments": ones(2 * SEGMENT_NNZ + 1, list(range(0, 2 * SEGMENT_NNZ + 1, 2))),
    "two_dense_segments": ones(SEGMENT_NNZ + 2, list(range(SEGMENT_NNZ + 2))),
}


def segment_of(indices: list[int], values: list[float]) -> pb.SparseSegment:
    start, length = indices[0], indices[-1] - indices[0] + 1
    segment = pb.SparseSegment(
        start=start,
        length=length,
        nnz=len(indices),
        index_encoding=pb.INDEX_ENCODING_DENSE,
        value_encoding=pb.VALUE_ENCODING_FLOAT32,
        values=values,
    )
    if length != len(indices):
        segment.index_encoding = pb.INDEX_ENCODING_GAPS
        previous = start - 1
        for index in indices:
            segment.gaps.append(index - previous - 1)
            previous = index
    return segment


def payload_of(case: Case) -> bytes:
    parts = range(0, len(case.indices), SEGMENT_NNZ)
    segments = [
        segment_of(case.indices[at : at + SEGMENT_NNZ], case.values[at : at + SEGMENT_NNZ])
        for at in parts
    ]
    checksum = 0
    for segment in segments:
        checksum = zlib.crc32(segment.SerializeToString(), checksum)
    return pb.SparseUpdate(dim=case.dim, segments=segments, crc32=checksum).SerializeToString()


def description_of(case: Case) -> dict[str, object]:
    """Indices and float32 bits in full, or their rule where there are too many to read."""
    bits = [struct.pack("<f", value).hex() for value in case.values]
    if len(case.indices) > 100:
        step = case.indices[1] - case.indices[0]
        return {
            "dim": case.dim,
            "every": step,
            "count": len(case.indices),
            "all_values": bits[0],
        }
    return {"dim": case.dim, "indices": case.indices, "values": bits}


def write(path: Path, data: bytes) -> None:
    packed = path.suffix == ".gz"
    if path.exists():
        # Deflate is free to give other bytes for the same content, so content is compared.
        held = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        if held != data:
            sys.exit(f"{path.name} would change: the format has changed")
    else:
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)


def main() -> None:
    for name, case in CASES.items():
        payload = payload_of(case)
        suffix = "bin.gz" if len(payload) > 10_000 else "bin"
        write(HERE / "plain" / f"{name}.{suffix}", payload)
    described = {name: description_of(case) for name, case in CASES.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(d)}" for name, d in described.items())
    (HERE / "plain.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
