"""What a task does not list is refused, and what it lists never is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flasc_core.errors import Reason, Refusal
from flasc_core.pb.v1 import sparse_update_pb2 as pb
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, ValueEncoding, decode, encode, quantize
from flasc_core.wire.values import Pow2Blocks, to_pow2, written_bits
from tests.unit.core.builders import a_payload, a_segment, a_vector, sparse_vectors

NAMES = Encoding.names()
encodings = st.sampled_from([Encoding.parse(name) for name in NAMES])


def accepting(*names: str, dim: int = 10) -> DecodeLimits:
    return DecodeLimits(
        dim=dim,
        max_nnz=dim,
        max_abs_value=2.0**40,
        min_nnz=0,
        encodings=frozenset(map(Encoding.parse, names)),
    )


def some_vector(nnz: int = 500, *, scale: float = 0.01) -> SparseVector:
    values = np.random.default_rng(nnz).standard_normal(nnz) * scale
    return a_vector(range(1, 2 * nnz, 2), values, dim=2 * nnz)


def is_coarser(written: str, listed: str) -> bool:
    """Whether both are integers; what has fewer bits may come of a writer's larger blocks."""
    one, other = Encoding.parse(written), Encoding.parse(listed)
    return one.value is other.value is ValueEncoding.INT8_POW2 and one.bits < other.bits


@pytest.mark.parametrize("written", NAMES)
@pytest.mark.parametrize("listed", NAMES)
def test_an_update_is_read_if_it_is_plain_or_written_as_listed(written: str, listed: str) -> None:
    vector = some_vector()
    payload = encode(vector, Encoding.parse(written))
    limits = accepting(listed, dim=vector.dim)
    if written in ("plain", listed) or is_coarser(written, listed):
        assert decode(payload, limits) == quantize(vector, Encoding.parse(written))
        return
    with pytest.raises(Refusal) as refusal:
        decode(payload, limits)
    assert refusal.value.reason is Reason.VALUE_FORMAT
    accepted = "plain" if listed == "plain" else f"plain, {listed}"
    assert refusal.value.message == f"{written} is not accepted here; accepted are {accepted}"


def test_a_refusal_names_all_that_is_accepted_in_the_usual_order() -> None:
    payload = encode(a_vector(), Encoding.parse("bfloat16"))
    with pytest.raises(Refusal, match=r"accepted are plain, float32, int6, int4$"):
        decode(payload, accepting("int4", "int6", "float32"))


@pytest.mark.parametrize("written", NAMES)
def test_where_nothing_is_listed_only_the_plain_profile_is_read(written: str) -> None:
    payload = encode(some_vector(), Encoding.parse(written))
    if written == "plain":
        assert decode(payload, accepting(dim=1000)) == some_vector()
        return
    with pytest.raises(Refusal, match=r"accepted are plain$"):
        decode(payload, accepting(dim=1000))


@settings(max_examples=300)
@given(sparse_vectors(max_nnz=300), encodings)
def test_what_is_written_is_read_where_nothing_else_is_listed(
    vector: SparseVector, encoding: Encoding
) -> None:
    payload = encode(vector, encoding)
    assert decode(payload, accepting(encoding.name, dim=vector.dim)) == quantize(vector, encoding)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(-60, 20), st.integers(1, 130)), min_size=1, max_size=8),
    st.integers(0, 2**32),
    encodings,
)
def test_it_is_read_however_loudness_varies(
    runs: list[tuple[int, int]], seed: int, encoding: Encoding
) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([2.0**loud * rng.standard_normal(size) for loud, size in runs])
    vector = a_vector(range(values.size), values, dim=values.size)
    payload = encode(vector, encoding)
    assert decode(payload, accepting(encoding.name, dim=vector.dim)) == quantize(vector, encoding)


@pytest.mark.parametrize("bits", range(3, 9))
def test_the_bits_of_integers_show_in_them(bits: int) -> None:
    assert written_bits(to_pow2(some_vector().values, bits)) == bits
    # Zeros, and values at the end of the grid, take fewer than were wanted.
    assert written_bits(to_pow2(np.zeros(100, dtype=np.float32), bits)) == 3
    assert written_bits(to_pow2(np.full(100, 2.0**-40, dtype=np.float32), bits)) == 3


@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("block_size", [1, 64, 256, 65_536])
def test_a_writer_may_choose_its_blocks(bits: int, block_size: int) -> None:
    """Each block in the finest step under which its largest value has `bits` bits."""
    values = np.random.default_rng(bits).standard_t(3, 5_000).astype(np.float32)
    most = 2 ** (bits - 1) - 1
    starts = np.arange(0, values.size, block_size)
    loudest = np.maximum.reduceat(np.abs(values), starts)
    exponents = np.ceil(np.log2(loudest / most)).astype(np.int8)
    steps = 2.0 ** np.repeat(exponents, block_size)[: values.size].astype(np.float32)
    numbers = np.rint(values / steps).astype(np.int8)
    blocks = Pow2Blocks(numbers=numbers, exponents=exponents, block_size=block_size)
    assert written_bits(blocks) <= bits


def test_plain_values_beside_compact_positions_are_not_the_plain_profile() -> None:
    segment = a_segment(gaps=[], index_compression=pb.COMPRESSION_NONE, gap_high=b"\0\2\0")
    with pytest.raises(Refusal, match="float32 is not accepted"):
        decode(a_payload(segment), accepting("int6"))
    assert decode(a_payload(segment), accepting("float32")) == a_vector()


def test_every_segment_is_written_as_listed() -> None:
    first = a_segment(start=0, length=1, nnz=1, index_encoding=pb.INDEX_ENCODING_DENSE,
                      gaps=[], values=[1.0])  # fmt: skip
    second = a_segment(start=1, value_encoding=pb.VALUE_ENCODING_BFLOAT16, values=[],
                       value_compression=pb.COMPRESSION_NONE, value_data=bytes(6))  # fmt: skip
    with pytest.raises(Refusal, match="bfloat16 is not accepted"):
        decode(a_payload(first, second), accepting("int6"))
