"""The compact profile never changes: golden payloads are read by both readers, then and now."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flasc_core.errors import Refusal
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, Encoding, decode, quantize
from tests.support.reference import REFERENCE

HERE = Path(__file__).parent
DESCRIBED: dict[str, dict[str, Any]] = json.loads(
    (HERE / "compact.json").read_text(encoding="utf-8")
)
ROUNDED: dict[str, str] = json.loads((HERE / "rounded.json").read_text(encoding="utf-8"))
# Named by the bits that their numbers take.
WITH_BITS = re.compile(r"int\d_(one_in_|extremes)")
PLAIN = sorted((HERE / "plain").iterdir())


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


@pytest.mark.parametrize("name", [name for name in DESCRIBED if WITH_BITS.match(name)])
def test_integers_are_read_where_as_many_bits_are_listed_and_refused_elsewhere(name: str) -> None:
    payload = (HERE / "compact" / f"{name}.bin").read_bytes()
    written = Encoding.parse(name.split("_", maxsplit=1)[0])
    for bits in range(3, 9):
        listed = Encoding.parse(f"int{bits}")
        limits = replace(limits_of(DESCRIBED[name]["dim"]), encodings=frozenset({listed}))
        if bits >= written.bits:
            assert vector_digest(decode(payload, limits)) == DESCRIBED[name]["sha256"]
            continue
        with pytest.raises(Refusal, match=f"{written.name} is not accepted"):
            decode(payload, limits)


def test_every_encoding_has_a_file_of_every_density() -> None:
    compact = {path.stem for path in (HERE / "compact").iterdir()}
    plain = {f"plain_{path.stem}" for path in (HERE / "plain").iterdir()}
    for density in (1, 2, 4, 16, 64, 256):
        wanted = {f"{name}_one_in_{density}" for name in Encoding.names()}
        assert wanted <= compact | plain


@pytest.mark.parametrize("name", ROUNDED)
def test_an_encoding_rounds_as_it_always_has(name: str) -> None:
    assert vector_digest(quantize(a_varied_vector(), Encoding.parse(name))) == ROUNDED[name]


def test_every_encoding_has_its_rounding_recorded() -> None:
    assert tuple(ROUNDED) == Encoding.names()
