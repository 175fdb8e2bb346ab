"""Make the golden files of the compact profile, with protobuf, zlib and nothing of ours.

Run from the repository root: python -m tests.compat.make_compact. A file that exists must still
hold the same after inflating; a difference means that the format has changed, which it must not.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from flasc_core.pb.v1 import sparse_update_pb2 as pb

HERE: Final = Path(__file__).parent
MAX_DIM: Final = 2**31 - 1
SEGMENT_NNZ: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A vector whose values are given as they are written, and how its fields are packed.

    `numbers` are float32 bits, bfloat16 bits or int8, by the name of the encoding.
    """

    encoding: str
    dim: int
    indices: list[int]
    numbers: list[int]
    exponents: list[int] = field(default_factory=list)
    block_size: int = 64
    shift: int = 0
    index_compression: pb.Compression = pb.COMPRESSION_DEFLATE
    value_compression: pb.Compression = pb.COMPRESSION_DEFLATE
    level: int = 9
    segment_nnz: int = SEGMENT_NNZ

    def values(self) -> list[float]:
        if self.encoding == "float32":
            return [float_of(bits) for bits in self.numbers]
        if self.encoding == "bfloat16":
            return [float_of(bits << 16) for bits in self.numbers]
        per_segment = -(-self.segment_nnz // self.block_size)
        return [
            number
            * 2.0
            ** self.exponents[
                at // self.segment_nnz * per_segment + at % self.segment_nnz // self.block_size
            ]
            for at, number in enumerate(self.numbers)
        ]


def float_of(bits: int) -> float:
    (value,) = struct.unpack("<f", bits.to_bytes(4, "little"))
    return float(value)


def packed(data: bytes, compression: pb.Compression, level: int) -> bytes:
    if compression == pb.COMPRESSION_NONE:
        return data
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


WIDTH: Final = {"float32": 4, "bfloat16": 2, "int8": 1}
VALUES: Final = {
    "float32": pb.VALUE_ENCODING_FLOAT32,
    "bfloat16": pb.VALUE_ENCODING_BFLOAT16,
    "int8": pb.VALUE_ENCODING_INT8_POW2,
}


def segment_of(case: Case, first: int) -> pb.SparseSegment:
    indices = case.indices[first : first + case.segment_nnz]
    numbers = case.numbers[first : first + case.segment_nnz]
    segment = pb.SparseSegment(
        start=indices[0],
        length=indices[-1] - indices[0] + 1,
        nnz=len(indices),
        index_encoding=pb.INDEX_ENCODING_DENSE,
        value_encoding=VALUES[case.encoding],
    )
    if segment.length != segment.nnz:
        gaps = [
            index - before - 1
            for before, index in zip([indices[0] - 1, *indices], indices, strict=False)
        ]
        segment.index_encoding = pb.INDEX_ENCODING_GAPS
        if case.index_compression == pb.COMPRESSION_UNSPECIFIED:
            segment.gaps.extend(gaps)
        else:
            write_gaps(segment, gaps, case)
    width = WIDTH[case.encoding]
    octets = [(number % 256**width).to_bytes(width, "little") for number in numbers]
    data = b"".join(octets)
    if case.value_compression == pb.COMPRESSION_DEFLATE:
        data = b"".join(bytes(octet[plane] for octet in octets) for plane in range(width))
    segment.value_compression = case.value_compression
    segment.value_data = packed(data, case.value_compression, case.level)
    if case.encoding == "int8":
        blocks = -(-len(numbers) // case.block_size)
        at = first // case.segment_nnz * -(-case.segment_nnz // case.block_size)
        segment.block_size = case.block_size
        segment.block_exponents = struct.pack(f"{blocks}b", *case.exponents[at : at + blocks])
    return segment


def write_gaps(segment: pb.SparseSegment, gaps: list[int], case: Case) -> None:
    low = sum((gap % 2**case.shift) << (at * case.shift) for at, gap in enumerate(gaps))
    high = b"".join(varint(gap >> case.shift) for gap in gaps)
    segment.index_compression = case.index_compression
    segment.gap_shift = case.shift
    segment.gap_high = packed(high, case.index_compression, case.level)
    segment.gap_low = low.to_bytes((len(gaps) * case.shift + 7) // 8, "little")


def payload_of(case: Case) -> bytes:
    segments = [segment_of(case, at) for at in range(0, len(case.indices), case.segment_nnz)]
    checksum = 0
    for segment in segments:
        checksum = zlib.crc32(segment.SerializeToString(), checksum)
    return pb.SparseUpdate(dim=case.dim, segments=segments, crc32=checksum).SerializeToString()


def numbers_of(bits: int, count: int, rng: random.Random) -> list[int]:
    """Integers of which the largest of 64 mostly takes all the bits."""
    largest = 2 ** (bits - 1) - 1
    return [max(-largest, min(largest, round(rng.gauss(0, 0.3 * largest)))) for _ in range(count)]


def integer_case(bits: int, density: int) -> Case:
    """As the one of int8 is, in fewer bits."""
    rng = random.Random(f"int{bits} {density}")
    case = random_case("int8", density)
    return replace(case, numbers=numbers_of(bits, len(case.numbers), rng))


def random_case(encoding: str, density: int) -> Case:
    """A case as large as it takes to hold several blocks."""
    rng = random.Random(f"{encoding} {density}")
    nnz = 300
    dim = nnz * density
    numbers = {
        "float32": lambda: int.from_bytes(struct.pack("<f", rng.gauss(0, 1)), "little"),
        "bfloat16": lambda: int.from_bytes(struct.pack("<f", rng.gauss(0, 1))[2:], "little"),
        "int8": lambda: max(-127, min(127, round(rng.gauss(0, 40)))),
    }
    return Case(
        encoding=encoding,
        dim=dim,
        indices=sorted(rng.sample(range(dim), nnz)),
        numbers=[numbers[encoding]() for _ in range(nnz)],
        exponents=[rng.randint(-12, -8) for _ in range(-(-nnz // 64))],
        shift=max(0, density.bit_length() - 4),
    )


def int8(numbers: list[int], exponents: list[int], **changes: object) -> Case:
    step = 3
    fields: dict[str, object] = {
        "dim": step * len(numbers),
        "indices": list(range(1, step * len(numbers), step)),
        **changes,
    }
    return Case(encoding="int8", numbers=numbers, exponents=exponents, **fields)  # type: ignore[arg-type]


def two_gaps(shift: int) -> Case:
    """Two gaps that have their highest and lowest low bits set, and a high part."""
    gaps = [(1 << shift) + (1 << shift >> 1) + shift % 2, (1 << shift) * 130 % 2**30]
    indices = [7, 8 + gaps[0], 9 + gaps[0] + gaps[1]]
    return int8([1, -1, 2], [0], dim=MAX_DIM, indices=indices, shift=shift)


ONE: Final = {"dim": 1, "indices": [0]}
CASES: Final = {
    **{
        f"{encoding}_one_in_{density}": random_case(encoding, density)
        for encoding in WIDTH
        for density in (1, 2, 4, 16, 64, 256)
    },
    **{
        f"int{bits}_one_in_{density}": integer_case(bits, density)
        for bits in range(3, 8)
        for density in (1, 2, 4, 16, 64, 256)
    },
    **{
        f"int{bits}_extremes": int8([2 ** (bits - 1) - 1, 1 - 2 ** (bits - 1), 0, 1], [-1])
        for bits in range(3, 8)
    },
    **{f"shift_{shift}": two_gaps(shift) for shift in range(25)},
    "float32_one_value": Case(encoding="float32", numbers=[0x3F800000], **ONE),  # type: ignore[arg-type]
    "bfloat16_one_value": Case(encoding="bfloat16", numbers=[0x3F80], **ONE),  # type: ignore[arg-type]
    "int8_one_value": int8([1], [0], **ONE),
    "float32_explicit_zeros": Case(
        encoding="float32", dim=9, indices=[1, 3, 8], numbers=[0, 1 << 31, 0]
    ),
    "bfloat16_explicit_zeros": Case(
        encoding="bfloat16", dim=9, indices=[1, 3, 8], numbers=[0, 1 << 15, 0]
    ),
    "int8_explicit_zeros": int8([0] * 70, [0, -40]),
    "float32_extremes": Case(
        encoding="float32",
        dim=20,
        indices=[0, 4, 9, 19],
        numbers=[0x00000001, 0x80000001, 0x42800000, 0x3F800001],
    ),
    "bfloat16_extremes": Case(
        encoding="bfloat16", dim=20, indices=[0, 4, 9, 19], numbers=[0x0001, 0x8001, 0x4280, 0x3F81]
    ),
    "int8_extremes": int8([127, -127, -128, 1], [-1]),
    "exponents_of_minus_40_and_5": int8([1] * 64 + [-2] * 64, [-40, 5]),
    "a_full_block": int8(list(range(-32, 32)), [-3]),
    "a_full_block_and_one_value": int8(list(range(-32, 33)), [-3, 2]),
    "a_block_for_each_value": int8([3, 3, 3, 3], [-3, 0, 1, 4], block_size=1),
    "blocks_of_three": int8([1, 2, 3, 4, 5, 6, 7], [-3, 0, 3], block_size=3),
    "one_block_larger_than_its_segment": int8([1, 2, 3], [-3], block_size=65_536),
    "largest_gap": int8([1, 2], [0], dim=MAX_DIM, indices=[0, MAX_DIM - 1], shift=24),
    "largest_gap_without_shift": int8([1, 2], [0], dim=MAX_DIM, indices=[0, MAX_DIM - 1]),
    "last_coordinate_of_the_largest_dimension": int8([5], [0], dim=MAX_DIM, indices=[MAX_DIM - 1]),
    "several_segments": int8(
        list(range(-50, 50)), [-5, -4, -3, -2, -1, 0, 1, 0], segment_nnz=30, block_size=16
    ),
    "a_dense_segment_and_one_with_gaps": int8(
        [1, 2, 3, 4, 5], [0, -1], dim=30, indices=[2, 3, 4, 10, 20], segment_nnz=3
    ),
    "nothing_compressed": int8(
        list(range(-64, 64)),
        [-3, 2],
        shift=2,
        index_compression=pb.COMPRESSION_NONE,
        value_compression=pb.COMPRESSION_NONE,
    ),
    "float32_not_compressed": Case(
        encoding="float32",
        dim=9,
        indices=[1, 3, 8],
        numbers=[0x40490FDB, 0xBF000000, 0x3DCCCCCD],
        value_compression=pb.COMPRESSION_NONE,
    ),
    "bfloat16_not_compressed": Case(
        encoding="bfloat16",
        dim=9,
        indices=[1, 3, 8],
        numbers=[0x4049, 0xBF00, 0x3DCD],
        value_compression=pb.COMPRESSION_NONE,
    ),
    "stored_blocks": int8(list(range(-64, 64)), [-3, 2], shift=1, level=0),
    "plain_gaps_beside_compact_values": int8(
        [1, 2, 3], [-1], index_compression=pb.COMPRESSION_UNSPECIFIED
    ),
    "a_full_segment_and_one_value": Case(
        encoding="int8",
        dim=2 * SEGMENT_NNZ + 2,
        indices=list(range(0, 2 * SEGMENT_NNZ + 2, 2)),
        numbers=[1] * (SEGMENT_NNZ + 1),
        exponents=[0, 1],
        block_size=SEGMENT_NNZ,
    ),
}


def digest_of(dim: int, indices: list[int], values: list[float]) -> str:
    """SHA-256 of the dimension and the indices as int64 and the values as float32, packed."""
    digest = hashlib.sha256(struct.pack(f"<{1 + len(indices)}q", dim, *indices))
    digest.update(struct.pack(f"<{len(values)}f", *values))
    return digest.hexdigest()


def description_of(case: Case) -> dict[str, object]:
    values = case.values()
    described: dict[str, object] = {
        "dim": case.dim,
        "nnz": len(case.indices),
        "sha256": digest_of(case.dim, case.indices, values),
    }
    if len(values) <= 8:
        described["indices"] = case.indices
        described["values"] = values
    return described


def inflated(payload: bytes) -> pb.SparseUpdate:
    """The payload without what depends on the version of zlib."""
    update = pb.SparseUpdate.FromString(payload)
    update.crc32 = 0
    for segment in update.segments:
        if segment.index_compression == pb.COMPRESSION_DEFLATE:
            segment.gap_high = zlib.decompress(segment.gap_high, -15)
        if segment.value_compression == pb.COMPRESSION_DEFLATE:
            segment.value_data = zlib.decompress(segment.value_data, -15)
    return update


def write(path: Path, payload: bytes) -> None:
    if not path.exists():
        path.write_bytes(payload)
    elif inflated(path.read_bytes()) != inflated(payload):
        sys.exit(f"{path.name} would change: the format has changed")


def main() -> None:
    (HERE / "compact").mkdir(exist_ok=True)
    for name, case in CASES.items():
        write(HERE / "compact" / f"{name}.bin", payload_of(case))
    described = {name: description_of(case) for name, case in CASES.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(d)}" for name, d in described.items())
    (HERE / "compact.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
